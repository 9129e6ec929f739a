# SPDX-License-Identifier: Apache-2.0
"""Holds a source back by what a node says of its progress."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile

from xsvggt_ros.msg import ReconstructionStatus
from xsvggt_ros.ros.metered_source import MeteredSource

NOT_SUBSCRIBED = ("unconfigured", "inactive", "warming up")
"""States in which a node that has received nothing may not be listening yet."""

_LOOK_EVERY = 5.0
"""Seconds; a node tells its status once a second."""


class Follower:
    """Lets a metered source go on as a node answers the images published, by its ``~/status``.

    Counting begins with the node's first status, and again where the node does. Images that
    others send to it meanwhile are taken for ours.
    """

    def __init__(
        self, node: Node, followed: str, images: MeteredSource, published: Callable[[], int]
    ) -> None:
        self._logger = node.get_logger()
        self._images = images
        self._published = published
        self._newest: ReconstructionStatus | None = None
        self._seen: ReconstructionStatus | None = None
        self._not_ours = 0
        self._topic = node.create_subscription(
            ReconstructionStatus, f"{followed}/status", self.on_status, QoSProfile(depth=10)
        ).topic_name
        node.create_timer(_LOOK_EVERY, self.look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def on_status(self, status: ReconstructionStatus) -> None:
        """Let as many images go as have been answered; none before the node subscribes."""
        if status.state in NOT_SUBSCRIBED and not status.frames_received:
            return
        before, self._newest = self._newest, status
        if before is None or status.frames_received < before.frames_received:
            self._not_ours = status.frames_received - self._published()
        self._images.allow(_done(status) - self._not_ours)

    def look(self) -> None:
        """Say why nothing goes on: a node that says nothing, or one that has lost images."""
        before, self._seen = self._seen, self._newest
        if self._newest is None or self._newest is before:
            self._logger.warning(
                f"nothing on {self._topic} for {_LOOK_EVERY:g} s, and nothing is replayed without "
                "it; start the node to follow, or give its full name, such as /xsvggt"
            )
        elif before and before.frames_received == self._newest.frames_received:
            self._give_up_lost(self._newest)

    def _give_up_lost(self, status: ReconstructionStatus) -> None:
        """Take for lost what an idle node has not received in all this time."""
        lost = self._published() - (status.frames_received - self._not_ours)
        if lost > 0 and status.frames_pending == 0:
            self._logger.warning(
                f"{lost} images did not reach the node of {self._topic}; look whether it "
                "subscribes to the topic of this replay"
            )
            self._not_ours -= lost
            self._images.allow(_done(status) - self._not_ours)


def _done(status: ReconstructionStatus) -> int:
    return int(status.frames_processed + status.frames_dropped + status.frames_refused)
