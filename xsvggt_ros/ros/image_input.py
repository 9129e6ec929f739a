# SPDX-License-Identifier: Apache-2.0
"""The picture topic: subscribed to as its publishers offer it, wrapped, queued, never decoded."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CompressedImage, Image

from xsvggt_ros.ros import qos
from xsvggt_ros.ros.back_pressure import BackPressureGroup
from xsvggt_ros.ros.calibration_input import CalibrationInput
from xsvggt_ros.ros.conversions import frame_from_compressed, frame_from_image
from xsvggt_ros.ros.losses import Losses
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.topics import picture_topic, type_name
from xsvggt_ros.stream.frame import Frame
from xsvggt_ros.stream.frame_queue import FrameQueue

logger = logging.getLogger(__name__)

_TRANSPORTS: dict[str, tuple[type[Any], Any]] = {
    "raw": (Image, frame_from_image),
    "compressed": (CompressedImage, frame_from_compressed),
}


class ImageInput:
    """Subscribes to the pictures and puts them into the queue.

    With ``input.reliability`` ``auto`` the subscription is made anew when the publishers change
    what they offer: a reliable subscription gets nothing from a best-effort publisher, and a
    best-effort one loses most large pictures. A queue that must not drop keeps its subscription
    from the first picture on, because with it goes what waits in the middleware.
    """

    def __init__(
        self,
        node: Node,
        settings: Settings,
        queue: FrameQueue,
        noted: Callable[[Frame], Frame],
    ) -> None:
        """Subscribe; each frame goes through ``noted`` on its way into the queue."""
        self._node = node
        self._queue = queue
        self._noted = noted
        self._frames = settings.frames
        self._message_type, self._wrap = _TRANSPORTS[settings.input.image_transport]
        self.topic = picture_topic(node, settings.input.image_transport)
        self.type_name = type_name(self._message_type)
        self._calibration = CalibrationInput(node, self.topic)
        self._group = BackPressureGroup(queue)
        self._changed = node.create_guard_condition(self.match_publishers)
        self._keeps_all = settings.input.queue_policy == "all"
        waiting = qos.waiting_depth(settings.input.queue_size)
        self._depth = waiting if self._keeps_all else qos.LARGE_DEPTH
        self._losses = Losses(lambda: node.count_publishers(self.topic))
        self._committed = False
        self._warned_of_change = False
        asked_for = settings.input.reliability
        self._auto = asked_for == "auto" and not qos.overrides_reliability(node, self.topic)
        self._subscribe(qos.RELIABILITIES.get(asked_for) or self._matching())
        self.last_picture = time.monotonic()

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)
        self._node.destroy_guard_condition(self._changed)
        self._calibration.close()

    @property
    def reliability(self) -> str:
        """Return the reliability that the subscription asks for."""
        return str(self._profile.reliability.name.lower())

    @property
    def held_back(self) -> bool:
        """Return whether pictures wait in the middleware because the queue is full."""
        return self._group.holding

    def publishers(self) -> list[TopicEndpointInfo]:
        """Return who publishes on the topic, whatever the type."""
        return list(self._node.get_publishers_info_by_topic(self.topic))

    def match_publishers(self) -> None:
        """Subscribe anew where the publishers now ask for another reliability."""
        wanted = self._matching()
        if not self._auto or wanted == self._profile.reliability or not self.publishers():
            return
        if self._committed:
            self._warn_of_change(wanted)
            return
        self._node.get_logger().info(
            f"subscribing to {self.topic} anew as {wanted.name.lower()}, as its publishers offer"
        )
        self._node.destroy_subscription(self._subscription)
        self._subscribe(wanted)

    def _matching(self) -> ReliabilityPolicy:
        return qos.matching_reliability(self.publishers())

    def _subscribe(self, reliability: ReliabilityPolicy) -> None:
        self._profile = qos.pictures(reliability, self._depth)
        self._subscription: Subscription = self._node.create_subscription(
            self._message_type,
            self.topic,
            self._receive,
            self._profile,
            callback_group=self._group,
            event_callbacks=qos.SubscriptionEventCallbacks(incompatible_qos=self._incompatible),
            qos_overriding_options=self._overriding_options(),
        )

    def _overriding_options(self) -> QoSOverridingOptions:
        """Leave out the reliability where the publishers decide: an override is read only once."""
        if self._auto:
            return QoSOverridingOptions([QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH])
        return QoSOverridingOptions.with_default_policies()

    def _warn_of_change(self, wanted: ReliabilityPolicy) -> None:
        if not self._warned_of_change:
            self._warned_of_change = True
            logger.warning(
                f"the publishers of {self.topic} now offer {wanted.name.lower()}, the subscription "
                f"stays {self.reliability}: subscribing anew would lose the pictures that wait "
                f"(input.queue_policy all); set input.reliability to {wanted.name.lower()}"
            )

    def _receive(self, message: Any, info: Mapping[str, Any]) -> None:
        self.last_picture = time.monotonic()
        self._committed = self._keeps_all
        self._note_lost(self._losses.before(info))
        frame = self._wrap(
            message, frames=self._frames, calibration=self._calibration.of(message.header.frame_id)
        )
        self._queue.put(self._noted(frame))

    def _note_lost(self, count: int) -> None:
        self._queue.note_lost(count)
        if count and self._keeps_all:
            logger.warning(
                "%d pictures were lost before the node took them (input.queue_policy all, at most "
                "%d wait in the middleware): publish more slowly, replay with xsvggt replay "
                "--follow, or read the file with xsvggt reconstruct",
                count,
                self._profile.depth,
            )

    def _incompatible(self, _: object) -> None:
        if self._auto:
            self._changed.trigger()
            return
        self._node.get_logger().error(
            f"a publisher of {self.topic} offers less than the subscription asks for "
            f"({self.reliability}), so its pictures do not arrive; set input.reliability to auto "
            "or best_effort"
        )
