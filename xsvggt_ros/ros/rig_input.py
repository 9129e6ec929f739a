# SPDX-License-Identifier: Apache-2.0
"""The pictures of one camera, or of a rig of several in the order of their stamps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from xsvggt_ros.ros.image_input import ImageInput
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.stream.frame import Frame
from xsvggt_ros.stream.frame_queue import FrameQueue
from xsvggt_ros.stream.rig_order import RigOrder

_LOOK_EVERY = 0.02
"""Seconds between two looks whether a frame has waited long enough for the other cameras."""


class RigInput:
    """Subscribes to each camera and puts its frames into the queue.

    Attributes:
        cameras: one input for each.

    """

    def __init__(
        self,
        node: Node,
        settings: Settings,
        queue: FrameQueue,
        noted: Callable[[Frame], Frame],
    ) -> None:
        """Subscribe; each frame goes through ``noted`` on its way into the queue."""
        names = settings.input.camera_names
        self._node = node
        self._queue = queue
        self._noted = noted
        self._ready: deque[Frame] = deque()
        self._order = RigOrder(names, settings.input.rig_wait)
        put = self._put if len(names) > 1 else self._put_alone
        self.cameras = [
            ImageInput(node, settings, queue, partial(put, name), camera=name, holding=self._full)
            for name in names
        ]
        self._timer = None
        if len(names) > 1:
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self._timer = node.create_timer(_LOOK_EVERY, self._look, clock=steady)

    def close(self) -> None:
        """Unsubscribe; what is held is dropped, counted."""
        for camera in self.cameras:
            camera.close()
        if self._timer is not None:
            self._node.destroy_timer(self._timer)
        self._queue.note_lost(len(self._ready) + len(self._order))

    def _put_alone(self, camera: str, frame: Frame) -> None:
        self._queue.put(self._noted(replace(frame, camera=camera)))

    def _put(self, camera: str, frame: Frame) -> None:
        self._ready.extend(self._order.put(replace(frame, camera=camera)))
        self._deliver()

    def _look(self) -> None:
        self._ready.extend(self._order.due())
        self._deliver()

    def _deliver(self) -> None:
        """Hand on what is ready, without waiting for room in a queue that must not drop."""
        while self._ready and not (self._queue.policy == "all" and self._queue.full):
            self._queue.put(self._noted(self._ready.popleft()))

    def _full(self) -> bool:
        return bool(self._ready)
