# SPDX-License-Identifier: Apache-2.0
"""The points of one frame as an organised PointCloud2."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import PointCloud2, PointField
from sensor_msgs_py import point_cloud2
from std_msgs.msg import Header

from xsvggt_ros.geometry.unprojection import unproject
from xsvggt_ros.ros.parameters import Points
from xsvggt_ros.stream.frame import FrameResult, ImageArray

_NAMES = ("x", "y", "z", "rgb", "confidence", "stddev")
_MAP_FIELDS = 5
_FLOAT = 4
_RGB_TO_BGR0 = [0, 2, 1, 1, 2, 0]
POINT_FIELDS = [
    PointField(name=name, offset=_FLOAT * i, datatype=PointField.FLOAT32, count=1)
    for i, name in enumerate(_NAMES)
]
"""Of the points of one frame."""
FIELDS = POINT_FIELDS[:_MAP_FIELDS]
"""Of the points of a map."""
POINT = point_cloud2.dtype_from_fields(FIELDS)
POINT_STEP = POINT.itemsize
_FRAME_POINT = point_cloud2.dtype_from_fields(POINT_FIELDS)


class CloudPacker:
    """Packs clouds into one message that is used again for every frame.

    Fresh memory for each cloud, as ``create_cloud`` takes it, costs more than filling it.
    """

    def __init__(self) -> None:
        self._allocate(1, 1)

    def pack(self, header: Header, result: FrameResult, points: Points) -> PointCloud2:
        """Return every ``stride``-th pixel's point in the optical frame, NaN where not trusted.

        ``rgb`` holds 0x00RRGGBB in the bits of a float32, as RViz and PCL read it. ``stddev`` is
        the standard deviation along the ray in metres, NaN where no scale or no error is known.
        The message is valid until the next call.
        """
        every = slice(None, None, points.stride)
        trusted = result.confidence >= points.min_confidence
        xyz = unproject(np.where(trusted, result.depth, np.float32(np.nan)), result.intrinsics)
        confidence = result.confidence[every, every]
        if confidence.shape != self._rows.shape[:2]:
            self._allocate(*confidence.shape)
        for axis in range(3):
            self._rows[..., axis] = xyz[every, every, axis]
        self._rows.view(np.uint32)[..., 3] = _packed_color(result.color)[every, every]
        self._rows[..., 4] = confidence
        self._rows[..., 5] = result.depth[every, every] * np.float32(_relative_error(result))
        self._message.header = header
        self._message.is_dense = not bool(np.isnan(self._rows[..., 2]).any())
        return self._message

    def _allocate(self, height: int, width: int) -> None:
        self._message = point_cloud2.create_cloud(
            Header(), POINT_FIELDS, np.zeros(height * width, _FRAME_POINT)
        )
        # Of an organised array, create_cloud takes the first axis for the width.
        self._message.height, self._message.width = height, width
        self._message.row_step = width * _FRAME_POINT.itemsize
        # What the message holds, not what it was given: some distributions' setters copy.
        rows = np.frombuffer(self._message.data, np.float32)
        self._rows = rows.reshape(height, width, len(_NAMES))


def _relative_error(result: FrameResult) -> float:
    """Return the standard deviation of depth as a share of it; NaN where nobody knows metres."""
    if result.motion is None or not result.metric:
        return float("nan")
    return result.motion.depth_error


def _packed_color(color: ImageArray) -> NDArray[np.uint32]:
    bgr0 = np.zeros((*color.shape[:2], 4), np.uint8)
    cv2.mixChannels([color], [bgr0], _RGB_TO_BGR0)
    return bgr0.view("<u4")[..., 0]
