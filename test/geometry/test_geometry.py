# SPDX-License-Identifier: Apache-2.0
"""Poses, cameras and unprojection equal the reference's, and invert each other."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from xsvggt_ros.geometry import rigid
from xsvggt_ros.geometry.cameras import (
    Intrinsics,
    encode,
    intrinsics_from_encoding,
    unproject,
    world_to_camera,
)

UNITS = {name: tensor.numpy() for name, tensor in reference.tensors("units").items()}
HEIGHT, WIDTH = reference.CONFIG["height"], reference.CONFIG["width"]

quaternions = hnp.arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(
    lambda q: np.linalg.norm(q) > 0.1
)


@pytest.mark.parametrize("index", range(6))
def test_decoding_equals_the_reference(index: int) -> None:
    encoding = UNITS["pose_in"][0, index]
    extrinsics = world_to_camera(encoding)[:3]
    intrinsics = intrinsics_from_encoding(encoding, WIDTH, HEIGHT).matrix()
    np.testing.assert_allclose(extrinsics, UNITS["pose_extrinsics"][0, index], atol=1e-6)
    np.testing.assert_allclose(intrinsics, UNITS["pose_intrinsics"][0, index], rtol=1e-5)


@pytest.mark.parametrize("index", range(6))
def test_encoding_again_equals_the_reference(index: int) -> None:
    encoding = UNITS["pose_in"][0, index]
    again = encode(world_to_camera(encoding), intrinsics_from_encoding(encoding, WIDTH, HEIGHT))
    np.testing.assert_allclose(again, UNITS["pose_roundtrip"][0, index], atol=1e-5)


def test_unprojection_equals_the_reference() -> None:
    depths, worlds = UNITS["unproj_depth"], UNITS["unproj_world"]
    for index in range(len(depths)):
        camera = UNITS["pose_intrinsics"][0, index]
        height, width = depths.shape[1:3]
        intrinsics = Intrinsics(
            camera[0, 0], camera[1, 1], camera[0, 2], camera[1, 2], width, height
        )
        extrinsics = np.eye(4)
        extrinsics[:3] = UNITS["pose_extrinsics"][0, index]
        points = unproject(depths[index, ..., 0], intrinsics)
        world = rigid.transform_points(rigid.invert(extrinsics), points)
        np.testing.assert_allclose(world, worlds[index], rtol=1e-4, atol=1e-4)


def test_unknown_depth_gives_unknown_points() -> None:
    depth = np.ones((2, 3), np.float32)
    depth[1, 2] = np.nan
    points = unproject(depth, Intrinsics(1.0, 1.0, 1.0, 1.0, 3, 2))
    assert np.isnan(points[1, 2]).all()
    assert np.isfinite(points).all(axis=2).sum() == 5
    assert points.dtype == np.float32


@given(quaternions)
def test_quaternions_survive_matrices(quaternion: NDArray[np.float64]) -> None:
    rotation = rigid.matrix_from_quaternion(quaternion)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    again = rigid.quaternion_from_matrix(rotation)
    assert again[3] >= 0
    unit = quaternion / np.linalg.norm(quaternion)
    assert abs(again @ unit) == pytest.approx(1.0, abs=1e-9)


@given(quaternions, hnp.arrays(np.float64, 3, elements=st.floats(-100, 100)))
def test_inverse(quaternion: NDArray[np.float64], translation: NDArray[np.float64]) -> None:
    transform = np.eye(4)
    transform[:3, :3] = rigid.matrix_from_quaternion(quaternion)
    transform[:3, 3] = translation
    np.testing.assert_allclose(rigid.invert(transform) @ transform, np.eye(4), atol=1e-9)


def test_map_axes_are_those_of_rep_103() -> None:
    forward, right, down = np.eye(4), np.eye(4), np.eye(4)
    forward[2, 3], right[0, 3], down[1, 3] = 1.0, 1.0, 1.0
    assert rigid.world_to_map(forward)[:3, 3].tolist() == [1, 0, 0]
    assert rigid.world_to_map(right)[:3, 3].tolist() == [0, -1, 0]
    assert rigid.world_to_map(down)[:3, 3].tolist() == [0, 0, -1]
