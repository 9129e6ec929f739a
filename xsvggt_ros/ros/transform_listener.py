# SPDX-License-Identifier: Apache-2.0
"""Listens to /tf and /tf_static, whatever QoS their publishers offer."""

from __future__ import annotations

import logging
from functools import partial

from rclpy.node import Node
from tf2_msgs.msg import TFMessage

from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.ros import qos
from xsvggt_ros.ros.subscriptions import SmallSubscription
from xsvggt_ros.ros.transform_buffer import TransformBuffer
from xsvggt_ros.ros.transform_owners import TransformOwners
from xsvggt_ros.ros.transforms import broadcast

logger = logging.getLogger(__name__)


class TransformListener:
    """Fills a buffer on the executor's thread; another thread may wait for what is still to come.

    That of tf2_ros hears nothing of best-effort publishers on /tf, nor of volatile ones on
    /tf_static, such as a bag that is played without its QoS.
    """

    def __init__(self, node: Node, owners: TransformOwners, *, follow: bool) -> None:
        """Listen; ``owners`` hears of the links of others, the buffer only where it follows."""
        self._owners = owners
        self._follow = follow
        self._buffer = TransformBuffer()
        self._refused: set[tuple[str, str]] = set()
        self._subscriptions = [
            SmallSubscription(
                node,
                TFMessage,
                topic,
                partial(self._receive, static),
                depth=qos.TRANSFORMS_DEPTH,
                latched=static,
            )
            for topic, static in (("/tf", False), ("/tf_static", True))
        ]

    def match_publishers(self) -> None:
        """Subscribe again where the publishers now ask for another reliability."""
        for subscription in self._subscriptions:
            subscription.match_publishers()

    def close(self) -> None:
        """Unsubscribe, and let go who waits."""
        for subscription in self._subscriptions:
            subscription.close()
        self._buffer.close()

    def wait_for(self, target: str, source: str, stamp: int, timeout: float) -> Matrix:
        """Return the pose of ``source`` in ``target`` at a time in nanoseconds, [4, 4].

        Waits ``timeout`` seconds for it at most, because a transform often comes after the image
        that it belongs to.

        Raises:
            TransformMissingError: it has not come; the message says what is known.

        """
        return self._buffer.wait_for(target, source, stamp, timeout)

    def _receive(self, static: bool, message: TFMessage) -> None:
        for transform in message.transforms:
            link = broadcast(transform)
            if self._owners.comes_back(link):
                continue
            parent, child, _, _ = link
            self._owners.note_foreign(parent, child, static=static)
            if not self._follow:
                continue
            if fault := self._buffer.insert(transform, static=static):
                self._warn(parent, child, fault)

    def _warn(self, parent: str, child: str, fault: str) -> None:
        """Tell of a transform that was refused, once for each link."""
        if (parent, child) not in self._refused:
            self._refused.add((parent, child))
            logger.warning("the transform from '%s' to '%s' is %s", parent, child, fault)
