# SPDX-License-Identifier: Apache-2.0
"""Whether a stamp that jumps tells of a clock that jumped, or is wrong by itself.

One stamp proves nothing: cameras send single ones that are zero, seconds ahead, or off by the 71
minutes after which a counter of 32-bit microseconds begins again. So an image whose stamp jumps
waits for the next ones. Where these go on as before, its stamp was wrong, and it is refused; where
they go on from it, the clock has jumped, and all of them pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from statistics import median
from time import monotonic
from typing import TypeVar

from xsvggt_ros.errors import SourceError
from xsvggt_ros.stream.frame import Frame
from xsvggt_ros.stream.stamps import SHORTEST_JUMP

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
        """Return whether two stamps are of one sequence; what is late is judged elsewhere."""
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
