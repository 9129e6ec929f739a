# SPDX-License-Identifier: Apache-2.0
"""The picture topic: subscribed to as its publishers offer it, wrapped, queued, never decoded."""

from __future__ import annotations

import time
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CompressedImage, Image

from xsvggt_ros.ros import qos
from xsvggt_ros.ros.arrival import Arrival
from xsvggt_ros.ros.back_pressure import BackPressureGroup
from xsvggt_ros.ros.calibration_input import CalibrationInput
from xsvggt_ros.ros.conversions import frame_from_compressed, frame_from_image
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.topics import picture_topic, type_name
from xsvggt_ros.stream.frame_queue import FrameQueue

_TRANSPORTS: dict[str, tuple[type[Any], Any]] = {
    "raw": (Image, frame_from_image),
    "compressed": (CompressedImage, frame_from_compressed),
}


class ImageInput:
    """Subscribes to the pictures and puts them into the queue.

    With ``input.reliability`` ``auto`` the subscription is made anew when the publishers change
    what they offer: a reliable subscription gets nothing from a best-effort publisher, and a
    best-effort one loses most large pictures.
    """

    def __init__(self, node: Node, settings: Settings, queue: FrameQueue, arrival: Arrival) -> None:
        self._node = node
        self._queue = queue
        self._arrival = arrival
        self._camera_frame = settings.frames.camera
        self._message_type, self._wrap = _TRANSPORTS[settings.input.image_transport]
        self.topic = picture_topic(node, settings.input.image_transport)
        self.type_name = type_name(self._message_type)
        self._calibration = CalibrationInput(node, self.topic)
        self._group = BackPressureGroup(queue)
        self._changed = node.create_guard_condition(self.match_publishers)
        asked_for = settings.input.reliability
        self._auto = asked_for == "auto" and not qos.overrides_reliability(node, self.topic)
        self._subscribe(qos.RELIABILITIES.get(asked_for) or self._matching())
        self.last_picture = time.monotonic()

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
        self._node.get_logger().info(
            f"subscribing to {self.topic} anew as {wanted.name.lower()}, as its publishers offer"
        )
        self._node.destroy_subscription(self._subscription)
        self._subscribe(wanted)

    def _matching(self) -> ReliabilityPolicy:
        return qos.matching_reliability(self.publishers())

    def _subscribe(self, reliability: ReliabilityPolicy) -> None:
        self._profile = qos.pictures(reliability, keep_all=self._queue.policy == "all")
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

    def _receive(self, message: Any) -> None:
        self.last_picture = time.monotonic()
        frame = self._wrap(
            message, camera_frame=self._camera_frame, calibration=self._calibration.newest
        )
        self._queue.put(self._arrival.noted(frame))

    def _incompatible(self, _: object) -> None:
        if self._auto:
            self._changed.trigger()
            return
        self._node.get_logger().error(
            f"a publisher of {self.topic} offers less than the subscription asks for "
            f"({self.reliability}), so its pictures do not arrive; set input.reliability to auto "
            "or best_effort"
        )
