# SPDX-License-Identifier: Apache-2.0
"""The newest camera_info beside the pictures."""

from __future__ import annotations

import logging

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo

from xsvggt_ros.geometry.cameras import Calibration, is_rectified_topic
from xsvggt_ros.ros import qos
from xsvggt_ros.ros.topics import calibration_topic
from xsvggt_ros.stream.messages import calibration_of

logger = logging.getLogger(__name__)


class CalibrationInput:
    """Keeps what the camera_info says."""

    def __init__(self, node: Node, pictures: str, camera: str = "") -> None:
        self._newest: Calibration | None = None
        self._topic = calibration_topic(node, pictures, camera)
        self._rectified = is_rectified_topic(pictures)
        self._warned_of: str | None = None
        self._node = node
        self._subscription = node.create_subscription(
            CameraInfo, self._topic, self._receive, qos.CALIBRATIONS
        )

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def of(self, frame_id: str) -> Calibration | None:
        """Return the calibration of the camera whose pictures carry ``frame_id``."""
        newest = self._newest
        if newest is None or newest.speaks_of(frame_id):
            return newest
        if newest.frame_id != self._warned_of:
            self._warned_of = newest.frame_id
            logger.warning(
                f"{self._topic} speaks of frame '{newest.frame_id}', the pictures are of "
                f"'{frame_id}': it is not used; remap camera_info to that of their camera"
            )
        return None

    def _receive(self, message: CameraInfo) -> None:
        self._newest = calibration_of(message, rectified=self._rectified)
