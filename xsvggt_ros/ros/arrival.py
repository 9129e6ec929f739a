# SPDX-License-Identifier: Apache-2.0
"""When the frame that the worker has in hand was taken off its topic."""

from __future__ import annotations

from dataclasses import replace
from time import monotonic

from xsvggt_ros.stream.frame import Frame, ImageArray


class Arrival:
    """Follows frames from their topic to the worker, which has one in hand at a time."""

    def __init__(self) -> None:
        self._in_hand = monotonic()

    def noted(self, frame: Frame) -> Frame:
        """Return the frame, just taken off its topic, such that its decoding tells when."""
        taken = monotonic()
        return replace(frame, decode=lambda: self._decode(frame, taken))

    def age(self) -> float:
        """Return the seconds since the frame in hand was taken off its topic."""
        return monotonic() - self._in_hand

    def _decode(self, frame: Frame, taken: float) -> ImageArray:
        self._in_hand = taken
        return frame.decode()
