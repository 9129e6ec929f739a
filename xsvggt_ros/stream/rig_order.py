# SPDX-License-Identifier: Apache-2.0
"""The images of several cameras in the order in which they were taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from xsvggt_ros.stream.frame import Frame
from xsvggt_ros.stream.stamps import SHORTEST_JUMP


class RigOrder:
    """Holds each frame until every camera has come as far, or for a while at most.

    Images of one moment come over different ways, and one after the other; a stream takes them by
    their stamps. Equal stamps go by the order of the cameras' names as given.
    """

    def __init__(
        self, cameras: Sequence[str], wait: float, clock: Callable[[], float] = monotonic
    ) -> None:
        """Order the frames of ``cameras``; none is held for longer than ``wait`` seconds."""
        self._rank = {camera: rank for rank, camera in enumerate(cameras)}
        self._wait = wait
        self._clock = clock
        self._newest: dict[str, int] = {}
        self._ended: dict[str, int] = {}
        """Newest stamps from before a jump, of the cameras that have not jumped yet."""
        self._held: list[tuple[float, Frame]] = []

    def __len__(self) -> int:
        return len(self._held)

    def put(self, frame: Frame) -> list[Frame]:
        """Take in a frame; return those whose turn has come, in order.

        Where a bag loops, the last frames of one camera may come after the first new ones of
        another. They go on at once, before what is held: one jump is not to look like two.
        """
        if self._is_straggler(frame):
            return [frame]
        before = self._newest.get(frame.camera, frame.stamp)
        ended: list[Frame] = []
        if before - frame.stamp >= SHORTEST_JUMP:
            reached = dict(self._newest)
            ended = self.flush()
            self._ended = reached
        self._ended.pop(frame.camera, None)
        self._newest[frame.camera] = frame.stamp
        self._held.append((self._clock(), frame))
        return ended + self.due()

    def due(self) -> list[Frame]:
        """Return the frames whose turn has come, in order.

        Where one has been held for too long, those of earlier stamps go with it.
        """
        reached = [self._newest.get(camera) for camera in self._rank]
        complete = min((stamp for stamp in reached if stamp is not None), default=0)
        limit = complete if None not in reached else -1
        expired = self._clock() - self._wait
        limit = max([limit, *(f.stamp for arrival, f in self._held if arrival <= expired)])
        going = self._release(limit)
        if going:
            self._ended.clear()  # what is late now is late for good
        return going

    def flush(self) -> list[Frame]:
        """Return all that is held, in order, and forget how far the cameras are."""
        self._newest.clear()
        return self._release(max((frame.stamp for _, frame in self._held), default=0))

    def _is_straggler(self, frame: Frame) -> bool:
        ended = self._ended.get(frame.camera)
        return ended is not None and ended - frame.stamp < SHORTEST_JUMP

    def _release(self, limit: int) -> list[Frame]:
        going = [frame for _, frame in self._held if frame.stamp <= limit]
        self._held = [(arrival, f) for arrival, f in self._held if f.stamp > limit]
        return sorted(going, key=lambda f: (f.stamp, self._rank.get(f.camera, len(self._rank))))
