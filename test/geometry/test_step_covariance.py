# SPDX-License-Identifier: Apache-2.0
"""How long errors of depth last, by what shows of them in blocks of the image."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from pose_benchmark import pose_views as pv
from results import result_with

from xsvggt_ros.geometry.pose_covariance import USUAL_PERSISTENCE
from xsvggt_ros.geometry.rigid import invert
from xsvggt_ros.geometry.step_covariance import BLOCKS, ENOUGH_FRAMES, LearnedPersistence
from xsvggt_ros.metrics.odometry import score_poses
from xsvggt_ros.stream.frame import CameraMotion
from xsvggt_ros.stream.odometry import VisualOdometry

COUNT = BLOCKS[0] * BLOCKS[1]
NOISE = 0.03


def blocks(share: float, correlation: float, frames: int, seed: int) -> NDArray[np.float64]:
    """Return depth errors [frames, blocks] of which a share fades from step to step, and noise."""
    random = np.random.default_rng(seed)
    lasting, found = random.standard_normal(COUNT), []
    for _ in range(frames):
        white, fresh, noise = random.standard_normal((3, COUNT))
        found.append(0.05 * (np.sqrt(share) * lasting + np.sqrt(1 - share) * white) + NOISE * noise)
        lasting = correlation * lasting + np.sqrt(1 - correlation**2) * fresh
    return np.array(found)


def learned(errors: NDArray[np.float64]) -> LearnedPersistence:
    persistence = LearnedPersistence()
    for each in errors:
        persistence.note(each, np.full(COUNT, NOISE**2))
    return persistence


def excess(share: float, correlation: float) -> float:
    """Return by how much errors that last make long sums of steps worse, in variances of a step."""
    return 2 * share * correlation / (1 - correlation)


@pytest.mark.parametrize(
    ("share", "correlation"), [(0.8, 0.95), (0.5, 0.9), (0.9, 0.8), (1.0, 0.6), (0.3, 0.95)]
)
def test_share_and_correlation_are_found(share: float, correlation: float) -> None:
    for seed in range(3):
        value = learned(blocks(share, correlation, 300, seed)).value
        assert value.share == pytest.approx(share, abs=0.15)
        assert value.correlation == pytest.approx(correlation, abs=0.06)
        found = excess(value.share, value.correlation)
        assert found == pytest.approx(excess(share, correlation), rel=0.4)


def test_errors_that_are_new_in_each_image_do_not_last() -> None:
    value = learned(blocks(0.0, 0.9, 300, 0)).value
    assert value.share < 0.1
    assert excess(value.share, value.correlation) < 0.8


def test_a_few_frames_change_little_of_what_is_usual() -> None:
    errors = blocks(0.0, 0.9, ENOUGH_FRAMES, 0)
    assert LearnedPersistence().value == USUAL_PERSISTENCE
    assert learned(errors[:1]).value == USUAL_PERSISTENCE
    few = learned(errors[:5]).value
    assert few.share > 0.8 * USUAL_PERSISTENCE.share


def test_images_that_tell_nothing_take_their_place_in_the_row() -> None:
    """Every second image is blank, or its blocks are unknown: the others are two steps apart."""
    errors = blocks(0.9, 0.9, 600, 0)
    whole, gappy, blank = (LearnedPersistence() for _ in range(3))
    for index, each in enumerate(errors):
        noise = np.full(COUNT, NOISE**2)
        whole.note(each, noise)
        if index % 2:
            gappy.note_nothing()
            unknown = np.full(COUNT, np.nan)
            blank.note(unknown, unknown)
        else:
            gappy.note(each, noise)
            blank.note(each, noise)
    assert blank.value == gappy.value
    assert gappy.value.share == pytest.approx(whole.value.share, abs=0.1)
    assert gappy.value.correlation == pytest.approx(whole.value.correlation, abs=0.04)


@pytest.mark.parametrize("outlier", [1e3, np.inf])
def test_single_blocks_that_are_far_off_do_not_decide(outlier: float) -> None:
    errors = blocks(0.8, 0.9, 300, 0)
    plain = learned(errors).value
    errors[::7, 3] = outlier
    value = learned(errors).value
    assert np.isfinite([value.share, value.correlation]).all()
    assert value.share == pytest.approx(plain.share, abs=0.15)
    assert value.correlation == pytest.approx(plain.correlation, abs=0.05)


def test_without_any_error_nothing_is_learned() -> None:
    assert learned(np.zeros((100, COUNT))).value == USUAL_PERSISTENCE


def followed(kept: float, refinement: str, frames: int = 160) -> tuple[float, list[CameraMotion]]:
    """Walk with depth whose error keeps a share of itself; return NEES/6 over 50 frames, motions.

    Args:
        kept: correlation of the error of a depth map with that of the one before.
        refinement: of the odometry.
        frames: of the walk.

    """
    random, camera = np.random.default_rng(1), pv.camera(4)
    odometry, errors = VisualOdometry(4, refinement), pv.Errors(4.0, 0.0, turn=0.2, way=0.01)
    truth = pv.walk(random, frames)
    wrong, motions = pv.noise(random, 4.0, 4), []
    for index, pose in enumerate(truth):
        depth = (pv.room_depth(pose, camera) * (1 + 0.05 * wrong)).astype(np.float32)
        result = result_with(
            depth, index=index, stamp=index * 10**9, intrinsics=camera,
            camera_to_world=pv.head_pose(random, pose, errors), color=pv.room_image(pose, camera),
        )  # fmt: skip
        motion = odometry.follow(result).motion
        assert motion is not None
        motions.append(motion)
        wrong = kept * wrong + np.sqrt(1 - kept**2) * pv.noise(random, 4.0, 4)
    steps = np.array([each.step for each in motions[1:]])
    covariances = np.array([each.step_covariance for each in motions[1:]])
    true = np.array([invert(one) @ other for one, other in pairwise(truth)])
    persistences = [each.persistence for each in motions[1:]]
    (_, over_50, *_) = score_poses(
        steps, true, covariances, persistences, [np.arange(ENOUGH_FRAMES, frames - 1)], "se3"
    )
    return float(over_50.nees.mean()), motions


@pytest.mark.parametrize(("kept", "least", "most"), [(0.95, 10.0, 60.0), (0.0, 0.0, 5.0)])
def test_poses_are_as_wrong_as_is_said_however_long_errors_of_depth_last(
    kept: float, least: float, most: float
) -> None:
    nees, motions = followed(kept, "auto")
    assert motions[1].persistence == USUAL_PERSISTENCE
    newest = motions[-1].persistence
    assert least <= excess(newest.share, newest.correlation) <= most
    assert 0.3 <= nees <= 2.0


def test_steps_that_are_the_network_s_have_another_error() -> None:
    _, motions = followed(0.95, "off", frames=110)
    assert {each.persistence for each in motions} == {USUAL_PERSISTENCE}
