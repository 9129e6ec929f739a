# SPDX-License-Identifier: Apache-2.0
"""Voxels as integers: three indices of 21 bits in one key, and where a key goes in a hash table."""

from __future__ import annotations

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
