# SPDX-License-Identifier: Apache-2.0
"""Depth, confidence and their camera as messages."""

from __future__ import annotations

import numpy as np
from cv_bridge import CvBridge
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from xsvggt_ros.geometry.cameras import Intrinsics

MILLIMETRES = 1000.0
MAX_MILLIMETRES = 65535
_BRIDGE = CvBridge()
"""Names an encoding by the type of the array: 32FC1 and 16UC1 here."""


def depth_image(header: Header, depth: NDArray[np.float32], encoding: str) -> Image:
    """Return depth in metres: 32FC1 with NaN, or 16UC1 millimetres with 0, where unknown."""
    values = depth if encoding == "32FC1" else _millimetres(depth)
    return _BRIDGE.cv2_to_imgmsg(values, header=header)


def confidence_image(header: Header, confidence: NDArray[np.float32]) -> Image:
    """Return a confidence map as 32FC1."""
    return _BRIDGE.cv2_to_imgmsg(confidence, header=header)


def color_image(header: Header, color: NDArray[np.uint8]) -> Image:
    """Return an RGB image, uint8 [height, width, 3], as rgb8."""
    return _BRIDGE.cv2_to_imgmsg(color, "rgb8", header)


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
