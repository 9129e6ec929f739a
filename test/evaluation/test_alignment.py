# SPDX-License-Identifier: Apache-2.0
"""Alignment finds the motion that was applied, and never mirrors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xsvggt_ros.geometry.rigid import Similarity, align, matrix_from_quaternion, mean_rotation

seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, scale: float) -> tuple[np.ndarray, Similarity]:
    rng = np.random.default_rng(seed)
    turn = matrix_from_quaternion(rng.normal(size=4))
    return rng.normal(size=(12, 3)), Similarity(scale, turn, rng.normal(size=3) * 10)


@given(seeds, st.floats(0.01, 100))
def test_a_similarity_is_found_again(seed: int, scale: float) -> None:
    points, motion = drawn(seed, scale)
    found = align(points, motion.points(points), scale=True)
    assert found.scale == pytest.approx(scale, rel=1e-9)
    np.testing.assert_allclose(found.rotation, motion.rotation, atol=1e-9)
    np.testing.assert_allclose(found.translation, motion.translation, atol=1e-7)


@given(seeds)
def test_a_rigid_motion_keeps_sizes(seed: int) -> None:
    points, motion = drawn(seed, 3.0)
    found = align(points, motion.points(points), scale=False)
    assert found.scale == 1.0
    np.testing.assert_allclose(found.rotation, motion.rotation, atol=1e-9)


@given(seeds)
def test_a_mirrored_cloud_is_turned_and_not_mirrored(seed: int) -> None:
    points, _ = drawn(seed, 1.0)
    found = align(points, points * [1, 1, -1], scale=True)
    assert np.linalg.det(found.rotation) == pytest.approx(1.0)


def test_points_in_one_place_keep_the_scale_of_one() -> None:
    found = align(np.ones((4, 3)), np.arange(12.0).reshape(4, 3), scale=True)
    assert found.scale == 1.0
    np.testing.assert_allclose(found.points(np.ones(3)), [4.5, 5.5, 6.5])


def test_poses_are_moved_and_stay_rigid() -> None:
    _, motion = drawn(3, 2.0)
    pose = np.eye(4)
    pose[:3, 3] = [1, 2, 3]
    moved = motion.poses(pose[None])[0]
    np.testing.assert_allclose(moved[:3, 3], motion.points(pose[:3, 3]))
    np.testing.assert_allclose(moved[:3, :3], motion.rotation)
    np.testing.assert_allclose(motion.matrix() @ [1, 2, 3, 1], [*moved[:3, 3], 1])


@pytest.mark.parametrize("shape", [(0, 3), (4, 2), (3,)])
def test_other_shapes_are_refused(shape: tuple[int, int] | tuple[int]) -> None:
    with pytest.raises(ValueError, match=r"must both be \(n, 3\)"):
        align(np.zeros(shape), np.zeros(shape), scale=True)


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        align(np.full((4, 3), np.nan), np.zeros((4, 3)), scale=True)


@given(seeds)
def test_the_mean_of_a_rotation_is_itself_and_between_two_it_is_half_way(seed: int) -> None:
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    angle = rng.uniform(0.1, 2.5)

    def turn(by: float) -> np.ndarray:
        return matrix_from_quaternion(np.array([*np.sin(by / 2) * axis, np.cos(by / 2)]))

    between = mean_rotation(np.stack([turn(0.0), turn(angle)]))
    np.testing.assert_allclose(between, turn(angle / 2), atol=1e-9)
    np.testing.assert_allclose(mean_rotation(turn(angle)[None]), turn(angle), atol=1e-12)
