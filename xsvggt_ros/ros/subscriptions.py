# SPDX-License-Identifier: Apache-2.0
"""Subscriptions that ask for what the publishers offer, latched or not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo

from xsvggt_ros.ros import qos
from xsvggt_ros.ros.topics import type_name

logger = logging.getLogger(__name__)


Receive = Callable[[Any, Mapping[str, Any]], None]


class MatchedSubscription:
    """Subscribes as asked for; with reliability ``auto``, as the publishers offer it at any time.

    A reliable subscription gets nothing from a best-effort publisher, and a best-effort one loses
    most large messages.
    """

    def __init__(
        self,
        node: Node,
        message_type: type[Any],
        topic: str,
        receive: Receive,
        *,
        reliability: str,
        depth: int,
        group: CallbackGroup | None = None,
        committed: Callable[[], bool] = lambda: False,
        overridable: bool = True,
    ) -> None:
        """Subscribe.

        Args:
            node: whose subscription it is.
            message_type: of the messages.
            topic: resolved.
            receive: gets each message and what the middleware says of it.
            reliability: auto, reliable or best_effort.
            depth: messages that wait in the middleware.
            group: of the callback.
            committed: whether to subscribe again would lose what waits in the middleware.
            overridable: whether parameters ``qos_overrides`` may change the profile.

        """
        self.topic = topic
        self.type_name = type_name(message_type)
        self._node = node
        self._message_type = message_type
        self._receive = receive
        self._depth = depth
        self._group = group
        self._committed = committed
        self._overridable = overridable
        self._warned_of_change = False
        self._changed = node.create_guard_condition(self.match_publishers)
        self._auto = reliability == "auto" and not qos.overrides_reliability(node, topic)
        self._subscribe(qos.RELIABILITIES.get(reliability) or self._matching())

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)
        self._node.destroy_guard_condition(self._changed)

    @property
    def reliability(self) -> str:
        """Return the reliability that the subscription asks for."""
        return str(self._profile.reliability.name.lower())

    def publishers(self) -> list[TopicEndpointInfo]:
        """Return who publishes on the topic, whatever the type."""
        return list(self._node.get_publishers_info_by_topic(self.topic))

    def match_publishers(self) -> None:
        """Subscribe again if the publishers now offer another reliability."""
        wanted = self._matching()
        if not self._auto or wanted == self._profile.reliability or not self.publishers():
            return
        if self._committed():
            self._warn_of_change(wanted)
            return
        self._node.get_logger().info(
            f"subscribing to {self.topic} again as {wanted.name.lower()}, as its publishers offer"
        )
        self._node.destroy_subscription(self._subscription)
        self._subscribe(wanted)

    def _matching(self) -> ReliabilityPolicy:
        return qos.matching_reliability(self.publishers())

    def _subscribe(self, reliability: ReliabilityPolicy) -> None:
        self._profile = qos.images(reliability, self._depth)
        self._subscription: Subscription[Any] = self._node.create_subscription(
            self._message_type,
            self.topic,
            self._receive,
            self._profile,
            callback_group=self._group,
            event_callbacks=qos.SubscriptionEventCallbacks(incompatible_qos=self._incompatible),
            qos_overriding_options=self._overriding_options(),
        )

    def _overriding_options(self) -> QoSOverridingOptions | None:
        """Leave out the reliability where the publishers decide: an override is read only once."""
        if not self._overridable:
            return None
        if self._auto:
            return QoSOverridingOptions([QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH])
        return QoSOverridingOptions.with_default_policies()

    def _warn_of_change(self, wanted: ReliabilityPolicy) -> None:
        if not self._warned_of_change:
            self._warned_of_change = True
            logger.warning(
                f"the publishers of {self.topic} now offer {wanted.name.lower()}, the subscription "
                f"stays {self.reliability}: subscribing again would lose the images that wait "
                f"(input.queue_policy all); set input.reliability to {wanted.name.lower()}"
            )

    def _incompatible(self, _: object) -> None:
        if self._auto:
            self._changed.trigger()
            return
        override = qos.reliability_override(self.topic)
        remedy = (
            f"remove the parameter {override}, or set it to best_effort"
            if qos.overrides_reliability(self._node, self.topic)
            else "set input.reliability to auto or best_effort"
        )
        self._node.get_logger().error(
            f"a publisher of {self.topic} offers less than the subscription asks for "
            f"({self.reliability}), so its images do not arrive; {remedy}"
        )


class SmallSubscription:
    """Subscribes to what publishers send now, and to what latched ones keep for late subscribers.

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
        self._kept: Subscription[Any] | None = self._subscribe_latched() if latched else None
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

    def _subscribe_latched(self) -> Subscription[Any]:
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
