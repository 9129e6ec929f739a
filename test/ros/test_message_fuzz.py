# SPDX-License-Identifier: Apache-2.0
"""Whatever the fields of a message hold, it is read or refused in a sentence."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selection import examples

REASON = "needs ROS 2: run scripts/test, or source a workspace"
pytest.importorskip("rclpy", reason=REASON)

from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest

from xsvggt_ros.errors import FrameError
from xsvggt_ros.ros import conversions
from xsvggt_ros.ros.conversions import header, packed
from xsvggt_ros.stream.frame import BitsInUse, Frame
from xsvggt_ros.stream.imaging import IMAGE_ENCODINGS
from xsvggt_ros.stream.messages import calibration_of, depth_of
from xsvggt_ros.stream.processing import CalibrationUse, Calibrator

UINT32 = st.integers(0, 2**32 - 1)
SIDES = st.integers(0, 40) | UINT32
STAMPS = st.tuples(st.integers(-(2**31), 2**31 - 1), UINT32)
NAMES = st.text(max_size=12) | st.sampled_from(["", "/", "/camera", "camera", "map", "odom", "a b"])
ENCODINGS = st.sampled_from(sorted(IMAGE_ENCODINGS)) | st.text(max_size=12)
MATRICES = st.lists(st.floats(), min_size=9, max_size=9)


def _stamped(message: Any, stamp: tuple[int, int], name: str) -> Any:
    message.header.stamp.sec, message.header.stamp.nanosec = stamp
    message.header.frame_id = name
    return message


def _assert_read_or_refused(frame: Frame) -> None:
    assert isinstance(frame.stamp, int)
    assert not frame.frame_id.startswith("/")
    try:
        image = frame.decode()
    except FrameError:
        return
    assert (image.dtype.name, image.ndim, image.shape[2]) == ("uint8", 3, 3)


@given(STAMPS, NAMES, ENCODINGS, SIDES, SIDES, SIDES, st.integers(0, 255), st.binary(max_size=600))
@settings(max_examples=examples(300))
def test_any_image_is_read_or_refused(
    stamp: tuple[int, int], name: str, encoding: str, width: int, height: int, step: int,
    big: int, data: bytes,
) -> None:  # fmt: skip
    message = Image(height=height, width=width, encoding=encoding, is_bigendian=big, step=step)
    message.data = packed(np.frombuffer(data, np.uint8))
    _stamped(message, stamp, name)
    _assert_read_or_refused(conversions.frame_from(message, bits=BitsInUse()))
    try:
        depth = depth_of(message)
    except FrameError:
        return
    assert depth.shape == (height, width)


@given(STAMPS, NAMES, st.text(max_size=40), st.binary(max_size=200))
@settings(max_examples=examples(300))
def test_any_compressed_image_is_read_or_refused(
    stamp: tuple[int, int], name: str, text: str, data: bytes
) -> None:
    message = CompressedImage(format=text)
    message.data = packed(np.frombuffer(data, np.uint8))
    _stamped(message, stamp, name)
    _assert_read_or_refused(conversions.frame_from(message, bits=BitsInUse()))


@given(
    NAMES,
    SIDES,
    SIDES,
    st.text(max_size=20) | st.sampled_from(["plumb_bob", "rational_polynomial", "equidistant"]),
    st.lists(st.floats(), max_size=15),
    MATRICES,
    MATRICES,
    st.lists(st.floats(), min_size=12, max_size=12),
    st.tuples(SIDES, SIDES, SIDES, SIDES, SIDES, SIDES),
    st.sampled_from(get_args(CalibrationUse)),
)
@settings(max_examples=examples(300))
def test_any_camera_info_is_used_or_left_out(
    name: str, width: int, height: int, model: str, d: list[float], k: list[float],
    r: list[float], p: list[float], rest: tuple[int, ...], use: Any,
) -> None:  # fmt: skip
    message = CameraInfo(
        header=header(1, name), width=width, height=height, distortion_model=model, d=d, k=k, r=r,
        p=p, binning_x=rest[0], binning_y=rest[1],
        roi=RegionOfInterest(
            x_offset=rest[2], y_offset=rest[3], width=rest[4], height=rest[5], do_rectify=True
        ),
    )  # fmt: skip
    found = Calibrator(use).rectification_for(
        calibration_of(message), np.zeros((6, 8, 3), np.uint8)
    )
    if found is not None:
        assert np.isfinite(found.intrinsics.matrix()).all()
