# SPDX-License-Identifier: Apache-2.0
"""The newest camera_info beside the pictures."""

from __future__ import annotations

import logging

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo

from xsvggt_ros.geometry.cameras import Calibration
from xsvggt_ros.ros import qos
from xsvggt_ros.ros.conversions import calibration
from xsvggt_ros.ros.topics import calibration_topic

logger = logging.getLogger(__name__)


class CalibrationInput:
    """Keeps what the camera_info says, and warns of distorted pictures."""

    def __init__(self, node: Node, pictures: str) -> None:
        self.newest: Calibration | None = None
        self._topic = calibration_topic(node, pictures)
        self._warned = False
        self._node = node
        self._subscription = node.create_subscription(
            CameraInfo, self._topic, self._receive, qos.CALIBRATIONS
        )

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def _receive(self, message: CameraInfo) -> None:
        self.newest = calibration(message)
        if any(self.newest.d) and not self._warned:
            self._warned = True
            logger.warning(
                f"{self._topic} says that the pictures are distorted "
                f"({self.newest.distortion_model}); they are used as they are, so straight lines "
                "come out bent: subscribe to the rectified picture"
            )
