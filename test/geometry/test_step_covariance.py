# SPDX-License-Identifier: Apache-2.0
"""How long errors of depth last, by what shows of them in blocks of the image."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from pose_benchmark import pose_views as pv
from results import result_with

from xsvggt_ros.geometry.pose_covariance import USUAL_PERSISTENCE, AccumulatedError
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


def test_errors_that_many_blocks_share_are_not_believed_at_once() -> None:
    """A few wide errors tell as little in many blocks as in few; it takes hundreds of images."""
    excesses: dict[int, list[float]] = {ENOUGH_FRAMES // 2: [], 400: []}
    for seed in range(8):
        persistence = LearnedPersistence()
        errors = blocks(0.5, 0.9, 400, seed)[:, :4]
        for number, each in enumerate(np.repeat(errors, COUNT // 4, axis=1), 1):
            persistence.note(each, np.full(COUNT, NOISE**2))
            if number in excesses:
                value = persistence.value
                excesses[number].append(excess(value.share, value.correlation))
    early, late = excesses.values()
    true = excess(0.5, 0.9)
    assert 0.3 * true < min(early)
    assert max(early) < 3.0 * true
    assert 0.5 * true < np.median(late) < 1.7 * true


def test_errors_below_the_noise_teach_nothing() -> None:
    """What is left of the variance may be an error of the noise."""
    random, persistence = np.random.default_rng(0), LearnedPersistence()
    for _ in range(300):
        errors = 0.09 * random.standard_normal(COUNT)
        persistence.note(errors, np.full(COUNT, 0.085**2))
    assert persistence.value == USUAL_PERSISTENCE


def test_nothing_is_compared_over_a_gap() -> None:
    errors, noise = blocks(0.9, 0.95, 300, 0), np.full(COUNT, NOISE**2)
    persistence = learned(errors)
    value = persistence.value
    for each in blocks(0.0, 0.9, 60, 1):  # each begins again: nothing is comparable
        persistence.begin_camera()
        persistence.note(each, noise)
    assert persistence.value.share == pytest.approx(value.share, abs=0.1)
    assert persistence.value.correlation == pytest.approx(value.correlation, abs=0.02)


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


def followed(
    kept: float, refinement: str, frames: int = 180, blank: int = 0
) -> tuple[float, list[CameraMotion]]:
    """Walk with depth whose error keeps a share of itself; return NEES/6 over 50 frames, motions.

    Args:
        kept: correlation of the error of a depth map with that of the one before.
        refinement: of the odometry.
        frames: of the walk.
        blank: each image of so many is black; 0 = none.

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
        if blank and index % blank == 0:
            result = replace(result, color=np.zeros_like(result.color))
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
    _, motions = followed(0.95, "off")
    assert {each.persistence for each in motions} == {USUAL_PERSISTENCE}


def accumulated(motions: list[CameraMotion], *, learned: bool) -> NDArray[np.float64]:
    """Return the covariance of the newest pose, from those of its steps."""
    error = AccumulatedError()
    for each in motions[1:]:
        persistence = each.persistence if learned else USUAL_PERSISTENCE
        error.step(each.step, each.step_covariance, persistence)
    return error.covariance


def test_what_is_published_is_summed_up_by_what_was_learned() -> None:
    _, motions = followed(0.95, "auto")
    published = motions[-1].covariance
    np.testing.assert_allclose(published, accumulated(motions, learned=True), rtol=1e-9)
    assert np.trace(published) > 2.0 * np.trace(accumulated(motions, learned=False))


def test_blank_images_leave_gaps_in_the_row() -> None:
    """Where every third image is blank, errors of neighbours are two or three steps apart."""
    _, motions = followed(0.9, "auto", blank=3, frames=220)
    newest = motions[-1].persistence
    assert newest.correlation == pytest.approx(0.9, abs=0.06)
