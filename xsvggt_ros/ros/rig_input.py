# SPDX-License-Identifier: Apache-2.0
"""The images of one camera, or of a rig of several in the order of their stamps; why none come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from xsvggt_ros.ros import qos
from xsvggt_ros.ros.image_input import ImageInput
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.topics import TRANSPORTS, advice, published_topics
from xsvggt_ros.stream.frame import Frame
from xsvggt_ros.stream.stamps import JumpFilter, RigClocks, RigOrder
from xsvggt_ros.stream.worker import FrameQueue

if TYPE_CHECKING:
    from xsvggt_ros.stream.pipeline import Activity


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
        return self._clocks.strangers()

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
                self._ready.extend(self._order.put(frame))

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
            f"publishers {qos.describe(publishers)}, subscription {self._images.reliability}; "
            "either they are silent, or their images are lost on the way (see 'Large images' "
            "in docs/node.md)"
        )

    def _advice(self) -> str:
        return advice(
            self._images.topic,
            TRANSPORTS.get(self._images.type_name, "raw"),
            self._name,
            published_topics(self._node),
        )
