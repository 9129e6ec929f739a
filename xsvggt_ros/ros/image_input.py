# SPDX-License-Identifier: Apache-2.0
"""One camera: its images and its calibration, as publishers offer them and never decoded."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import monotonic
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from xsvggt_ros.geometry.cameras import Calibration, is_rectified_topic
from xsvggt_ros.ros import qos
from xsvggt_ros.ros.conversions import frame_from_compressed, frame_from_image
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.subscriptions import MatchedSubscription, SmallSubscription
from xsvggt_ros.ros.topics import calibration_topic, image_topic, topics_of_type, type_name
from xsvggt_ros.stream.frame import Frame
from xsvggt_ros.stream.image_formats import BitsInUse
from xsvggt_ros.stream.messages import calibration_of, frame_name, nanoseconds
from xsvggt_ros.stream.worker import FrameQueue

logger = logging.getLogger(__name__)


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
        self.topic = calibration_topic(node, images, camera)
        self._name = f"{camera}/camera_info" if camera else "camera_info"
        self._rectified = is_rectified_topic(images)
        self._warned_of: str | None = None
        self._node = node
        self._used = used
        self._clock = clock
        self._first_image: float | None = None
        self._missed = False
        self._subscription = SmallSubscription(
            node, CameraInfo, self.topic, self._receive, depth=qos.LARGE_DEPTH
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
            topic for topic in topics_of_type(self._node, type_name(CameraInfo))
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


class LossCounter:
    """Finds gaps in the numbers that publishers give their messages."""

    def __init__(self, count_publishers: Callable[[], int]) -> None:
        """Watch one topic; middleware that does not name publishers needs to know how many."""
        self._count_publishers = count_publishers
        self._newest: dict[str | None, int] = {}

    def before(self, info: Mapping[str, Any]) -> int:
        """Return how many messages its publisher sent between this one and the one before it.

        Zero where this distribution or middleware does not number messages.
        """
        number = info.get("publication_sequence_number")
        if number is None:
            return 0
        gid = info.get("publisher_gid")
        publisher = None if gid is None else str(gid)
        gap = number - self._newest.get(publisher, number) - 1
        self._newest[publisher] = number
        if gap <= 0 or (publisher is None and self._count_publishers() > 1):
            return 0
        return int(gap)


class BackPressureGroup(MutuallyExclusiveCallbackGroup):
    """Leaves messages in the middleware while a queue that must not drop is full.

    Whoever makes room must wake the executor, because it waits for nothing of this group then.
    """

    def __init__(self, queue: FrameQueue, full: Callable[[], bool] = lambda: False) -> None:
        """Hold back while the queue, or what stands before it, is ``full``."""
        super().__init__()
        self._queue = queue
        self._full = full

    @property
    def holding(self) -> bool:
        """Return whether messages are left where they are."""
        return self._queue.policy == "all" and (self._queue.full or self._full())

    def can_execute(self, entity: Any) -> bool:
        """Return whether the executor may take a message of ``entity``."""
        return not self.holding and super().can_execute(entity)


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
        self._waiting: list[tuple[Any, float]] = []
        """First messages and when they came; they wait for their camera_info."""
        self._group = BackPressureGroup(queue, holding)
        self._keeps_all = settings.input.queue_policy == "all"
        waiting = qos.waiting_depth(settings.input.queue_size)
        self._depth = waiting if self._keeps_all else qos.LARGE_DEPTH
        self._losses = LossCounter(lambda: node.count_publishers(topic))
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

    def mixed_publishers(self) -> list[str]:
        """Return the nodes whose images mix on the topic; none where only one publishes."""
        publishers = self.publishers()
        newest = max(self._heard.values(), default=0.0)
        recent = [gid for gid, at in self._heard.items() if newest - at < _MIXING]
        if len(publishers) < 2 or (self._heard and len(recent) < 2):
            return []
        return sorted(qos.node_of(each) for each in publishers)

    def match_publishers(self) -> None:
        """Subscribe again if the publishers now offer another reliability."""
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
        self._waiting.append((message, self.last_image))
        if len(self._waiting) > _MOST_WAITING or not self._calibration.awaited:
            self._hand_on_all()

    def _hand_on_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for message, received_at in waiting:
            calibration = self._calibration.of(frame_name(message.header.frame_id))
            frame = self._wrap(
                message,
                frames=self._frames,
                calibration=calibration,
                bits=self._bits,
                in_rig=bool(self.camera),
            )
            self._put(replace(frame, received_at=received_at))

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
