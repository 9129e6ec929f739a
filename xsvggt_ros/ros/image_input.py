# SPDX-License-Identifier: Apache-2.0
"""The images of a camera, or of a rig by the order of stamps, never decoded; why none come."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.node import Node
from rclpy.topic_endpoint_info import TopicEndpointInfo
from sensor_msgs.msg import CompressedImage, Image

from xsvggt_ros.ros import topics
from xsvggt_ros.ros.conversions import frame_from
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.subscriptions import CalibrationInput, MatchedSubscription
from xsvggt_ros.stream.frame import BitsInUse, Frame
from xsvggt_ros.stream.messages import frame_name, nanoseconds
from xsvggt_ros.stream.stamps import JumpFilter, RigClocks, RigOrder
from xsvggt_ros.stream.worker import FrameQueue

if TYPE_CHECKING:
    from xsvggt_ros.stream.pipeline import Activity


logger = logging.getLogger(__name__)


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


_TRANSPORTS: dict[str, type[Any]] = {"raw": Image, "compressed": CompressedImage}


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
        message_type = _TRANSPORTS[settings.input.image_transport]
        topic = topics.image_topic(node, settings.input.image_transport, camera)
        self._calibration = CalibrationInput(
            node, topic, camera, used=settings.input.calibration != "ignore"
        )
        self._waiting: list[tuple[Any, float]] = []
        """First messages and when they came; they wait for their camera_info."""
        self._group = BackPressureGroup(queue, holding)
        self._keeps_all = settings.input.queue_policy == "all"
        waiting = topics.waiting_depth(settings.input.queue_size)
        self._depth = waiting if self._keeps_all else topics.LARGE_DEPTH
        self._losses = LossCounter(lambda: node.count_publishers(topic))
        self._committed = False
        self._heard: dict[str, float] = {}
        """When the newest message of each publisher came, where the middleware names them."""
        self.last_image = monotonic()
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
        return sorted(topics.node_of(each) for each in publishers)

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
        self.last_image = monotonic()
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
            frame = frame_from(
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


_LOOK_EVERY = 0.02
"""Seconds between two looks whether a frame has waited long enough for the other cameras."""
_LOOK_ALONE = 0.1
"""The same of a single camera, whose frames only wait where a stamp is doubtful."""


class RigInput:
    """Subscribes to each camera and puts its frames into the queue.

    Attributes:
        cameras: one input for each.
        watchdogs: likewise.

    """

    def __init__(
        self,
        node: Node,
        settings: Settings,
        queue: FrameQueue,
        activity: Callable[[], Activity],
    ) -> None:
        """Subscribe.

        Args:
            node: whose subscriptions they are.
            settings: of the moment.
            queue: gets the frames, in the order of their stamps.
            activity: what the worker is doing.

        """
        names = settings.input.camera_names
        self._node = node
        self._queue = queue
        self._ready: deque[Frame] = deque()
        self._order = RigOrder(names, settings.input.rig_wait) if len(names) > 1 else None
        self._clocks = RigClocks(names)
        self._jumps = {name: JumpFilter() for name in names}
        self.cameras = [
            ImageInput(
                node,
                settings,
                queue,
                partial(self._put, name),
                camera=name,
                arrived=partial(self._clocks.note, name),
                holding=self._full,
            )
            for name in names
        ]
        self.watchdogs = [Watchdog(node, each, activity, each.name) for each in self.cameras]
        every = _LOOK_ALONE if self._order is None else _LOOK_EVERY
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(every, self._look, clock=steady)

    def close(self) -> None:
        """Unsubscribe; what is held is dropped, counted."""
        for camera in self.cameras:
            camera.close()
        self._node.destroy_timer(self._timer)
        held = len(self._ready) + sum(map(len, self._jumps.values()))
        self._queue.note_lost(held + (0 if self._order is None else len(self._order)))

    def outliers(self, camera: str) -> int:
        """Return how many images of a camera were refused because their own stamp was wrong."""
        return self._jumps[camera].outliers

    def clock_warnings(self) -> list[str]:
        """Return the warning about each camera that lives in another clock than the others."""
        return [
            f"camera '{camera}' lives in another clock: its stamps are {abs(seconds):.1f} s "
            f"{'ahead of' if seconds > 0 else 'behind'} those of the other cameras, so they cannot "
            "be put in order; have all drivers stamp by one clock, or leave it out of input.cameras"
            for camera, seconds in self.clock_offsets().items()
        ]

    def clock_offsets(self) -> dict[str, float]:
        """Return of each camera that lives in another clock how many seconds that is ahead."""
        return self._clocks.unmatched_clocks()

    def _put(self, camera: str, frame: Frame) -> None:
        named = replace(frame, camera=camera)
        self._settle([named] if frame.fault else self._jumps[camera].admit(named))
        self._deliver()

    def _look(self) -> None:
        for camera in self.cameras:
            camera.look()
        for jumps in self._jumps.values():
            self._settle(jumps.due())
        if self._order is not None:
            self._ready.extend(self._order.due())
        self._deliver()

    def _settle(self, frames: list[Frame]) -> None:
        """Take in frames whose stamps are known to be right, or wrong."""
        for frame in frames:
            if self._order is None or frame.fault:
                self._ready.append(frame)
            else:
                self._ready.extend(self._order.add(frame))

    def _deliver(self) -> None:
        """Hand on what is ready, without waiting for room in a queue that must not drop."""
        while self._ready and not (self._queue.policy == "all" and self._queue.full):
            self._queue.put(self._ready.popleft())

    def _full(self) -> bool:
        return bool(self._ready)


_REMEDIES: dict[str, str] = {
    "decoding": "publish smaller images",
    "waiting for transforms": "lower tf.timeout",
    "reconstructing": "lower input.width or the budget of the cache (cache.budget_mib, where it is "
    "set, else cache.budget_tokens), or run on a faster model.device",
    "checking": "lower input.width",
    "scaling": "lower input.width",
    "mapping": "raise map.stride or map.voxel_size, or lower map.max_points",
    "publishing": "raise points.stride, or close a subscriber that is too slow",
    "commanded": "wait for it to end",
}


class Watchdog:
    """Looks, on a steady clock, for silence at the input and for a frame that is stuck."""

    def __init__(
        self,
        node: Node,
        images: ImageInput,
        activity: Callable[[], Activity],
        name: str = "image",
    ) -> None:
        """Watch ``images``, which are called ``name`` before they are remapped.

        Args:
            node: whose graph is looked at.
            images: the input of one camera.
            activity: what the worker is doing.
            name: of the images before remapping.

        """
        self._node = node
        self._images = images
        self._activity = activity
        self._name = name

    def stuck(self, timeout: float) -> str | None:
        """Return the warning about a frame that stays in one stage for ``timeout`` seconds."""
        activity = self._activity()
        seconds = monotonic() - activity.since
        if activity.stage == "idle" or seconds < timeout:
            return None
        return (
            f"an image has been in stage '{activity.stage}' for {seconds:.0f} s "
            f"(watchdog.timeout is {timeout:g} s): {_REMEDIES[activity.stage]}"
        )

    def silence(self, timeout: float) -> str | None:
        """Return the warning about an input without an image for ``timeout`` seconds."""
        seconds = monotonic() - self._images.last_image
        if self._images.held_back or seconds < timeout:
            return None
        return f"no image for {seconds:.0f} s on {self._images.topic}: {self._reason()}"

    def mixture(self) -> str | None:
        """Return the warning about images of several publishers on one topic."""
        mixed = self._images.mixed_publishers()
        if not mixed:
            return None
        return (
            f"{self._images.topic} has {len(mixed)} publishers ({', '.join(mixed)}), and their "
            f"images mix: stop all but one, or remap {self._name} to a topic that only "
            "one publishes"
        )

    def _reason(self) -> str:
        publishers = self._images.publishers()
        wanted = self._images.type_name
        if not publishers:
            return f"it has no publisher; {self._advice()}"
        types = sorted({each.topic_type for each in publishers})
        if wanted not in types:
            return f"it carries {', '.join(types)}, not {wanted}; {self._advice()}"
        return (
            f"publishers {topics.offered(publishers)}, subscription {self._images.reliability}; "
            "either they are silent, or their images are lost on the way (see 'Large images' "
            "in docs/node.md)"
        )

    def _advice(self) -> str:
        return topics.advice(
            self._images.topic,
            topics.TRANSPORTS.get(self._images.type_name, "raw"),
            self._name,
            topics.published_topics(self._node),
        )
