# SPDX-License-Identifier: Apache-2.0
"""A bounded map of coloured points: one mean per voxel, each frame at the price of its own points.

Memory for all voxels is laid out at the beginning and never grows. When the map is full, a batch of
voxels goes, so that making room is cheap for each new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.geometry import voxel_table
from xsvggt_ros.geometry.voxel_table import MOST_SLOTS, REACH, Keys, Slots, VoxelTable, lowest

Points = NDArray[np.float32]
Colors = NDArray[np.uint8]
Confidences = NDArray[np.float32]
Eviction = Literal["age", "count"]

EVICTIONS: tuple[Eviction, ...] = ("age", "count")
BLOCK = 1 << 16
"""Points that are taken at once; a full map has room for so many more while it takes them.

Larger blocks measure slower: their temporary arrays are fresh memory each time.
"""

MOST_POINTS = MOST_SLOTS - BLOCK
_BATCH_SHARE = 256
"""One voxel in so many goes when room is made."""

_MOST_WEIGHT = np.float32(4096)
"""Points that a mean counts at most; beyond, old ones fade, so that a map follows its poses."""

_COLUMNS = 8
_RED, _BLUE, _CONFIDENCE, _COUNT = 3, 5, 6, 7
_CHUNK = 1 << 15
"""Voxels whose temporary arrays fit a processor's cache."""

_MOST_VOTES = 127


@dataclass(frozen=True, slots=True)
class VoxelSettings:
    """How a map is bounded.

    Attributes:
        voxel_size: edge of a voxel, in the unit of the points.
        max_points: most voxels that are held, each of which is one point of the map.
        eviction: what goes first when the map is full; ``age``: what was longest not seen,
            ``count``: what was seen in fewest points, those of the newest frame aside.

    Raises:
        ConfigurationError: a size that is not positive, a bound out of range.

    """

    voxel_size: float = 0.05
    max_points: int = 1_000_000
    eviction: Eviction = "age"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.voxel_size) and self.voxel_size > 0):
            raise ConfigurationError(
                f"map.voxel_size is {self.voxel_size}; it must be a positive length, such as 0.05"
            )
        if not 0 < self.max_points <= MOST_POINTS:
            raise ConfigurationError(
                f"map.max_points is {self.max_points}; it must be from 1 to {MOST_POINTS}"
            )
        if self.eviction not in EVICTIONS:
            raise ConfigurationError(
                f"map.eviction is '{self.eviction}'; choose {' or '.join(EVICTIONS)}"
            )


class VoxelMap:
    """Means of position, colour and confidence of the points in each voxel.

    Points lie in one frame, of the caller's choice. Not thread-safe.

    Attributes:
        evicted: voxels dropped for want of room since the map was made or cleared.
        removed: voxels taken out since then because frames saw through them.
        outside: points refused since then because the grid does not reach them.

    """

    def __init__(self, settings: VoxelSettings | None = None) -> None:
        self.settings = settings or VoxelSettings()
        capacity = self.settings.max_points + BLOCK
        self._table = VoxelTable(capacity)
        # Sums over points: offsets within the voxel in its own size, colour, confidence, and 1.
        self._sums = np.zeros((_COLUMNS, capacity), np.float32)
        self._seen = np.zeros(capacity, np.int32)
        # Frames in a row that saw through each voxel.
        self._votes = np.zeros(capacity, np.uint8)
        self._next_visited = 0
        self._batch = max(1, self.settings.max_points // _BATCH_SHARE)
        self._frame = 0
        self.evicted = 0
        self.removed = 0
        self.outside = 0

    def __len__(self) -> int:
        """Return the number of voxels held."""
        return len(self._table)

    @property
    def nbytes(self) -> int:
        """Bytes allocated; what was never touched takes none of the machine's memory."""
        own = self._sums.nbytes + self._seen.nbytes + self._votes.nbytes
        return self._table.nbytes + own

    def clear(self) -> None:
        """Forget every point."""
        self._sums[:, : len(self)] = 0
        self._votes[: len(self)] = 0
        self._table.clear()
        self._frame = self._next_visited = 0
        self.evicted = self.removed = self.outside = 0

    def add(self, points: Points, colors: Colors, confidence: Confidences) -> None:
        """Take in the points of one frame.

        Args:
            points: float32 [n, 3]; those that are not finite count as outside.
            colors: uint8 [n, 3], RGB.
            confidence: float32 [n].

        """
        self._frame += 1
        for start in range(0, len(points), BLOCK):
            block = slice(start, start + BLOCK)
            self._add_block(points[block], colors[block], confidence[block])
            self._make_room()

    def visit(self, most: int) -> Iterator[slice]:
        """Yield the slots of at most ``most`` voxels, of those whose turn it is.

        They may be removed in between: the last slots come last, so that none comes twice.
        """
        count = len(self)
        start = self._next_visited if self._next_visited < count else 0
        end = start + min(most, count)
        self._next_visited = end if end < count else end - count
        if end > count:
            yield slice(0, end - count)
        yield slice(start, min(end, len(self)))

    def keys(self) -> Keys:
        """Return the keys of all voxels, int64 [n], as :mod:`voxel_table` packs them."""
        keys: Keys = self._table.keys[: len(self)].copy()
        return keys

    def positions(self, part: slice) -> Points:
        """Return the points of some slots, float32 [3, k]."""
        return np.stack(self._positions(part, np.reciprocal(self._sums[_COUNT, part])))

    def vote(
        self, part: slice, free: NDArray[np.int64], met: NDArray[np.int64], enough: int
    ) -> int:
        """Take in what one frame says of voxels, and remove those that enough frames saw through.

        Slots change hands where voxels are removed.

        Args:
            part: what :meth:`visit` yielded.
            free: int64 [k], which voxels of it the frame saw through, as places in it.
            met: int64 [m], where it saw a surface; earlier frames count no longer.
            enough: frames in a row after which a voxel goes.

        Returns:
            How many went.

        """
        votes = self._votes[part]
        votes[met] = 0
        votes[free] += votes[free] < _MOST_VOTES
        going = free[votes[free] >= enough] + part.start
        if len(going):
            self._remove(going)
            self.removed += len(going)
        return len(going)

    def means(self) -> Iterator[tuple[Points, Colors, Confidences]]:
        """Yield all points of the map in chunks: float32 [k, 3], uint8 RGB [k, 3], float32 [k]."""
        for start in range(0, len(self), _CHUNK):
            part = slice(start, min(start + _CHUNK, len(self)))
            sums = self._sums[:, part]
            share = 1 / sums[_COUNT]
            yield (
                np.stack(self._positions(part, share), axis=1),
                np.rint(sums[_RED : _BLUE + 1] * share).astype(np.uint8).T,
                sums[_CONFIDENCE] * share,
            )

    def pack(self, rows: NDArray[np.float32]) -> None:
        """Fill ``rows`` [len(self), 5] with x, y, z, rgb and confidence.

        rgb holds 0x00RRGGBB in the bits of a float32.
        """
        for start in range(0, len(self), _CHUNK):
            part = slice(start, min(start + _CHUNK, len(self)))
            self._pack_part(part, rows[part])

    def _pack_part(self, part: slice, rows: NDArray[np.float32]) -> None:
        sums = self._sums[:, part]
        share = 1 / sums[_COUNT]
        for axis, values in enumerate(self._positions(part, share)):
            rows[:, axis] = values
        rounded = (sums[_RED : _BLUE + 1] * share + np.float32(0.5)).astype(np.uint32)
        rows.view(np.uint32)[:, 3] = rounded[0] << 16 | rounded[1] << 8 | rounded[2]
        np.multiply(sums[_CONFIDENCE], share, out=rows[:, 4])

    def _positions(self, part: slice, share: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        corners = voxel_table.unpack(self._table.keys[part])
        size = self.settings.voxel_size
        return [
            ((corners[axis] + self._sums[axis, part] * share) * size).astype(np.float32)
            for axis in range(3)
        ]

    def _add_block(self, points: Points, colors: Colors, confidence: Confidences) -> None:
        scaled = np.ascontiguousarray(points.T) * np.float32(1 / self.settings.voxel_size)
        if not (scaled.min() >= -REACH and scaled.max() < REACH):  # so that NaN counts, too
            inside: NDArray[np.bool_] = np.all((scaled >= -REACH) & (scaled < REACH), axis=0)
            self.outside += len(inside) - int(np.count_nonzero(inside))
            scaled, colors, confidence = scaled[:, inside], colors[inside], confidence[inside]
        corners = np.floor(scaled)
        slots = self._slots(voxel_table.pack(corners.astype(np.int64)))
        columns = (*(scaled - corners), *colors.T, confidence)
        for column, values in zip(self._sums, columns, strict=False):
            np.add.at(column, slots, np.ascontiguousarray(values, np.float32))
        np.add.at(self._sums[_COUNT], slots, np.float32(1))
        self._seen[slots] = self._frame
        self._votes[slots] = 0
        self._fade(slots)

    def _slots(self, keys: Keys) -> Slots:
        """Return the slot of each key; neighbours in an image often share theirs."""
        heads = np.empty(len(keys), bool)
        heads[:1] = True
        np.not_equal(keys[1:], keys[:-1], out=heads[1:])
        slots = self._table.add(keys[heads])
        return slots if heads.all() else slots[np.cumsum(heads) - 1]

    def _fade(self, slots: Slots) -> None:
        counts = self._sums[_COUNT]
        heavy = np.unique(slots[counts.take(slots) > _MOST_WEIGHT])
        if len(heavy):
            self._sums[:, heavy] *= _MOST_WEIGHT / counts[heavy]

    def _make_room(self) -> None:
        excess = len(self) - self.settings.max_points
        if excess <= 0:
            return
        going = lowest(self._scores(), min(len(self), excess + self._batch))
        self._remove(going)
        self.evicted += len(going)

    def _remove(self, going: Slots) -> None:
        holes, movers = self._table.remove(going)
        self._sums[:, holes] = self._sums[:, movers]
        self._seen[holes] = self._seen[movers]
        self._votes[holes] = self._votes[movers]
        after = slice(len(self), len(self) + len(going))
        self._sums[:, after] = 0
        self._votes[after] = 0

    def _scores(self) -> NDArray[np.generic]:
        seen = self._seen[: len(self)]
        if self.settings.eviction == "age":
            return seen
        counts: NDArray[np.generic] = self._sums[_COUNT, : len(self)].copy()
        counts[seen == self._frame] += _MOST_WEIGHT
        return counts
