# SPDX-License-Identifier: Apache-2.0
"""Depth, confidence and their camera as messages."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.ros.conversions import packed

MILLIMETRES = 1000.0
MAX_MILLIMETRES = 65535


def depth_image(header: Header, depth: NDArray[np.float32], encoding: str) -> Image:
    """Return depth in metres: 32FC1 with NaN, or 16UC1 millimetres with 0, where unknown."""
    if encoding == "32FC1":
        return _image(header, depth, encoding)
    return _image(header, _millimetres(depth), encoding)


def confidence_image(header: Header, confidence: NDArray[np.float32]) -> Image:
    """Return a confidence map as 32FC1."""
    return _image(header, confidence, "32FC1")


def camera_info(header: Header, intrinsics: Intrinsics) -> CameraInfo:
    """Return the camera of an image that has no distortion and is not rotated."""
    k = intrinsics.matrix()
    return CameraInfo(
        header=header,
        height=intrinsics.height,
        width=intrinsics.width,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=k.ravel().tolist(),
        r=np.eye(3).ravel().tolist(),
        p=np.hstack([k, np.zeros((3, 1))]).ravel().tolist(),
    )


def _millimetres(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round to millimetres; unknown and negative depth is 0, too great depth saturates."""
    scaled = np.nan_to_num(depth * MILLIMETRES, nan=0.0, posinf=MAX_MILLIMETRES, neginf=0.0)
    rounded: NDArray[np.uint16] = np.rint(scaled.clip(0.0, MAX_MILLIMETRES)).astype(np.uint16)
    return rounded


def _image(header: Header, values: NDArray[Any], encoding: str) -> Image:
    pixels = np.ascontiguousarray(values)
    message = Image(
        header=header,
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=sys.byteorder == "big",
        step=pixels.strides[0],
    )
    message.data = packed(pixels)
    return message
