# SPDX-License-Identifier: Apache-2.0
"""The image topic: subscribed to as its publishers offer it, wrapped, queued, never decoded."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.node import Node
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CompressedImage, Image

from xsvggt_ros.ros import qos
from xsvggt_ros.ros.back_pressure import BackPressureGroup
from xsvggt_ros.ros.calibration_input import CalibrationInput
from xsvggt_ros.ros.conversions import frame_from_compressed, frame_from_image
from xsvggt_ros.ros.losses import Losses
from xsvggt_ros.ros.matched_subscription import MatchedSubscription
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.topics import image_topic
from xsvggt_ros.stream.bits_in_use import BitsInUse
from xsvggt_ros.stream.frame import Frame
from xsvggt_ros.stream.frame_queue import FrameQueue
from xsvggt_ros.stream.messages import frame_name, nanoseconds

logger = logging.getLogger(__name__)

_TRANSPORTS: dict[str, tuple[type[Any], Any]] = {
    "raw": (Image, frame_from_image),
    "compressed": (CompressedImage, frame_from_compressed),
}


_MIXING = 3.0
"""Seconds within which messages of two publishers are taken for a mixture."""
_MOST_PUBLISHERS = 100
_MOST_WAITING = 50
"""Images that wait for the first camera_info: a second of most cameras."""


class ImageInput:
    """Subscribes to the images of one camera and hands them on.

    A queue that must not drop keeps its subscription from the first image on, because with it
    goes what waits in the middleware.
    """

    def __init__(
        self,
        node: Node,
        settings: Settings,
        queue: FrameQueue,
        put: Callable[[Frame], None],
        *,
        camera: str = "",
        arrived: Callable[[int], None] = lambda stamp: None,
        holding: Callable[[], bool] = lambda: False,
    ) -> None:
        """Subscribe.

        Args:
            node: whose subscriptions they are.
            settings: of the moment.
            queue: counts what is lost on the way, and holds messages back where it must not drop.
            put: gets each frame.
            camera: name of one of several.
            arrived: told the stamp of each image as it comes.
            holding: whether messages are to be held back for another reason.

        """
        self.camera = camera
        self._queue = queue
        self._put = put
        self._arrived = arrived
        self._frames = settings.frames
        self._bits = BitsInUse()
        message_type, self._wrap = _TRANSPORTS[settings.input.image_transport]
        topic = image_topic(node, settings.input.image_transport, camera)
        self._calibration = CalibrationInput(
            node, topic, camera, used=settings.input.calibration != "ignore"
        )
        self._waiting: list[Any] = []
        """First messages, which wait for their camera_info."""
        self._group = BackPressureGroup(queue, holding)
        self._keeps_all = settings.input.queue_policy == "all"
        waiting = qos.waiting_depth(settings.input.queue_size)
        self._depth = waiting if self._keeps_all else qos.LARGE_DEPTH
        self._losses = Losses(lambda: node.count_publishers(topic))
        self._committed = False
        self._heard: dict[str, float] = {}
        """When the newest message of each publisher came, where the middleware names them."""
        self.last_image = time.monotonic()
        self._subscription = MatchedSubscription(
            node,
            message_type,
            topic,
            self._receive,
            reliability=settings.input.reliability,
            depth=self._depth,
            group=self._group,
            committed=lambda: self._committed,
        )

    def close(self) -> None:
        """Unsubscribe; what waits is dropped, counted."""
        self._subscription.close()
        self._calibration.close()
        self._queue.note_lost(len(self._waiting))
        self._waiting.clear()

    @property
    def name(self) -> str:
        """Return what the images are called before they are remapped."""
        return f"{self.camera}/image" if self.camera else "image"

    @property
    def topic(self) -> str:
        """Return the resolved topic of the images."""
        return self._subscription.topic

    @property
    def type_name(self) -> str:
        """Return the type of its messages, as the graph names it."""
        return self._subscription.type_name

    @property
    def reliability(self) -> str:
        """Return the reliability that the subscription asks for."""
        return self._subscription.reliability

    @property
    def held_back(self) -> bool:
        """Return whether images wait in the middleware because the queue is full."""
        return self._group.holding

    def publishers(self) -> list[TopicEndpointInfo]:
        """Return who publishes on the topic, whatever the type."""
        return self._subscription.publishers()

    def rivals(self) -> list[str]:
        """Return the nodes whose images mix on the topic; none where only one publishes."""
        publishers = self.publishers()
        newest = max(self._heard.values(), default=0.0)
        recent = [gid for gid, at in self._heard.items() if newest - at < _MIXING]
        if len(publishers) < 2 or (self._heard and len(recent) < 2):
            return []
        return sorted(qos.node_of(each) for each in publishers)

    def match_publishers(self) -> None:
        """Subscribe again where the publishers now ask for another reliability."""
        self._subscription.match_publishers()
        self._calibration.match_publishers()

    def missing_calibration(self, timeout: float) -> str | None:
        """Return what to say, once, where images come without a camera_info for that long."""
        return self._calibration.missing(timeout)

    def look(self) -> None:
        """Hand on the first images once their camera_info has come, or will not."""
        if self._waiting:
            self._calibration.match_publishers()
            if not self._calibration.awaited:
                self._hand_on_all()

    def _receive(self, message: Any, info: Mapping[str, Any]) -> None:
        self.last_image = time.monotonic()
        self._note_publisher(info)
        self._committed = self._keeps_all
        self._note_lost(self._losses.before(info))
        self._arrived(nanoseconds(message.header.stamp))
        self._calibration.note_image()
        self._waiting.append(message)
        if len(self._waiting) > _MOST_WAITING or not self._calibration.awaited:
            self._hand_on_all()

    def _hand_on_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            calibration = self._calibration.of(frame_name(message.header.frame_id))
            self._put(
                self._wrap(
                    message,
                    frames=self._frames,
                    calibration=calibration,
                    bits=self._bits,
                    in_rig=bool(self.camera),
                )
            )

    def _note_publisher(self, info: Mapping[str, Any]) -> None:
        gid = info.get("publisher_gid")
        if gid is not None:
            if len(self._heard) > _MOST_PUBLISHERS:
                self._heard.clear()
            self._heard[str(gid)] = self.last_image

    def _note_lost(self, count: int) -> None:
        self._queue.note_lost(count)
        if count and self._keeps_all:
            logger.warning(
                "%d images were lost before the node took them (input.queue_policy all, at most "
                "%d wait in the middleware): publish more slowly, replay with xsvggt replay "
                "--follow, or read the file with xsvggt reconstruct",
                count,
                self._depth,
            )
