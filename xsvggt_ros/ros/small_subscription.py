# SPDX-License-Identifier: Apache-2.0
"""A subscription to small messages that hears every publisher, whatever QoS it offers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.subscription import Subscription

from xsvggt_ros.ros import qos
from xsvggt_ros.ros.matched_subscription import MatchedSubscription


class SmallSubscription:
    """Subscribes to what publishers send now, and to what latched ones keep for late comers.

    A volatile subscription never hears what a latched publisher said before it, and a latched one
    nothing of volatile publishers, whose nodes would warn of it. So the second one is made once
    there is a latched publisher; what that sends afterwards comes twice. What is sent now is asked
    for as reliably as its publishers offer it.
    """

    def __init__(
        self,
        node: Node,
        message_type: type[Any],
        topic: str,
        receive: Callable[[Any], None],
        *,
        depth: int,
        latched: bool = False,
    ) -> None:
        """Subscribe.

        Args:
            node: whose subscriptions they are.
            message_type: of the messages.
            topic: resolved.
            receive: gets each message.
            depth: messages that wait in the middleware.
            latched: whether publishers of the topic are latched as a rule.

        """
        self.topic = topic
        self._node = node
        self._message_type = message_type
        self._receive = receive
        self._depth = depth
        self._live = MatchedSubscription(
            node,
            message_type,
            topic,
            partial(_without_info, receive),
            reliability="auto",
            depth=depth,
            overridable=False,
        )
        self._kept: Subscription | None = self._subscribe_latched() if latched else None
        self.match_publishers()

    def close(self) -> None:
        """Unsubscribe."""
        self._live.close()
        if self._kept is not None:
            self._node.destroy_subscription(self._kept)
            self._kept = None

    def match_publishers(self) -> None:
        """Subscribe as the publishers that are there now offer it."""
        self._live.match_publishers()
        if self._kept is None and any(map(qos.is_latched, self._live.publishers())):
            self._kept = self._subscribe_latched()

    @property
    def publisher_count(self) -> int:
        """Number of publishers on the topic."""
        return len(self._live.publishers())

    def _subscribe_latched(self) -> Subscription:
        return self._node.create_subscription(
            self._message_type,
            self.topic,
            self._receive,
            qos.latched(self._depth),
            # Volatile publishers do not match, and rclpy would say that their messages are lost.
            event_callbacks=qos.SubscriptionEventCallbacks(
                incompatible_qos=lambda _: None, use_default_callbacks=False
            ),
        )


def _without_info(receive: Callable[[Any], None], message: Any, _: object) -> None:
    receive(message)
