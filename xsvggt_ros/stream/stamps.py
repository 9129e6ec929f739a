# SPDX-License-Identifier: Apache-2.0
"""What the stamps of a stream tell before a frame is even decoded."""

from __future__ import annotations

from enum import Enum

SHORTEST_JUMP = 1_000_000_000
"""Nanoseconds back from which on a clock has jumped; less is a picture that came out of order."""


class Order(Enum):
    """How a stamp relates to the newest one that was accepted."""

    FORWARD = "forward"
    REPEATED = "repeated"
    LATE = "late"
    JUMPED_BACK = "jumped back"


class StampOrder:
    """Watches the stamps of one stream.

    Attributes:
        last: newest stamp accepted, in nanoseconds; None before the first.

    """

    def __init__(self) -> None:
        self.last: int | None = None

    def judge(self, stamp: int) -> Order:
        """Compare ``stamp`` with the last one accepted."""
        if self.last is None or stamp > self.last:
            return Order.FORWARD
        if stamp == self.last:
            return Order.REPEATED
        return Order.JUMPED_BACK if self.last - stamp >= SHORTEST_JUMP else Order.LATE

    def accept(self, stamp: int) -> None:
        """Measure later stamps by this one."""
        self.last = stamp
