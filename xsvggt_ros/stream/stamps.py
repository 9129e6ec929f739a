# SPDX-License-Identifier: Apache-2.0
"""What the stamps of a stream tell before a frame is even decoded."""

from __future__ import annotations

from enum import Enum

SHORTEST_JUMP = 1_000_000_000
"""Nanoseconds back from which on a clock has jumped; less is an image that came out of order."""

WRAP = 2**32 * 1000
"""Nanoseconds, about 71.6 minutes, after which a counter of 32-bit microseconds begins again, as
those of RealSense and DepthAI do. The camera has not stopped, so the session goes on."""

_USUAL_GAPS = 3
"""Times the distance of the stamps before, but a second at least, from which on stamps jump."""


class Order(Enum):
    """How a stamp relates to the newest one that was accepted."""

    FORWARD = "forward"
    REPEATED = "repeated"
    LATE = "late"
    JUMPED_BACK = "jumped back"
    WRAPPED = "wrapped"
    RETURNED = "returned"


class StampOrder:
    """Watches the stamps of one stream, of one camera or of several that share a clock.

    Attributes:
        last: newest stamp accepted, in nanoseconds; None before the first.

    """

    def __init__(self) -> None:
        self.last: int | None = None
        self._of_camera: dict[str, int] = {}
        self._gap = 0
        """Nanoseconds between the two newest stamps that went forward without a jump."""
        self._left: tuple[int, int] | None = None
        """Stamps before and after the newest jump forward."""

    def judge(self, stamp: int, camera: str = "") -> Order:
        """Compare ``stamp`` with the last ones accepted.

        Two cameras may take an image at the same time, one camera may not. Only a camera whose own
        stamps go back tells of a clock that has jumped.
        """
        own = self._of_camera.get(camera)
        if stamp == own:
            return Order.REPEATED
        if self.last is None or stamp >= self.last:
            return Order.FORWARD
        if own is None or own - stamp < SHORTEST_JUMP:
            return Order.LATE
        if abs(own - stamp - WRAP) < SHORTEST_JUMP:
            return Order.WRAPPED
        return Order.RETURNED if self._returns(own, stamp) else Order.JUMPED_BACK

    def _returns(self, own: int, stamp: int) -> bool:
        """Return whether stamps go on where they would be had they not jumped forward before."""
        if self._left is None:
            return False
        before, after = self._left
        off = (stamp - before) - (own - after)
        return stamp > before and abs(off) < max(SHORTEST_JUMP, _USUAL_GAPS * self._gap)

    def accept(self, stamp: int, camera: str = "") -> None:
        """Measure later stamps by this one."""
        if self.last is not None and stamp < self.last:
            self._of_camera.clear()
            self._left = None
        elif self.last is not None and stamp > self.last:
            gap = stamp - self.last
            if gap > max(SHORTEST_JUMP, _USUAL_GAPS * self._gap) and self._gap:
                self._left = self.last, stamp
            else:
                self._gap = gap
        self.last = self._of_camera[camera] = stamp
