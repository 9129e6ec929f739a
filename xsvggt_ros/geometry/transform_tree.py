# SPDX-License-Identifier: Apache-2.0
"""A tree of moving coordinate frames: what tf2's buffer does, where there is no tf2.

A link says where a child frame is in its parent, over time. Times are in nanoseconds.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import hypot, isfinite

import numpy as np

from xsvggt_ros.errors import TransformMissingError, TransformTimeError
from xsvggt_ros.geometry.rigid import Matrix, interpolate, invert, matrix_from_quaternion

HISTORY = 10_000_000_000
"""Nanoseconds that a link remembers, as in tf2."""
SHORTEST_JUMP = 1_000_000_000
"""Nanoseconds back from which on a clock has jumped, and what came before is void."""
MOST_OFF_UNIT = 0.1
"""By how much a quaternion's length may be off 1: far more than rounding."""
_LONGEST_CHAIN = 1000
"""Links from a frame to its root; more is a loop."""

Place = tuple[float, float, float, float, float, float, float]
"""Translation x, y, z and quaternion x, y, z, w: kept as it came, since few are ever asked for."""


@dataclass(slots=True)
class _Link:
    parent: str
    static: bool
    samples: list[tuple[int, Place]] = field(default_factory=list)

    def put(self, stamp: int, place: Place) -> None:
        if self.samples and stamp <= self.samples[-1][0] - SHORTEST_JUMP:
            self.samples.clear()
        if self.static:
            self.samples = [(stamp, place)]
            return
        at = bisect_left(self.samples, (stamp,))
        if at < len(self.samples) and self.samples[at][0] == stamp:
            self.samples[at] = (stamp, place)
        else:
            insort(self.samples, (stamp, place))
        if self.samples[0][0] < self.samples[-1][0] - HISTORY:
            del self.samples[: bisect_left(self.samples, (self.samples[-1][0] - HISTORY,))]

    def at(self, stamp: int) -> Matrix | None:
        """Return the child's pose in the parent, None outside of what is remembered."""
        if self.static:
            return _matrix(self.samples[0][1])
        after = bisect_left(self.samples, (stamp,))
        if after < len(self.samples) and self.samples[after][0] == stamp:
            return _matrix(self.samples[after][1])
        if after in (0, len(self.samples)):
            return None
        (t0, one), (t1, other) = self.samples[after - 1], self.samples[after]
        return interpolate(_matrix(one), _matrix(other), (stamp - t0) / (t1 - t0))

    @property
    def span(self) -> str:
        return f"{self.samples[0][0] / 1e9:.3f} to {self.samples[-1][0] / 1e9:.3f} s"


class TransformTree:
    """Takes links in any order and answers where frames are in each other. Not thread-safe."""

    def __init__(self) -> None:
        self._links: dict[str, _Link] = {}

    def put(
        self, parent: str, child: str, stamp: int, place: Place, *, static: bool = False
    ) -> bool:
        """Take in where ``child`` is in ``parent``; another parent replaces the one before.

        Returns:
            False if ``place`` was refused: numbers that are not finite, or no unit quaternion.

        """
        if fault_of(place):
            return False
        link = self._links.get(child)
        if link is None or link.parent != parent or link.static != static:
            link = self._links[child] = _Link(parent, static)
        link.put(stamp, place)
        return True

    @property
    def frames(self) -> list[str]:
        """All frames that are known, sorted."""
        return sorted({*self._links, *(link.parent for link in self._links.values())})

    def lookup(self, target: str, source: str, stamp: int) -> Matrix:
        """Return the pose of ``source`` in ``target`` at a time, [4, 4].

        Raises:
            TransformMissingError: an unknown frame, frames that are not connected, or a link that
                is not known at that time; the message says which, and what is known.

        """
        if target == source:
            return np.eye(4)
        up, down = list(self._chain(source)), list(self._chain(target))
        shared = next((name for name in up if name in down), None)
        if shared is None:
            raise TransformMissingError(self._missing(target, source))
        above_source = self._climb(up[: up.index(shared)], stamp)
        above_target = self._climb(down[: down.index(shared)], stamp)
        return invert(above_target) @ above_source

    def _chain(self, name: str) -> Iterator[str]:
        for _ in range(_LONGEST_CHAIN):
            yield name
            link = self._links.get(name)
            if link is None:
                return
            name = link.parent
        raise TransformMissingError(f"the transforms above frame '{name}' form a loop; mend them")

    def _climb(self, names: list[str], stamp: int) -> Matrix:
        """Return the pose of the first of ``names`` in the parent of the last one."""
        pose: Matrix = np.eye(4)
        for name in names:
            link = self._links[name]
            step = link.at(stamp)
            if step is None:
                raise TransformTimeError(
                    f"the transform from '{link.parent}' to '{name}' is not known at "
                    f"{stamp / 1e9:.3f} s, only from {link.span}"
                )
            pose = step @ pose
        return pose

    def _missing(self, target: str, source: str) -> str:
        frames = self.frames
        known = ", ".join(frames) or "none"
        unknown = [f"'{name}'" for name in (target, source) if name not in frames]
        if unknown:
            return f"no transform tells of frame {' and '.join(unknown)}; known are {known}"
        return f"frames '{target}' and '{source}' are not connected; known are {known}"


def fault_of(place: Place) -> str | None:
    """Return why a place is none, with the remedy; None where it is one."""
    numbers = ", ".join(f"{number:.6g}" for number in place)
    if not all(map(isfinite, place)):
        return f"({numbers}), which is not finite, and refused: broadcast finite numbers"
    length = hypot(*place[3:])
    if abs(length - 1.0) > MOST_OFF_UNIT:
        return (
            f"({numbers}), whose quaternion has the length {length:.3g}, and refused: broadcast a "
            "unit quaternion"
        )
    return None


def _matrix(place: Place) -> Matrix:
    pose = np.eye(4)
    pose[:3, :3] = matrix_from_quaternion(np.array(place[3:]))
    pose[:3, 3] = place[:3]
    return pose
