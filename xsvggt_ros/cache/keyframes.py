# SPDX-License-Identifier: Apache-2.0
"""Which frames leave something behind: one of so many of each camera."""

from __future__ import annotations

STAGES = 5
"""Equal parts of the trained number of frames; in each, the interval is twice that of the last."""
MOST = 64
"""Largest interval: an hour at 10 Hz then stores 900 frames, about the 1024 that LingBot-Map's own
table of places in time has room for."""


class KeyframeSchedule:
    """Counts the frames of each camera, and says which of them are stored.

    The first frame of a camera is stored, then every ``interval``-th one. With the interval 0
    (auto), a network that was trained up to some number of stored frames stores every frame during
    the first fifth of them, every second one during the next, and so on: LingBot-Map's 320 frames
    last 1984 frames of the stream, and an hour of 10 Hz ends near 880. A network whose tokens do
    not know how many came before them stores every frame.
    """

    def __init__(self, interval: int, trained_frames: int) -> None:
        """Store one of ``interval`` frames; 0 = by what the network was trained with."""
        self._interval = interval
        self._trained = trained_frames
        self._until: dict[str, int] = {}
        self.stored = 0

    @property
    def interval(self) -> int:
        """One of so many frames of a camera is stored now."""
        if self._interval:
            return self._interval
        if not self._trained:
            return 1
        stage = self.stored // max(1, self._trained // STAGES)
        return int(min(MOST, 2 ** min(stage, MOST)))

    def change(self, interval: int) -> None:
        """Store one of ``interval`` frames from now on; 0 = as the network was trained."""
        self._interval = interval

    def is_due(self, camera: str) -> bool:
        """Return whether the next frame of ``camera`` is stored."""
        return min(self._until.get(camera, 0), self.interval - 1) == 0

    def note(self, camera: str, frames: int = 1, *, anchors: bool = False) -> None:
        """Take note of a pass of frames.

        Args:
            camera: whose frames they are.
            frames: of the pass.
            anchors: whether they are stored whatever the interval is.

        """
        if anchors:
            self.stored += frames
        elif self.is_due(camera):
            self.stored += 1
            self._until[camera] = self.interval - 1
        else:
            self._until[camera] = min(self._until.get(camera, 0), self.interval - 1) - 1

    def restart(self) -> None:
        """Forget the stream."""
        self._until.clear()
        self.stored = 0
