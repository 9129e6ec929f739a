# SPDX-License-Identifier: Apache-2.0
"""What the stamps of a stream tell before a frame is even decoded."""

from __future__ import annotations

from enum import Enum


class Order(Enum):
    """How a stamp relates to the one before it."""

    FORWARD = "forward"
    REPEATED = "repeated"
    BACKWARD = "backward"


class StampOrder:
    """Watches the stamps of one stream."""

    def __init__(self) -> None:
        self._last: int | None = None

    @property
    def last(self) -> int | None:
        """Newest stamp seen, in nanoseconds."""
        return self._last

    def judge(self, stamp: int) -> Order:
        """Compare ``stamp`` with the one before and remember it."""
        last, self._last = self._last, stamp
        if last is None or stamp > last:
            return Order.FORWARD
        return Order.REPEATED if stamp == last else Order.BACKWARD

    def forget(self) -> None:
        """Take the next stamp as the first."""
        self._last = None
