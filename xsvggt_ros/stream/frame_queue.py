# SPDX-License-Identifier: Apache-2.0
"""The bounded queue between whoever receives frames and the worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition
from typing import Literal

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.stream.frame import Frame

QueuePolicy = Literal["latest", "all"]


class FrameQueue:
    """Holds frames in order, from any number of threads to one worker.

    ``latest`` drops the oldest frame and counts it; ``all`` holds the source back until there is
    room.
    """

    def __init__(self, policy: QueuePolicy = "latest", size: int = 1) -> None:
        """Make an empty queue; raise ConfigurationError for an unknown policy or no room."""
        if policy not in ("latest", "all"):
            raise ConfigurationError(
                f"input.queue_policy '{policy}' is unknown; choose latest or all"
            )
        if size < 1:
            raise ConfigurationError(f"input.queue_size is {size}; it must be at least 1")
        self._policy = policy
        self._size = size
        self._frames: deque[Frame] = deque()
        self._changed = Condition()
        self._closed = False
        self._paused = False
        self._missed = 0
        self._received = 0
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def policy(self) -> QueuePolicy:
        """What happens when a frame meets a full queue."""
        return self._policy

    @property
    def full(self) -> bool:
        """Whether the next frame would be held back or push another out; never while paused."""
        return len(self._frames) >= self._size and not self._paused

    @property
    def received(self) -> int:
        """Frames put in since the queue was made."""
        return self._received

    @property
    def dropped(self) -> int:
        """Frames pushed out by newer ones, or lost before they came here."""
        return self._dropped

    def counts(self) -> tuple[int, int]:
        """Return frames received and dropped, both of one moment."""
        with self._changed:
            return self._received, self._dropped

    def put(self, frame: Frame) -> bool:
        """Add a frame, unless paused; with ``all`` wait for room first.

        Returns False if the queue is closed.
        """
        with self._changed:
            if self._policy == "all":
                self._changed.wait_for(lambda: self._closed or not self.full)
            if self._closed:
                return False
            if self._paused:
                self._received += 1
                self._dropped += 1
                self._missed += 1
                return True
            if self.full:
                self._frames.popleft()
                self._dropped += 1
            self._frames.append(frame)
            self._received += 1
            self._changed.notify_all()
            return True

    @property
    def paused(self) -> bool:
        """Whether frames that come are dropped."""
        return self._paused

    def pause(self) -> None:
        """Drop what comes from now on, counted; what is held stays."""
        with self._changed:
            self._paused = True
            self._missed = 0
            self._changed.notify_all()

    def resume(self) -> int:
        """Take frames again; return how many were dropped meanwhile."""
        with self._changed:
            self._paused = False
            return self._missed

    def note_lost(self, count: int) -> None:
        """Count frames that were meant for this queue and lost on the way, as dropped."""
        with self._changed:
            self._received += count
            self._dropped += count

    def take(self, interrupted: Callable[[], bool] = lambda: False) -> Frame | None:
        """Remove and return the oldest frame, waiting for one.

        Returns None once the queue is closed, or ``interrupted()`` is true after :meth:`wake`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._closed or interrupted())
            if interrupted() or not self._frames:
                return None
            self._changed.notify_all()
            return self._frames.popleft()

    def wake(self) -> None:
        """Let whoever waits look again at what it waits for."""
        with self._changed:
            self._changed.notify_all()

    def discard(self) -> None:
        """Drop what is held, counted."""
        with self._changed:
            self._dropped += len(self._frames)
            self._frames.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """Take no more frames and let everybody who waits go; what is held is dropped, counted."""
        with self._changed:
            self._closed = True
            self.discard()
