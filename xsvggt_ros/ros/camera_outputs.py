# SPDX-License-Identifier: Apache-2.0
"""The outputs of each camera of a rig under its name; of a single camera under the node's."""

from __future__ import annotations

from collections.abc import Sequence

from rclpy.node import Node

from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.publishers import Publishers
from xsvggt_ros.ros.transform_owners import TransformOwners
from xsvggt_ros.ros.transforms import TransformBroadcaster
from xsvggt_ros.stream.pipeline import FrameUpdate


class CameraOutputs:
    """Hands each result to the publishers of its camera."""

    def __init__(self, node: Node, owners: TransformOwners) -> None:
        self._node = node
        self._transforms = TransformBroadcaster(node, owners)
        self._cameras: dict[str, Publishers] = {}

    def prepare(self, cameras: Sequence[str]) -> None:
        """Make the topics of these cameras, and of no others; no name is a single camera's."""
        for camera in set(self._cameras) - set(cameras):
            self._cameras.pop(camera).close()
        for camera in cameras:
            if camera not in self._cameras:
                prefix = f"~/{camera}" if camera else "~"
                self._cameras[camera] = Publishers(self._node, self._transforms, prefix)

    def publish(self, update: FrameUpdate, settings: Settings) -> None:
        """Publish what this frame brought."""
        if update.starts_over:
            for outputs in self._cameras.values():
                outputs.begin_path()
        self._cameras[update.result.camera].publish(update, settings)

    def repeat_map(self, settings: Settings) -> None:
        """Broadcast map to odom again where it has grown old."""
        self._transforms.repeat_map(settings)

    def forget_map(self) -> None:
        """Repeat map to odom no more: this node ceases to know it."""
        self._transforms.forget_map()

    def publish_path(self) -> None:
        """Publish each path that has grown."""
        for outputs in list(self._cameras.values()):
            outputs.publish_path()
