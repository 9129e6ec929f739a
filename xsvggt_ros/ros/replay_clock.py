# SPDX-License-Identifier: Apache-2.0
"""The pace of a replay: a steady clock that can be paused and stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Condition

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
