# SPDX-License-Identifier: Apache-2.0
"""The pictures of several cameras in the order in which they were taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic

from xsvggt_ros.stream.frame import Frame
from xsvggt_ros.stream.stamps import SHORTEST_JUMP


class RigOrder:
    """Holds each frame until every camera has come as far, or for a while at most.

    Pictures of one moment come over different ways, and one after the other; a stream takes them by
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
        self._held: list[tuple[float, Frame]] = []

    def __len__(self) -> int:
        return len(self._held)

    def put(self, frame: Frame) -> list[Frame]:
        """Take in a frame; return those whose turn has come, in order."""
        before = self._newest.get(frame.camera, frame.stamp)
        ended = self.flush() if before - frame.stamp >= SHORTEST_JUMP else []
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
        return self._release(limit)

    def flush(self) -> list[Frame]:
        """Return all that is held, in order, and forget how far the cameras are."""
        self._newest.clear()
        return self._release(max((frame.stamp for _, frame in self._held), default=0))

    def _release(self, limit: int) -> list[Frame]:
        going = [frame for _, frame in self._held if frame.stamp <= limit]
        self._held = [(arrival, f) for arrival, f in self._held if f.stamp > limit]
        return sorted(going, key=lambda f: (f.stamp, self._rank.get(f.camera, len(self._rank))))
