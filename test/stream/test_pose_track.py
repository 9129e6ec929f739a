# SPDX-License-Identifier: Apache-2.0
"""Poses of a session: what the network says, and what stands in where it says nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies._internal.random import ArtificialRandom
from numpy.typing import NDArray
from results import result_of

from xsvggt_ros.geometry.cameras import Intrinsics, encode
from xsvggt_ros.geometry.rigid import Matrix, invert
from xsvggt_ros.stream.health import QualityWatch
from xsvggt_ros.stream.processing import LEAST_BASELINE, MOST_HELD, PoseTrack

CAMERA = Intrinsics(50.0, 50.0, 32.0, 24.0, 64, 48)


def turned(degrees: float) -> Matrix:
    """Return the camera-to-world pose on a circle, looking outwards."""
    angle = np.radians(degrees)
    pose = np.eye(4)
    pose[0, [0, 2]] = np.cos(angle), np.sin(angle)
    pose[2, [0, 2]] = -np.sin(angle), np.cos(angle)
    pose[:3, 3] = np.sin(angle), 0.0, np.cos(angle) - 1.0
    return pose


def said(pose: Matrix, length: float = 1.0) -> NDArray[np.float32]:
    """Return the encoding of a camera-to-world pose, its quaternion of this length."""
    encoding = encode(invert(pose), CAMERA)
    encoding[3:7] *= length
    return encoding.astype(np.float32)


def follow(
    track: PoseTrack, degrees: list[float], camera: str = "", stamps: list[int] | None = None
) -> None:
    for angle, stamp in zip(degrees, stamps or range(len(degrees)), strict=True):
        pose, source = track.pose_of(said(turned(angle)), stamp, camera)
        assert source == "predicted"
        np.testing.assert_allclose(pose, turned(angle), atol=1e-6)


def garbled(length: float) -> NDArray[np.float32]:
    """Return an encoding whose quaternion points anywhere."""
    encoding = said(turned(0.0))
    encoding[3:7] = np.array([0.5, -0.5, 0.5, 0.5]) * length
    encoding[:3] = 9.0
    return encoding


def test_a_camera_goes_on_as_it_went_where_both_signs_meet() -> None:
    track = PoseTrack()
    follow(track, [3.0 * frame for frame in range(60)])
    pose, source = track.pose_of(garbled(0.26), 60)
    assert source == "held"
    np.testing.assert_allclose(pose, turned(180.0), atol=1e-6)
    follow(track, [183.0, 186.0])


def test_the_sign_of_a_quaternion_says_nothing() -> None:
    track = PoseTrack()
    follow(track, [3.0 * frame for frame in range(60)])
    encoding = said(turned(180.0))
    encoding[3:7] *= -1
    pose, source = track.pose_of(encoding, 60)
    assert source == "predicted"
    np.testing.assert_allclose(pose, turned(180.0), atol=1e-6)


@pytest.mark.parametrize(("length", "source"), [(0.49, "held"), (0.51, "predicted")])
def test_less_than_half_of_the_usual_length_says_no_rotation(length: float, source: str) -> None:
    track = PoseTrack()
    follow(track, [0.0] * 20)
    assert track.pose_of(garbled(length), 20)[1] == source


@pytest.mark.parametrize(
    ("known", "source"), [(LEAST_BASELINE - 1, "predicted"), (LEAST_BASELINE, "held")]
)
def test_nothing_is_short_before_lengths_are_usual(known: int, source: str) -> None:
    track = PoseTrack()
    follow(track, [0.0] * known)
    assert track.pose_of(garbled(0.1), known)[1] == source


def test_each_camera_of_a_rig_has_lengths_and_a_way_of_its_own() -> None:
    track = PoseTrack()
    for frame in range(20):
        stamps = [2 * frame]
        follow(track, [2.0 * frame], "left", stamps)
        right, source = track.pose_of(said(turned(90.0 - frame), 0.3), 2 * frame + 1, "right")
        assert source == "predicted"
        np.testing.assert_allclose(right, turned(90.0 - frame), atol=1e-6)
    pose, source = track.pose_of(garbled(0.3), 40, "left")
    assert source == "held"
    np.testing.assert_allclose(pose, turned(40.0), atol=1e-6)
    pose, source = track.pose_of(garbled(0.1), 41, "right")
    assert source == "held"
    np.testing.assert_allclose(pose, turned(70.0), atol=1e-6)


@pytest.mark.parametrize(
    ("before", "ahead", "degrees"), [(100, 100, 40.0), (400, 100, 10.0), (100, 300, 40.0)]
)
def test_the_way_is_as_long_as_the_time_but_no_longer_than_the_one_before(
    before: int, ahead: int, degrees: float
) -> None:
    track = PoseTrack()
    follow(track, [0.0] * 20, stamps=[100 * frame for frame in range(20)])
    follow(track, [40.0], stamps=[1900 + before])
    pose, source = track.pose_of(garbled(0.1), 1900 + before + ahead)
    assert source == "held"
    np.testing.assert_allclose(pose[:3, :3], turned(40.0 + degrees)[:3, :3], atol=1e-6)


def test_without_stamps_every_step_is_as_long() -> None:
    track = PoseTrack()
    follow(track, [3.0 * frame for frame in range(20)], stamps=[0] * 20)
    np.testing.assert_allclose(track.pose_of(garbled(0.1), 0)[0], turned(60.0), atol=1e-6)


def test_a_camera_that_stays_where_both_signs_meet_is_believed_again() -> None:
    track = PoseTrack()
    follow(track, [0.0] * 100)
    sources = [track.pose_of(said(turned(10.0), 0.3), 100 + n)[1] for n in range(100)]
    assert sources == ["held"] * MOST_HELD + ["predicted"] * (100 - MOST_HELD)


def test_what_was_believed_for_want_of_better_makes_no_way() -> None:
    track = PoseTrack()
    follow(track, [3.0 * frame for frame in range(20)])
    for stamp in (20, 21, 22):
        track.pose_of(garbled(0.1), stamp)
    pose, _ = track.pose_of(said(turned(69.0)), 23)
    pose, source = track.pose_of(garbled(0.1), 24)
    assert source == "held"
    np.testing.assert_allclose(pose[:3, :3], turned(72.0)[:3, :3], atol=0.05)


@pytest.mark.parametrize("stamp", [1900, 1800])
def test_a_camera_stands_still_where_time_does(stamp: int) -> None:
    track = PoseTrack()
    follow(track, [3.0 * n for n in range(20)], stamps=[100 * n for n in range(20)])
    np.testing.assert_allclose(track.pose_of(garbled(0.1), stamp)[0], turned(57.0), atol=1e-6)


@given(
    st.lists(st.floats(0.01, 1.0), min_size=2, max_size=200),
    st.floats(0.05, 20.0),
    st.randoms(use_true_random=False),
)
def test_poses_are_rigid_and_only_ratios_of_lengths_count(
    lengths: list[float], factor: float, random: ArtificialRandom
) -> None:
    usual, scaled = PoseTrack(), PoseTrack()
    for stamp, length in enumerate(lengths):
        encoding = said(turned(random.uniform(-180, 180)), length)
        other = encoding.copy()
        other[3:7] *= np.float32(factor)
        pose, _ = usual.pose_of(encoding, stamp)
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-6)
        assert np.linalg.det(pose) == pytest.approx(1.0)
        same, _ = scaled.pose_of(other, stamp)
        # Where a length is half of the usual one to the last bit, either may be said.
        if not any(0.499 < one / two < 0.501 for one in lengths for two in lengths):
            np.testing.assert_allclose(same, pose, atol=1e-4)


def test_a_held_pose_is_said() -> None:
    watch = QualityWatch()
    plausible = result_of(0)
    assert watch.faults_of(plausible) == ()
    held = dataclasses.replace(plausible, index=1, stamp=1, pose_source="held")
    assert watch.faults_of(held) == ("the network left the rotation open: the pose is held",)
