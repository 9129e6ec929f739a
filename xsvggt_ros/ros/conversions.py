# SPDX-License-Identifier: Apache-2.0
"""Between ROS messages and the types of the engine: time, images, calibrations, poses."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from functools import partial
from typing import Any

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Transform, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header
from tf_transformations import quaternion_from_matrix, quaternion_matrix

from xsvggt_ros.geometry.cameras import Calibration
from xsvggt_ros.geometry.rigid import Matrix
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
    fault = _fault(message.header, frames, in_rig)
    return _frame(message.header, decode, frames, calibration, bits, fault)


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
    fault = _fault(message.header, frames, in_rig)
    return _frame(message.header, decode, frames, calibration, bits, fault)


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


def pose(matrix: Matrix) -> Pose:
    """Return a rigid [4, 4] as a pose."""
    x, y, z = matrix[:3, 3].tolist()
    message = Pose(position=Point(x=x, y=y, z=z))
    _set_rotation(message.orientation, matrix)
    return message


def pose_matrix(message: Pose) -> Matrix:
    """Return a pose as a rigid [4, 4]; inverse of :func:`pose`."""
    return _matrix(message.position, message.orientation)


def transform(matrix: Matrix) -> Transform:
    """Return a rigid [4, 4] as a transform."""
    x, y, z = matrix[:3, 3].tolist()
    message = Transform(translation=Vector3(x=x, y=y, z=z))
    _set_rotation(message.rotation, matrix)
    return message


def transform_matrix(message: Transform) -> Matrix:
    """Return a transform as a rigid [4, 4]; inverse of :func:`transform`."""
    return _matrix(message.translation, message.rotation)


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
    fault: str,
) -> Frame:
    return Frame(
        stamp=nanoseconds(top.stamp),
        fault=fault,
        frame_id=frames.camera or frame_name(top.frame_id),
        decode=decode,
        calibration=calibration,
        bits=bits,
    )


def _fault(top: Header, frames: Frames, in_rig: bool) -> str:
    """Return why a frame of this header is to be refused, empty where it is not."""
    stamp = nanoseconds(top.stamp)
    if not 0 <= stamp <= LATEST:
        return f"its stamp of {stamp / 1e9:.3f} s is no time of ROS; {_CLOCK}"
    frame_id = frames.camera or frame_name(top.frame_id)
    if not (fault := frames.fault_of_camera(frame_id)):
        return ""
    # frames.camera would be one name for all cameras of a rig.
    remedy = "" if in_rig else ", or set frames.camera"
    return (
        f"The image's frame_id '{frame_id}' {fault}: have its publisher name the optical "
        f"frame{remedy}."
    )


def _set_rotation(quaternion: Any, matrix: Matrix) -> None:
    x, y, z, w = quaternion_from_matrix(matrix)
    quaternion.x, quaternion.y, quaternion.z, quaternion.w = float(x), float(y), float(z), float(w)


def _matrix(translation: Any, rotation: Any) -> Matrix:
    """Return the rigid [4, 4] of a point or vector and a quaternion."""
    matrix: Matrix = quaternion_matrix((rotation.x, rotation.y, rotation.z, rotation.w))
    matrix[:3, 3] = translation.x, translation.y, translation.z
    return matrix
