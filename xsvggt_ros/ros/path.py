# SPDX-License-Identifier: Apache-2.0
"""The way of the camera so far, on ~/path."""

from __future__ import annotations

from collections import deque
from threading import Lock

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from rclpy.node import Node

from xsvggt_ros.ros import qos


class PathKeeper:
    """Remembers poses on one thread and publishes them on another.

    A path costs time in proportion to its poses, so it is not made for every frame.
    """

    def __init__(self, node: Node, topic: str) -> None:
        self._node = node
        self._publisher = node.create_publisher(Path, topic, qos.RESULTS)
        self._lock = Lock()
        self._poses: deque[PoseStamped] = deque()
        self._changed = False

    def close(self) -> None:
        """Destroy the topic."""
        self._node.destroy_publisher(self._publisher)

    def forget(self) -> None:
        """Forget all poses."""
        with self._lock:
            self._poses.clear()
            self._changed = False

    def remember(self, place: PoseStamped, *, max_poses: int) -> None:
        """Add a pose."""
        with self._lock:
            self._poses.append(place)
            while len(self._poses) > max_poses:
                self._poses.popleft()
            self._changed = True

    def publish(self) -> None:
        """Publish the path where it has grown and anybody listens."""
        if not self._publisher.get_subscription_count():
            return
        message = self._message()
        if message is not None:
            self._publisher.publish(message)

    def _message(self) -> Path | None:
        with self._lock:
            if not (self._changed and self._poses):  # the worker may forget them at any time
                return None
            self._changed = False
            return Path(header=self._poses[-1].header, poses=list(self._poses))
