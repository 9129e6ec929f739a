# SPDX-License-Identifier: Apache-2.0
"""The outputs of each camera of a rig under its name; of a single camera under the node's."""

from __future__ import annotations

from collections.abc import Sequence

from rclpy.node import Node

from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.publishers import Publishers
from xsvggt_ros.ros.robot import Robot
from xsvggt_ros.stream.frame import FrameResult


class CameraOutputs:
    """Hands each result to the publishers of its camera."""

    def __init__(self, node: Node, robot: Robot) -> None:
        self._node = node
        self._robot = robot
        self._cameras: dict[str, Publishers] = {}

    def prepare(self, cameras: Sequence[str]) -> None:
        """Make the topics of these cameras, and of no others; no name is a single camera's."""
        for camera in set(self._cameras) - set(cameras):
            self._cameras.pop(camera).close()
        for camera in cameras:
            if camera not in self._cameras:
                prefix = f"~/{camera}" if camera else "~"
                self._cameras[camera] = Publishers(self._node, self._robot, prefix)

    def publish(self, result: FrameResult, settings: Settings, *, restarted: bool = False) -> None:
        """Publish what this frame brought; ``again`` begins the paths as a new session does."""
        if restarted or result.index == 0:
            for outputs in self._cameras.values():
                outputs.begin_path()
        self._cameras[result.camera].publish(result, settings)

    def publish_path(self) -> None:
        """Publish each path that has grown."""
        for outputs in list(self._cameras.values()):
            outputs.publish_path()
