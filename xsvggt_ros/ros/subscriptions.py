# SPDX-License-Identifier: Apache-2.0
"""Subscriptions that ask for what the publishers offer, latched or not; that of a camera_info."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CameraInfo

from xsvggt_ros.geometry.cameras import Calibration, is_rectified_topic
from xsvggt_ros.ros import topics
from xsvggt_ros.stream.messages import calibration_of

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
        self.type_name = topics.type_name(message_type)
        self._node = node
        self._message_type = message_type
        self._receive = receive
        self._depth = depth
        self._group = group
        self._committed = committed
        self._overridable = overridable
        self._warned_of_change = False
        self._changed = node.create_guard_condition(self.match_publishers)
        self._auto = reliability == "auto" and not topics.overrides_reliability(node, topic)
        self._subscribe(topics.RELIABILITIES.get(reliability) or self._matching())

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
        return topics.matching_reliability(self.publishers())

    def _subscribe(self, reliability: ReliabilityPolicy) -> None:
        self._profile = topics.image_profile(reliability, self._depth)
        self._subscription: Subscription[Any] = self._node.create_subscription(
            self._message_type,
            self.topic,
            self._receive,
            self._profile,
            callback_group=self._group,
            event_callbacks=topics.SubscriptionEventCallbacks(incompatible_qos=self._incompatible),
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
        override = topics.reliability_override(self.topic)
        remedy = (
            f"remove the parameter {override}, or set it to best_effort"
            if topics.overrides_reliability(self._node, self.topic)
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
        if self._kept is None and any(map(topics.is_latched, self._live.publishers())):
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
            topics.latched_profile(self._depth),
            # Volatile publishers do not match, and rclpy would say that their messages are lost.
            event_callbacks=topics.SubscriptionEventCallbacks(
                incompatible_qos=lambda _: None, use_default_callbacks=False
            ),
        )


def _without_info(receive: Callable[[Any], None], message: Any, _: object) -> None:
    receive(message)


LONGEST_WAIT = 1.0
"""Seconds that a first image waits for its camera_info, where somebody publishes that."""
SHORTEST_WAIT = 0.2
"""Seconds that it waits until a publisher is found."""


class CalibrationInput:
    """Keeps what the camera_info says."""

    def __init__(
        self,
        node: Node,
        images: str,
        camera: str = "",
        *,
        used: bool = True,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Subscribe.

        Args:
            node: whose subscription it is.
            images: resolved topic of the images.
            camera: name of one of several.
            used: whether anything is made of it; nobody misses it otherwise.
            clock: in seconds.

        """
        self._newest: Calibration | None = None
        self.topic = topics.calibration_topic(node, images, camera)
        self._name = f"{camera}/camera_info" if camera else "camera_info"
        self._rectified = is_rectified_topic(images)
        self._warned_of: str | None = None
        self._node = node
        self._used = used
        self._clock = clock
        self._first_image: float | None = None
        self._missed = False
        self._subscription = SmallSubscription(
            node, CameraInfo, self.topic, self._receive, depth=topics.LARGE_DEPTH
        )

    def close(self) -> None:
        """Unsubscribe."""
        self._subscription.close()

    def match_publishers(self) -> None:
        """Subscribe again if the publishers now offer another reliability."""
        self._subscription.match_publishers()

    def note_image(self) -> None:
        """Take note that images come."""
        if self._first_image is None:
            self._first_image = self._clock()

    @property
    def awaited(self) -> bool:
        """Whether an image that has come is to wait for it.

        image_transport sends an image before its camera_info, and the first image is what all
        others are measured by.
        """
        if self._newest is not None or not self._used or self._first_image is None:
            return False
        longest = LONGEST_WAIT if self._subscription.publisher_count else SHORTEST_WAIT
        return self._clock() - self._first_image < longest

    def missing(self, timeout: float) -> str | None:
        """Return what to say, once, where images come for ``timeout`` seconds without one."""
        if self._newest is not None or not self._used or self._first_image is None:
            return None
        if self._missed or self._clock() - self._first_image < timeout:
            return None
        self._missed = True
        others = [
            topic for topic in topics.topics_of_type(self._node, topics.type_name(CameraInfo))
            if topic != self.topic
        ]  # fmt: skip
        if self._subscription.publisher_count:
            why = "has a publisher, but nothing has come: see that the driver knows its calibration"
        elif others:
            listed = ", ".join(others)
            why = f"has no publisher: remap {self._name} to that of this camera, of {listed}"
        else:
            why = "has no publisher: have the driver load its calibration"
        return (
            f"{self.topic} {why}. Until then distortion stays in the images, and the field of "
            "view is the network's guess; set input.calibration to ignore where that is meant"
        )

    def of(self, frame_id: str) -> Calibration | None:
        """Return the calibration of the camera whose images carry ``frame_id``."""
        newest = self._newest
        if newest is None or newest.speaks_of(frame_id):
            return newest
        if newest.frame_id != self._warned_of:
            self._warned_of = newest.frame_id
            logger.warning(
                f"{self.topic} speaks of frame '{newest.frame_id}', the images are of "
                f"'{frame_id}': it is not used; remap {self._name} to that of their camera"
            )
        return None

    def _receive(self, message: CameraInfo) -> None:
        self._newest = calibration_of(message, rectified=self._rectified)
