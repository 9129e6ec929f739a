# SPDX-License-Identifier: Apache-2.0
"""What ROS messages say, read by the names of their fields.

Those of rclpy and those that rosbags reads without ROS are alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import FrameError
from xsvggt_ros.geometry.cameras import Calibration
from xsvggt_ros.geometry.trajectory_io import NANOSECONDS
from xsvggt_ros.stream.frame import ImageArray
from xsvggt_ros.stream.image_formats import BitsInUse
from xsvggt_ros.stream.imaging import decode_encoded, decode_raw

MILLIMETRES = 1000.0
"""Steps per metre of 16-bit depth (REP-118)."""

DEPTH_ENCODINGS = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}


def nanoseconds(stamp: Any) -> int:
    """Return a ``Time`` in nanoseconds."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def frame_name(name: str) -> str:
    """Return the name of a coordinate frame without the slash that ROS 1 put before it.

    tf2 refuses such names; whatever reads a message's ``frame_id`` reads it through here.
    """
    return name.lstrip("/")


def image_of(message: Any, bits: BitsInUse | None = None) -> ImageArray:
    """Decode an ``Image``; raise FrameError where its fields do not fit each other."""
    return decode_raw(
        message.data,
        width=message.width,
        height=message.height,
        encoding=message.encoding,
        step=message.step,
        is_bigendian=bool(message.is_bigendian),
        bits=bits,
    )


def compressed_image_of(message: Any, bits: BitsInUse | None = None) -> ImageArray:
    """Decode a ``CompressedImage``; raise FrameError where it is damaged or no camera's image."""
    return decode_encoded(message.data, message.format, bits=bits)


def calibration_of(message: Any, *, rectified: bool = False) -> Calibration:
    """Return what a ``CameraInfo`` says of images rectified or not.

    ROS 1 writes its matrices in capitals.
    """

    def numbers(name: str) -> tuple[float, ...]:
        values = getattr(message, name, None)
        return tuple(map(float, getattr(message, name.upper()) if values is None else values))

    region = message.roi
    return Calibration(
        width=message.width,
        height=message.height,
        distortion_model=message.distortion_model,
        d=numbers("d"),
        k=numbers("k"),
        r=numbers("r"),
        p=numbers("p"),
        binning=(message.binning_x, message.binning_y),
        region=(region.x_offset, region.y_offset, region.width, region.height),
        frame_id=frame_name(message.header.frame_id),
        rectified=rectified,
    )


def depth_of(message: Any, steps_per_metre: float = MILLIMETRES) -> NDArray[np.float32]:
    """Return an ``Image`` of depth in metres, [height, width], NaN where unknown.

    32FC1 holds metres, 16UC1 steps, with 0 for unknown (REP-118).

    Raises:
        FrameError: another encoding, no pixels, or less data than the size needs.

    """
    if message.encoding not in DEPTH_ENCODINGS:
        raise FrameError(
            f"depth of encoding '{message.encoding}' is not supported; publish 32FC1 or 16UC1"
        )
    height, width, step = int(message.height), int(message.width), int(message.step)
    if not width or not height:
        raise FrameError(f"depth of {width}x{height} has no pixels; publish whole images")
    order = ">" if message.is_bigendian else "<"
    kind = np.dtype(order + DEPTH_ENCODINGS[message.encoding])
    row = width * kind.itemsize
    if step < row or len(message.data) < height * step:
        raise FrameError(
            f"depth of {width}x{height} {message.encoding} needs {row} bytes a row; step is "
            f"{step}, data holds {len(message.data)} bytes"
        )
    lines = np.frombuffer(message.data, np.uint8, height * step).reshape(height, step)
    return in_metres(np.ascontiguousarray(lines[:, :row]).view(kind), steps_per_metre)


def in_metres(values: NDArray[Any], steps_per_metre: float = MILLIMETRES) -> NDArray[np.float32]:
    """Return depth [h, w] in metres: integers are steps, floats metres; NaN unless above zero."""
    depth = values.astype(np.float32)
    if values.dtype.kind == "u":
        depth /= np.float32(steps_per_metre)
    depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    return depth
