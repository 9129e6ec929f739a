# SPDX-License-Identifier: Apache-2.0
"""What /tf and /tf_static say, without tf2_ros, which a pip environment lacks."""

from __future__ import annotations

import logging
from functools import partial
from threading import Condition
from time import monotonic

from rclpy.node import Node
from tf2_msgs.msg import TFMessage

from xsvggt_ros.errors import TransformMissingError
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.geometry.transform_tree import Place, TransformTree, fault_of
from xsvggt_ros.ros import qos
from xsvggt_ros.ros.small_subscription import SmallSubscription
from xsvggt_ros.ros.transform_owners import TransformOwners
from xsvggt_ros.ros.transforms import broadcast

logger = logging.getLogger(__name__)


class TransformListener:
    """Fills a tree on the executor's thread; another thread may wait for what is still to come."""

    def __init__(self, node: Node, owners: TransformOwners, *, follow: bool) -> None:
        """Listen; ``owners`` hears of the links of others, the tree only where it ``follows``."""
        self._owners = owners
        self._follow = follow
        self._tree = TransformTree()
        self._changed = Condition()
        self._closed = False
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
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait_for(self, target: str, source: str, stamp: int, timeout: float) -> Matrix:
        """Return the pose of ``source`` in ``target`` at a time in nanoseconds, [4, 4].

        Waits ``timeout`` seconds for it at most, because a transform often comes after the image
        that it belongs to.

        Raises:
            TransformMissingError: it has not come; the message says what is known.

        """
        deadline = monotonic() + timeout
        with self._changed:
            while True:
                try:
                    return self._tree.lookup(target, source, stamp)
                except TransformMissingError:
                    left = deadline - monotonic()
                    if left <= 0 or self._closed:
                        raise
                self._changed.wait(left)

    def _receive(self, static: bool, message: TFMessage) -> None:
        links = [
            link for link in map(broadcast, message.transforms) if not self._owners.comes_back(link)
        ]
        for parent, child, _, _ in links:
            self._owners.note_foreign(parent, child, static=static)
        if not self._follow:
            return
        with self._changed:
            for parent, child, stamp, place in links:
                if not self._tree.put(parent, child, stamp, place, static=static):
                    self._warn(parent, child, place)
            self._changed.notify_all()

    def _warn(self, parent: str, child: str, place: Place) -> None:
        """Tell of a transform that was refused, once for each link."""
        if (parent, child) in self._refused:
            return
        self._refused.add((parent, child))
        logger.warning("the transform from '%s' to '%s' is %s", parent, child, fault_of(place))
