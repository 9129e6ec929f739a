# SPDX-License-Identifier: Apache-2.0
"""Poses of a session: what the network says, and what stands in where it says nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from results import result_of

from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.pose_encoding import encode
from xsvggt_ros.geometry.rigid import Matrix, invert
from xsvggt_ros.stream.pose_track import BASELINE, LEAST_BASELINE, PoseTrack
from xsvggt_ros.stream.quality import QualityWatch

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


def follow(track: PoseTrack, degrees: list[float], frame_id: str = "eye") -> None:
    for angle in degrees:
        pose, source = track.place(said(turned(angle)), frame_id)
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
    pose, source = track.place(garbled(0.26), "eye")
    assert source == "held"
    np.testing.assert_allclose(pose, turned(180.0), atol=1e-6)
    follow(track, [183.0, 186.0])


def test_the_sign_of_a_quaternion_says_nothing() -> None:
    track = PoseTrack()
    follow(track, [3.0 * frame for frame in range(60)])
    encoding = said(turned(180.0))
    encoding[3:7] *= -1
    pose, source = track.place(encoding, "eye")
    assert source == "predicted"
    np.testing.assert_allclose(pose, turned(180.0), atol=1e-6)


@pytest.mark.parametrize(("length", "source"), [(0.49, "held"), (0.51, "predicted")])
def test_less_than_half_of_the_usual_length_says_no_rotation(length: float, source: str) -> None:
    track = PoseTrack()
    follow(track, [0.0] * 20)
    assert track.place(garbled(length), "eye")[1] == source


@pytest.mark.parametrize("known", [1, LEAST_BASELINE - 1])
def test_nothing_is_short_before_lengths_are_usual(known: int) -> None:
    track = PoseTrack()
    follow(track, [0.0] * known)
    assert track.place(garbled(0.1), "eye")[1] == "predicted"


def test_each_camera_of_a_rig_goes_on_as_it_went() -> None:
    track = PoseTrack()
    for frame in range(20):
        follow(track, [2.0 * frame], "left")
        follow(track, [90.0 - frame], "right")
    pose, source = track.place(garbled(0.1), "left")
    assert source == "held"
    np.testing.assert_allclose(pose, turned(40.0), atol=1e-6)
    np.testing.assert_allclose(track.place(garbled(0.1), "right")[0], turned(70.0), atol=1e-6)


def test_a_camera_that_is_new_is_believed_and_with_one_pose_stands_still() -> None:
    track = PoseTrack()
    follow(track, [0.0] * 20)
    assert track.place(garbled(0.1), "new")[1] == "predicted"
    follow(track, [25.0], "newer")
    pose, source = track.place(garbled(0.1), "newer")
    assert source == "held"
    np.testing.assert_allclose(pose, turned(25.0), atol=1e-6)


def test_a_network_that_goes_on_with_short_quaternions_is_believed_after_a_while() -> None:
    track = PoseTrack()
    follow(track, [0.0] * 100)
    sources = [track.place(said(turned(10.0), 0.3), "eye")[1] for _ in range(BASELINE)]
    believed = sources.index("predicted")
    assert believed <= BASELINE // 2 + 1
    assert sources == ["held"] * believed + ["predicted"] * (BASELINE - believed)


@given(
    st.lists(st.floats(0.01, 1.0), min_size=2, max_size=50),
    st.floats(0.05, 20.0),
    st.randoms(use_true_random=False),
)
def test_poses_are_rigid_and_only_ratios_of_lengths_count(lengths, factor, random) -> None:
    usual, scaled = PoseTrack(), PoseTrack()
    for length in lengths:
        encoding = said(turned(random.uniform(-180, 180)), length)
        other = encoding.copy()
        other[3:7] *= np.float32(factor)
        pose, _ = usual.place(encoding, "eye")
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-6)
        assert np.linalg.det(pose) == pytest.approx(1.0)
        same, _ = scaled.place(other, "eye")
        # Where a length is half of the usual one to the last bit, either may be said.
        if not any(0.499 < one / two < 0.501 for one in lengths for two in lengths):
            np.testing.assert_allclose(same, pose, atol=1e-4)


def test_a_held_pose_is_said() -> None:
    watch = QualityWatch()
    plausible = result_of(0)
    assert watch.judge(plausible) == ()
    held = dataclasses.replace(plausible, index=1, stamp=1, pose_source="held")
    assert watch.judge(held) == ("the network left the rotation open: the pose is held",)
