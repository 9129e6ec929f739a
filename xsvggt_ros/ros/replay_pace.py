# SPDX-License-Identifier: Apache-2.0
"""How fast a recording is replayed: by its stamps, at a rate, or as a node answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Condition

from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.node import Node
from rclpy.qos import QoSProfile

from xsvggt_ros.errors import FrameError
from xsvggt_ros.msg import ReconstructionStatus
from xsvggt_ros.stream.frame import Frame, ImageArray
from xsvggt_ros.stream.sources import Source

logger = logging.getLogger(__name__)


TICK = 0.02
"""Seconds between two calls of ``on_tick``."""


class ReplayClock:
    """Waits for one thread, and is paused, resumed and stopped by others."""

    def __init__(self, *, paused: bool = False) -> None:
        self._changed = Condition()
        self._held_at = time.monotonic() if paused else None
        self._stopped = False
        self._due = 0.0

    @property
    def stopped(self) -> bool:
        """Whether the replay is to end."""
        return self._stopped

    def pause(self, paused: bool) -> None:
        """Hold the time, or let it go on."""
        with self._changed:
            now = time.monotonic()
            if not paused and self._held_at is not None:
                self._due += now - self._held_at
                self._held_at = None
            elif paused and self._held_at is None:
                self._held_at = now
            self._changed.notify_all()

    def stop(self) -> None:
        """End the wait under way and every later one."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def wait(self, seconds: float, on_tick: Callable[[float], None] | None = None) -> bool:
        """Wait until ``seconds`` after the instant at which the wait before was due to end.

        Time spent paused does not count. One who comes too late does not wait, and what was lost
        is not made up for. ``on_tick`` is called meanwhile with the seconds that are left.

        Returns:
            False where the replay was stopped.

        """
        with self._changed:
            self._due = max(self._due + seconds, self._now())
        while self._wait_a_little(TICK if on_tick else None):
            if on_tick:
                on_tick(self._left())
        return not self._stopped

    def _now(self) -> float:
        return time.monotonic() if self._held_at is None else self._held_at

    def _left(self) -> float:
        with self._changed:
            return max(0.0, self._due - self._now())

    def _wait_a_little(self, longest: float | None) -> bool:
        """Wait once; False where there is nothing to wait for any more."""
        with self._changed:
            left = self._due - self._now() if self._held_at is None else None
            if self._stopped or (left is not None and left <= 0):
                return False
            self._changed.wait(min((each for each in (left, longest) if each), default=None))
            return True


class MeteredSource(Source):
    """Gives out an image when fewer than ``window`` of those before are still under way.

    Nothing at all comes out before the first :meth:`allow`. Images that cannot be decoded are
    left out here, so that each one given out gets an answer.

    Attributes:
        sent: images given out.
        left_out: images that could not be decoded.
        cut: whether the source had more than ``limit`` images; without one, never.

    """

    def __init__(self, source: Source, *, window: int, limit: int | None = None) -> None:
        self.name = source.name
        self.rate = source.rate
        self.sent = 0
        self.left_out = 0
        self.cut = False
        self._source = source
        self._limit = limit
        self._window = window
        self._allowed = 0
        self._closed = False
        self._changed = Condition()

    @property
    def frame_count(self) -> int | None:
        """Number of images that will come, None where only reading tells."""
        count = self._source.frame_count
        return count if count is None or self._limit is None else min(count, self._limit)

    def allow(self, answered: int) -> None:
        """Say how many images have been answered, refusals included."""
        with self._changed:
            self._allowed = answered + self._window
            self._changed.notify_all()

    def close(self) -> None:
        """End the iteration under way."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Frame]:
        """Yield decoded frames, each when there is room for it."""
        for frame in self._source:
            if self.sent == self._limit:
                self.cut = True
                return
            decoded = self._decoded(frame)
            if decoded is None:
                continue
            if not self._wait_for_room():
                return
            self.sent += 1
            yield decoded

    def _decoded(self, frame: Frame) -> Frame | None:
        try:
            image: ImageArray = frame.decode()
        except FrameError as error:
            logger.warning("the image of stamp %d ns is left out: %s", frame.stamp, error)
            self.left_out += 1
            return None
        return replace(frame, decode=lambda: image)

    def _wait_for_room(self) -> bool:
        """Return False where the source was closed meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self.sent < self._allowed)
            return not self._closed


NOT_SUBSCRIBED = ("unconfigured", "inactive", "warming up")
"""States in which a node that has received nothing may not be listening yet."""

_LOOK_EVERY = 5.0
"""Seconds; a node tells its status once a second."""


class Follower:
    """Lets a metered source go on as a node answers the images published, by its ``~/status``.

    Counting begins with the node's first status, and again where the node does. Images that
    others send to it meanwhile are taken for ours.
    """

    def __init__(
        self, node: Node, followed: str, images: MeteredSource, published: Callable[[], int]
    ) -> None:
        self._logger = node.get_logger()
        self._images = images
        self._published = published
        self._newest: ReconstructionStatus | None = None
        self._seen: ReconstructionStatus | None = None
        self._not_ours = 0
        self._topic = node.create_subscription(
            ReconstructionStatus, f"{followed}/status", self.on_status, QoSProfile(depth=10)
        ).topic_name
        node.create_timer(_LOOK_EVERY, self.look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def on_status(self, status: ReconstructionStatus) -> None:
        """Let as many images go as have been answered; none before the node subscribes."""
        if status.state in NOT_SUBSCRIBED and not status.frames_received:
            return
        before, self._newest = self._newest, status
        if before is None or status.frames_received < before.frames_received:
            self._not_ours = status.frames_received - self._published()
        self._images.allow(_done(status) - self._not_ours)

    def look(self) -> None:
        """Say why nothing goes on: a node that says nothing, or one that has lost images."""
        before, self._seen = self._seen, self._newest
        if self._newest is None or self._newest is before:
            self._logger.warning(
                f"nothing on {self._topic} for {_LOOK_EVERY:g} s, and nothing is replayed without "
                "it; start the node to follow, or give its full name, such as /xsvggt"
            )
        elif before and before.frames_received == self._newest.frames_received:
            self._forget_lost(self._newest)

    def _forget_lost(self, status: ReconstructionStatus) -> None:
        """Take for lost what an idle node has not received in all this time."""
        lost = self._published() - (status.frames_received - self._not_ours)
        if lost > 0 and status.frames_pending == 0:
            self._logger.warning(
                f"{lost} images did not reach the node of {self._topic}; look whether it "
                "subscribes to the topic of this replay"
            )
            self._not_ours -= lost
            self._images.allow(_done(status) - self._not_ours)


def _done(status: ReconstructionStatus) -> int:
    return int(status.frames_processed + status.frames_dropped + status.frames_refused)
