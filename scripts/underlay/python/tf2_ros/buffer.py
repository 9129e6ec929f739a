# SPDX-License-Identifier: Apache-2.0
"""The buffer of tf2_ros: waiting on top of tf2_py's."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from time import monotonic, sleep

from geometry_msgs.msg import TransformStamped
from rclpy.clock import Clock, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.task import Future
from rclpy.time import Time
from tf2_py import BufferCore

_POLL = 0.02
_NO_TIME = Duration()


class Buffer(BufferCore):
    """Keeps transforms; forgets the dynamic ones where the node's clock jumps back."""

    def __init__(self, cache_time: Duration | None = None, node: Node | None = None) -> None:
        super().__init__(cache_time)
        self._waiting: list[Callable[[], None]] = []
        self._waiting_lock = RLock()
        self.clock = node.get_clock() if node else Clock()
        threshold = JumpThreshold(
            min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True
        )
        self.jump_handle = self.clock.create_jump_callback(
            threshold, post_callback=self.time_jump_callback
        )

    def time_jump_callback(self, time_jump: TimeJump) -> None:
        """Forget what lies in another time."""
        get_logger("tf2_buffer").warning("Detected jump back in time. Clearing tf buffer.")
        self.clear()

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Take in a transform that holds at its stamp."""
        super().set_transform(transform, authority)
        self._tell_waiting()

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Take in a transform that holds for ever."""
        super().set_transform_static(transform, authority)
        self._tell_waiting()

    def lookup_transform(
        self, target_frame: str, source_frame: str, time: Time, timeout: Duration = _NO_TIME
    ) -> TransformStamped:
        """Return the pose of ``source_frame`` in ``target_frame``, waiting for it."""
        self.can_transform(target_frame, source_frame, time, timeout)
        return self.lookup_transform_core(target_frame, source_frame, time)

    def lookup_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = _NO_TIME,
    ) -> TransformStamped:
        """Return the pose of a frame at one time in another at another one, waiting for it."""
        asked = (target_frame, target_time, source_frame, source_time, fixed_frame)
        self.can_transform_full(*asked, timeout)
        return self.lookup_transform_full_core(*asked)

    async def lookup_transform_async(
        self, target_frame: str, source_frame: str, time: Time
    ) -> TransformStamped:
        """Return the pose of ``source_frame`` in ``target_frame`` once it is known."""
        await self.wait_for_transform_async(target_frame, source_frame, time)
        return self.lookup_transform_core(target_frame, source_frame, time)

    def can_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = _NO_TIME,
        return_debug_tuple: bool = False,
    ) -> bool | tuple[bool, str]:
        """Return whether a look-up succeeds within ``timeout``."""
        found = _polled(lambda: self.can_transform_core(target_frame, source_frame, time), timeout)
        return found if return_debug_tuple else found[0]

    def can_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = _NO_TIME,
        return_debug_tuple: bool = False,
    ) -> bool | tuple[bool, str]:
        """Return whether a look-up between two times succeeds within ``timeout``."""
        asked = (target_frame, target_time, source_frame, source_time, fixed_frame)
        found = _polled(lambda: self.can_transform_full_core(*asked), timeout)
        return found if return_debug_tuple else found[0]

    def wait_for_transform_async(
        self, target_frame: str, source_frame: str, time: Time
    ) -> Future[bool]:
        """Return a future that is done once a look-up succeeds."""
        future: Future[bool] = Future()

        def look_up() -> None:
            if not future.done() and self.can_transform_core(target_frame, source_frame, time)[0]:
                future.set_result(self.lookup_transform_core(target_frame, source_frame, time))

        look_up()
        if not future.done():
            with self._waiting_lock:
                self._waiting.append(look_up)
            future.add_done_callback(lambda _: self._stop_waiting(look_up))
        return future

    def _tell_waiting(self) -> None:
        with self._waiting_lock:
            waiting = list(self._waiting)
        for look_up in waiting:
            look_up()

    def _stop_waiting(self, look_up: Callable[[], None]) -> None:
        with self._waiting_lock:
            if look_up in self._waiting:
                self._waiting.remove(look_up)


def _polled(question: Callable[[], tuple[bool, str]], timeout: Duration) -> tuple[bool, str]:
    deadline = monotonic() + timeout.nanoseconds / 1e9
    answer = question()
    while not answer[0] and monotonic() < deadline:
        sleep(_POLL)
        answer = question()
    return answer
