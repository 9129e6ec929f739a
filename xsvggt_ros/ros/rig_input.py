# SPDX-License-Identifier: Apache-2.0
"""The images of one camera, or of a rig of several in the order of their stamps."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from functools import partial

from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.node import Node

from xsvggt_ros.ros.image_input import ImageInput
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.stream.frame import Frame
from xsvggt_ros.stream.stamps import JumpFilter, RigClocks, RigOrder
from xsvggt_ros.stream.worker import FrameQueue

_LOOK_EVERY = 0.02
"""Seconds between two looks whether a frame has waited long enough for the other cameras."""
_LOOK_ALONE = 0.1
"""The same of a single camera, whose frames only wait where a stamp is doubtful."""


class RigInput:
    """Subscribes to each camera and puts its frames into the queue.

    Attributes:
        cameras: one input for each.

    """

    def __init__(self, node: Node, settings: Settings, queue: FrameQueue) -> None:
        """Subscribe.

        Args:
            node: whose subscriptions they are.
            settings: of the moment.
            queue: gets the frames, in the order of their stamps.

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
