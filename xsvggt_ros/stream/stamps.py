# SPDX-License-Identifier: Apache-2.0
"""Stamps: their order, jumps of a clock, and the cameras of a rig brought into one order.

One stamp proves nothing: cameras send single ones that are zero, seconds ahead, or off by the 71
minutes after which a counter of 32-bit microseconds begins again. So an image whose stamp jumps
waits for the next ones. Where these go on as before, its stamp was wrong, and it is refused; where
they go on from it, the clock has jumped, and all of them pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from enum import Enum
from statistics import median, median_low
from time import monotonic
from typing import TypeVar

from xsvggt_ros.errors import SourceError
from xsvggt_ros.stream.frame import SECOND, Frame

SHORTEST_JUMP = SECOND
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

    def classify(self, stamp: int, camera: str = "") -> Order:
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


T = TypeVar("T")

MOST_HELD = 2
"""Images of a new sequence that wait for one more of it."""
MOST_ASTRAY = 6
"""Images that wait although no two of them belong together; more, and nothing is known."""
USUAL_GAPS = 3.0
"""Times the usual distance of two stamps, from which on one is a jump, but a second at least."""
SHORTEST_SUSPICION = 250_000_000
"""Nanoseconds ahead, but USUAL_GAPS at least, from which on a stamp waits for one that confirms it:
were it wrong and believed, all that follow would be late."""
SHORTEST_PATIENCE = 0.5
LONGEST_PATIENCE = 3.0
"""Seconds that an image waits for the next one."""
_BASELINE = 9


class JumpFilter:
    """Follows the stamps of one camera.

    Attributes:
        outliers: images refused so far because their own stamp was wrong.

    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.outliers = 0
        self._clock = clock
        self._last: int | None = None
        self._gaps: deque[int] = deque(maxlen=_BASELINE)
        self._held: list[Frame] = []
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._held)

    def admit(self, frame: Frame) -> list[Frame]:
        """Take in a frame; return those known to be right or wrong, in order of arrival."""
        if not self._held:
            if self._fits(frame.stamp):
                return [self._passed(frame)]
            self._hold(frame)
            return [] if frame.stamp or not self._last else self._refused()
        if self._goes_on_as_before(frame.stamp):
            return [*self._refused(), self._passed(frame)]
        self._hold(frame)
        if len(self._held) > MOST_ASTRAY:
            return self.flush()
        beginning = self._beginning_of_sequence()
        enough = len(self._held) - beginning > self._most_held(self._held[beginning].stamp)
        return self._release(beginning) if enough else []

    def due(self) -> list[Frame]:
        """Return what has waited in vain for a next image, which might have proved it wrong."""
        if not self._held or self._clock() - self._since < self._patience:
            return []
        return self.flush()

    def flush(self) -> list[Frame]:
        """Return all that is held."""
        return self._release(0)

    @property
    def _usual(self) -> float:
        """Nanoseconds between two stamps."""
        return median(self._gaps) if self._gaps else 0.0

    @property
    def _patience(self) -> float:
        return min(max(SHORTEST_PATIENCE, 2e-9 * self._usual), LONGEST_PATIENCE)

    def _most_held(self, beginning: int) -> int:
        """Return how many images of a sequence wait; one is enough where it may be a pause."""
        near = self._last is not None and self._follows(self._last, beginning)
        return 1 if near else MOST_HELD

    def _fits(self, stamp: int) -> bool:
        """Return whether a stamp is none to wonder about; a first one is, where it is zero."""
        if self._last is None:
            return bool(stamp)
        usual = max(SHORTEST_SUSPICION, USUAL_GAPS * self._usual)
        suspicious = bool(self._gaps) and stamp - self._last >= usual
        return not suspicious and self._follows(self._last, stamp)

    def _follows(self, before: int, stamp: int) -> bool:
        """Return whether two stamps are of one sequence; what is late is refused elsewhere."""
        limit = max(SHORTEST_JUMP, USUAL_GAPS * self._usual)
        return -SHORTEST_JUMP < stamp - before < limit

    def _goes_on_as_before(self, stamp: int) -> bool:
        """Return whether a stamp is nearer to the one before the jump than to the newest held."""
        newest = self._held[-1].stamp
        if self._last is None:  # what is held is zero
            return not self._follows(newest, stamp)
        near = abs(stamp - self._last) <= abs(stamp - newest)
        return self._follows(self._last, stamp) and (near or not self._follows(newest, stamp))

    def _beginning_of_sequence(self) -> int:
        """Return from which of the held frames on they belong together."""
        at = len(self._held) - 1
        while at and self._together(self._held[at - 1].stamp, self._held[at].stamp):
            at -= 1
        return at

    def _together(self, before: int, stamp: int) -> bool:
        """Return whether two held stamps are of one sequence; a slow one shows no gap yet.

        A zero says "no time", and begins no sequence where others have one.
        """
        if self._last and not (before and stamp):
            return False
        slow = not self._gaps and before > 0 and stamp > before
        return slow or self._follows(before, stamp)

    def _hold(self, frame: Frame) -> list[Frame]:
        self._held.append(frame)
        self._since = self._clock()
        return []

    def _release(self, beginning: int) -> list[Frame]:
        """Return all that is held; what came before the ``beginning`` of a sequence is refused.

        As long as no distance is usual, whatever went forward may have been right.
        """
        unsure: list[Frame] = []
        while beginning and not self._gaps and self._last is not None:
            if self._held[0].stamp <= self._last:
                break
            unsure.append(self._held.pop(0))
            self._last, beginning = unsure[-1].stamp, beginning - 1
        right, self._held = self._held[beginning:], self._held[:beginning]
        wrong = self._refused(right[0].stamp if right else None)
        for at, frame in enumerate(right):
            if at:
                self._passed(frame)
            self._last = frame.stamp
        return [*unsure, *wrong, *right]

    def _passed(self, frame: Frame) -> Frame:
        if self._last is not None and frame.stamp > self._last:
            self._gaps.append(frame.stamp - self._last)
        late = self._last is not None and 0 < self._last - frame.stamp < SHORTEST_JUMP
        self._last = self._last if late else frame.stamp
        return frame

    def _refused(self, next_stamp: int | None = None) -> list[Frame]:
        """Let go of what is held, marked as wrong."""
        wrong, self._held = self._held, []
        self.outliers += len(wrong)
        reference = next_stamp if self._last is None else self._last
        return [replace(frame, fault=_fault(frame.stamp, reference)) for frame in wrong]


def settled(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Yield the frames of a recording, those with a wrong stamp marked as such."""
    return (frame for _, frame in settled_with(frames, lambda frame: frame))


def settled_with(items: Iterable[T], frame_of: Callable[[T], Frame]) -> Iterator[tuple[T, Frame]]:
    """Yield each item that has a frame with that frame, marked where its stamp is wrong.

    Those of one camera come out in their own order. Where reading fails, what is held comes out
    before the error does.

    Raises:
        SourceError: what reading the items raises.

    """
    cameras: dict[str, tuple[JumpFilter, deque[T]]] = {}
    source = iter(items)
    broken: SourceError | None = None
    while True:
        try:
            item = next(source)
        except StopIteration:
            break
        except SourceError as error:
            broken = error
            break
        frame = frame_of(item)
        jumps, waiting = cameras.setdefault(frame.camera, (JumpFilter(), deque()))
        waiting.append(item)
        yield from ((waiting.popleft(), known) for known in jumps.admit(frame))
    for jumps, waiting in cameras.values():
        yield from ((waiting.popleft(), known) for known in jumps.flush())
    if broken is not None:
        raise broken


def _fault(stamp: int, reference: int | None) -> str:
    if not stamp:
        return "its stamp is zero, unlike those around it; have its publisher stamp every image"
    off = (stamp - (reference or 0)) / 1e9
    side = "ahead of" if off > 0 else "behind"
    return (
        f"its stamp lies {abs(off):.3f} s {side} those around it, which go on as before, and so "
        "does the session; look at the clock of the camera's driver"
    )


_LEAST_BASELINE = 3


class RigClocks:
    """Compares the stamps of images that arrive one after the other."""

    def __init__(self, cameras: Sequence[str]) -> None:
        self._cameras = tuple(cameras)
        self._newest: dict[str, int] = {}
        self._arrived_since: dict[str, set[str]] = {camera: set() for camera in cameras}
        """Of each camera, which others have sent an image since its own last one."""
        self._ahead: dict[str, deque[int]] = {
            camera: deque(maxlen=_BASELINE) for camera in cameras[1:]
        }
        """Nanoseconds by which the stamps of a camera are ahead of the first camera's."""

    def note(self, camera: str, stamp: int) -> None:
        """Take note of an image when it arrives.

        Only cameras that take turns are compared: one that is silent has an old stamp, not another
        clock.
        """
        first = self._cameras[0]
        for other in self._arrived_since[camera]:
            if first in (camera, other):
                ahead = stamp - self._newest[other]
                self._ahead[other if camera == first else camera].append(
                    -ahead if camera == first else ahead
                )
        self._arrived_since[camera].clear()
        for others in (self._arrived_since[each] for each in self._cameras if each != camera):
            others.add(camera)
        self._newest[camera] = stamp

    def unmatched_clocks(self) -> dict[str, float]:
        """Return by how many seconds the stamps of cameras are ahead of those of most others.

        Only cameras that are off by a second or more are in it; what is behind is negative.
        """
        offsets = {self._cameras[0]: 0.0}
        for camera, ahead in self._ahead.items():
            if len(ahead) >= _LEAST_BASELINE:
                offsets[camera] = float(median(ahead))
        usual = median_low(offsets.values())
        if len(offsets) == 2:
            usual = 0.0  # of two, the first one is right
        return {
            camera: (offset - usual) / 1e9
            for camera, offset in offsets.items()
            if abs(offset - usual) >= SHORTEST_JUMP
        }


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

    def add(self, frame: Frame) -> list[Frame]:
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
