# SPDX-License-Identifier: Apache-2.0
"""Between ROS messages and the types of the engine: time, images, calibrations, poses."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose, Transform
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from xsvggt_ros.errors import FrameError
from xsvggt_ros.geometry.cameras import Calibration
from xsvggt_ros.geometry.rigid import quaternion_from_matrix
from xsvggt_ros.geometry.trajectory_io import NANOSECONDS
from xsvggt_ros.ros.parameters import Frames
from xsvggt_ros.stream.bits_in_use import BitsInUse
from xsvggt_ros.stream.frame import Frame, ImageArray
from xsvggt_ros.stream.messages import (
    compressed_image_of,
    frame_name,
    image_of,
    nanoseconds,
)

DEFAULT_FRAMES = Frames()
_CLOCK = "look at the clock of its publisher"


LATEST = 2**31 * NANOSECONDS - 1
"""Nanoseconds; ROS counts seconds in 32 bits with a sign."""


def header(stamp: int, frame_id: str) -> Header:
    """Return a header for a stamp in nanoseconds; what ROS cannot hold is brought to its bounds."""
    seconds, rest = divmod(min(max(stamp, 0), LATEST), NANOSECONDS)
    return Header(stamp=Time(sec=seconds, nanosec=rest), frame_id=frame_id)


def frame_from_image(
    message: Image,
    *,
    frames: Frames = DEFAULT_FRAMES,
    calibration: Calibration | None = None,
    bits: BitsInUse | None = None,
    in_rig: bool = False,
) -> Frame:
    """Wrap a raw image without looking at its pixels; ``frames.camera`` renames its frame."""
    decode = partial(image_of, message, bits)
    return _frame(
        message.header, _named(message, frames, decode, in_rig), frames, calibration, bits
    )


def frame_from_compressed(
    message: CompressedImage,
    *,
    frames: Frames = DEFAULT_FRAMES,
    calibration: Calibration | None = None,
    bits: BitsInUse | None = None,
    in_rig: bool = False,
) -> Frame:
    """Wrap a compressed image without decoding it; ``frames.camera`` renames its frame."""
    decode = partial(compressed_image_of, message, bits)
    return _frame(
        message.header, _named(message, frames, decode, in_rig), frames, calibration, bits
    )


def camera_info_of(top: Header, known: Calibration) -> CameraInfo:
    """Return a calibration as a message; inverse of ``calibration_of``."""
    left, upper, width, height = known.region
    return CameraInfo(
        header=top,
        height=known.height,
        width=known.width,
        distortion_model=known.distortion_model,
        d=list(known.d),
        k=list(known.k),
        r=list(known.r),
        p=list(known.p),
        binning_x=known.binning[0],
        binning_y=known.binning[1],
        roi=RegionOfInterest(x_offset=left, y_offset=upper, width=width, height=height),
    )


def pose(matrix: NDArray[np.float64]) -> Pose:
    """Return a rigid [4, 4] as a pose."""
    message = Pose()
    _set_translation(message.position, matrix)
    _set_rotation(message.orientation, matrix)
    return message


def transform(matrix: NDArray[np.float64]) -> Transform:
    """Return a rigid [4, 4] as a transform."""
    message = Transform()
    _set_translation(message.translation, matrix)
    _set_rotation(message.rotation, matrix)
    return message


def packed(values: NDArray[Any]) -> array[int]:
    """Return the bytes of a contiguous array as ``data`` of a message takes them.

    Anything else (bytes, an ndarray, a list) is copied byte by byte by some distributions.
    """
    data = array("B")
    data.frombytes(values.data.cast("B"))
    return data


def _frame(
    top: Header,
    decode: Callable[[], ImageArray],
    frames: Frames,
    calibration: Calibration | None,
    bits: BitsInUse | None,
) -> Frame:
    stamp = nanoseconds(top.stamp)
    beyond = not 0 <= stamp <= LATEST
    return Frame(
        stamp=stamp,
        fault=f"its stamp of {stamp / 1e9:.3f} s is no time of ROS; {_CLOCK}" if beyond else "",
        frame_id=frames.camera or frame_name(top.frame_id),
        decode=decode,
        calibration=calibration,
        bits=bits,
    )


def _named(
    message: Any, frames: Frames, decode: Callable[[], ImageArray], in_rig: bool
) -> Callable[[], ImageArray]:
    """Return ``decode``, or what refuses a frame whose name transforms cannot carry."""
    frame_id = frames.camera or frame_name(message.header.frame_id)
    fault = frames.fault_of_camera(frame_id)
    return partial(_refuse_name, frame_id, fault, in_rig) if fault else decode


def _refuse_name(frame_id: str, fault: str, in_rig: bool) -> ImageArray:
    # frames.camera would be one name for all cameras of a rig.
    remedy = "" if in_rig else ", or set frames.camera"
    raise FrameError(
        f"The image's frame_id '{frame_id}' {fault}: have its publisher name the optical "
        f"frame{remedy}."
    )


def _set_translation(vector: Any, matrix: NDArray[np.float64]) -> None:
    vector.x, vector.y, vector.z = (float(value) for value in matrix[:3, 3])


def _set_rotation(quaternion: Any, matrix: NDArray[np.float64]) -> None:
    x, y, z, w = quaternion_from_matrix(matrix[:3, :3])
    quaternion.x, quaternion.y, quaternion.z, quaternion.w = float(x), float(y), float(z), float(w)
