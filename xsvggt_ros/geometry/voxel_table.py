# SPDX-License-Identifier: Apache-2.0
"""Keys of voxels, a hash table from them to dense slot numbers, and which voxels go first.

Open addressing with linear probing. Removing a key puts in again what stands behind it, so that no
marks of removed keys pile up, and the table never has to be laid out again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

AXIS_BITS = 21
REACH = 1 << (AXIS_BITS - 1)
"""Voxels that the grid reaches from its origin, along each axis and both ways."""

_AXIS_MASK = (1 << AXIS_BITS) - 1
_ORIGIN = (REACH << 2 * AXIS_BITS) + (REACH << AXIS_BITS) + REACH
"""The key of voxel (0, 0, 0); added to make every index positive."""

_FOLDS = np.uint64(32), np.uint64(29)
_FACTORS = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)

Keys = NDArray[np.int64]


def pack(indices: NDArray[np.int64]) -> Keys:
    """Return the keys of voxel ``indices`` [3, n], each from -REACH to REACH - 1."""
    keys: Keys = indices[0] << 2 * AXIS_BITS
    keys += indices[1] << AXIS_BITS
    keys += indices[2]
    keys += _ORIGIN
    return keys


def unpack(keys: Keys) -> NDArray[np.int64]:
    """Return the voxel indices [3, n] of ``keys``."""
    axes = keys >> 2 * AXIS_BITS, (keys >> AXIS_BITS) & _AXIS_MASK, keys & _AXIS_MASK
    return np.stack(axes) - REACH


def spread(keys: Keys) -> NDArray[np.uint64]:
    """Return hashes whose top bits look random.

    Two rounds, because after one the voxels of a wall crowd in a quarter of the table.
    """
    hashes = keys.view(np.uint64)
    for fold, factor in zip(_FOLDS, _FACTORS, strict=True):
        hashes = hashes ^ (hashes >> fold)
        hashes *= factor
    return hashes


_SAMPLE = 8192
_SPARE = 1.25
"""A threshold from a sample is set this much higher, so that it seldom falls short."""


def lowest(scores: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Return places of at least ``count`` of the lowest ``scores`` [n], and of few more.

    They are found by a threshold from a sample, because sorting millions takes too long. Of equal
    scores the first go.
    """
    if count >= len(scores):
        return np.arange(len(scores))
    threshold = _threshold(scores, count)
    below = np.flatnonzero(scores < threshold)
    if len(below) >= count:
        return below
    among = np.flatnonzero(scores == threshold)
    if len(below) + len(among) >= count:
        return np.concatenate([below, among[: count - len(below)]])
    return np.argpartition(scores, count - 1)[:count]


def _threshold(scores: NDArray[Any], count: int) -> Any:
    if len(scores) <= _SAMPLE:
        return _ranked(scores, count)
    # An odd stride does not fall into step with rows of an image.
    sample = scores[:: len(scores) // _SAMPLE | 1]
    place = min(int(_SPARE * count / len(scores) * len(sample)) + 1, len(sample) - 1)
    return _ranked(sample, place)


def _ranked(scores: NDArray[Any], place: int) -> Any:
    return np.partition(scores, place)[place]


Slots = NDArray[np.int64]

MOST_SLOTS = 1 << 24
_FILL = 1.9
"""Buckets for each key at the least; with 2 million voxels and a block, 2 would need a bit more."""
_EMPTY = np.int32(0)
_GONE = np.int32(1)
"""Stands in a bucket only while keys are being removed."""
_FIRST = 2
"""Slot 0 as the word in a bucket."""


class VoxelTable:
    """Gives each voxel a slot; slots are dense, from 0 to ``len(table) - 1``.

    Memory is that of ``capacity`` from the beginning, but the operating system hands it out as it
    is touched.

    Attributes:
        keys: int64 [capacity], the key in each slot.

    """

    def __init__(self, capacity: int) -> None:
        """Make an empty table; raise ValueError for more than ``MOST_SLOTS`` slots."""
        if not 0 < capacity <= MOST_SLOTS:
            raise ValueError(f"capacity {capacity} must be from 1 to {MOST_SLOTS}")
        bits = (int(_FILL * capacity)).bit_length()
        self.capacity = capacity
        self.keys: Keys = np.zeros(capacity, np.int64)
        self._bucket = np.zeros(capacity, np.int32)
        self._words = np.zeros(1 << bits, np.int32)
        self._mask = (1 << bits) - 1
        self._home_shift = np.uint64(64 - bits)
        self._count = 0

    def __len__(self) -> int:
        """Return the number of keys."""
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return self.keys.nbytes + self._bucket.nbytes + self._words.nbytes

    def clear(self) -> None:
        """Remove every key."""
        self._words.fill(_EMPTY)
        self._count = 0

    def slots_of(self, keys: Keys) -> Slots:
        """Return the slot of each of ``keys`` [n], -1 where it has none."""
        bucket = self._homes(keys)
        slots = self._slots_at(bucket)
        found = self._holds(slots, keys)
        pending = np.flatnonzero(~found & (slots >= 0))
        slots[~found] = -1
        bucket, keys = bucket[pending], keys[pending]
        while len(pending):
            bucket = (bucket + 1) & self._mask
            met = self._slots_at(bucket)
            found = self._holds(met, keys)
            slots[pending[found]] = met[found]
            on = np.flatnonzero(~found & (met >= 0))
            pending, bucket, keys = pending[on], bucket[on], keys[on]
        return slots

    def add(self, keys: Keys) -> Slots:
        """Return the slot of each of ``keys`` [n]; those that are new get the next ones.

        Keys may repeat. The table must have room for those that are new.
        """
        slots = self.slots_of(keys)
        missing = np.flatnonzero(slots < 0)
        if len(missing):
            slots[missing] = self._insert(keys[missing])
        return slots

    def remove(self, slots: Slots) -> tuple[Slots, Slots]:
        """Remove the keys in ``slots`` (distinct) and fill the holes with the last slots.

        Returns holes and movers: what was in slot ``movers[i]`` is now in slot ``holes[i]``.
        """
        self._replace(self._take_out(self._bucket[slots].astype(np.int64)))
        count = self._count - len(slots)
        holes = slots[slots < count]
        stays = np.ones(len(slots), bool)
        stays[slots[slots >= count] - count] = False
        movers = np.flatnonzero(stays) + count
        self.keys[holes] = self.keys[movers]
        self._settle(self._bucket[movers], holes)
        self._count = count
        return holes, movers

    def _homes(self, keys: Keys) -> Slots:
        homes: Slots = (spread(keys) >> self._home_shift).astype(np.int64)
        return homes

    def _slots_at(self, bucket: Slots) -> Slots:
        """Return the slot in each bucket, negative where it is empty."""
        slots = self._words.take(bucket).astype(np.int64)
        slots -= _FIRST
        return slots

    def _holds(self, slots: Slots, keys: Keys) -> NDArray[np.bool_]:
        """Return where ``slots`` hold ``keys``."""
        same: NDArray[np.bool_] = self.keys.take(slots, mode="wrap") == keys
        same &= slots >= 0
        return same

    def _insert(self, keys: Keys) -> Slots:
        """Put in ``keys``, of which none is in the table, though some may be alike."""
        slots = np.empty(len(keys), np.int64)
        pending, bucket = np.arange(len(keys)), self._homes(keys)
        while len(pending):
            first = self._claim(bucket)
            new = np.arange(self._count, self._count + len(first))
            self._count += len(first)
            self.keys[new] = keys[first]
            self._settle(bucket[first], new)
            # Those that came too late look again: what took their bucket may be their own key.
            met = self._slots_at(bucket)
            found = self._holds(met, keys)
            slots[pending[found]] = met[found]
            on = np.flatnonzero(~found)
            pending, keys = pending[on], keys[on]
            bucket = (bucket[on] + 1) & self._mask
        return slots

    def _take_out(self, buckets: Slots) -> Slots:
        """Empty ``buckets`` and all behind them up to the next gap; return the slots behind."""
        self._words[buckets] = _GONE
        emptied, behind = [buckets], [self._words[:0]]
        while len(buckets):
            buckets = (buckets + 1) & self._mask
            words = self._words.take(buckets)
            # A bucket that is gone already has all behind it taken out on its own account.
            on = words > _GONE
            buckets = buckets[on]
            self._words[buckets] = _GONE
            emptied.append(buckets)
            behind.append(words[on])
        self._words[np.concatenate(emptied)] = _EMPTY
        return np.concatenate(behind).astype(np.int64) - _FIRST

    def _replace(self, slots: Slots) -> None:
        """Put the keys in ``slots`` into buckets of the table again."""
        bucket = self._homes(self.keys[slots])
        while len(slots):
            first = self._claim(bucket)
            self._settle(bucket[first], slots[first])
            on = np.ones(len(slots), bool)
            on[first] = False
            slots, bucket = slots[on], (bucket[on] + 1) & self._mask

    def _claim(self, bucket: Slots) -> Slots:
        """Return who wants each empty bucket first; all that are returned must be settled next."""
        free = np.flatnonzero(self._words.take(bucket) == _EMPTY)
        wanted = bucket[free]
        marks = np.arange(len(free), dtype=np.int32)
        self._words[wanted[::-1]] = marks[::-1]
        first: Slots = free[self._words.take(wanted) == marks]
        return first

    def _settle(self, bucket: NDArray[np.signedinteger], slots: Slots) -> None:
        self._bucket[slots] = bucket
        self._words[bucket] = slots + _FIRST
