# SPDX-License-Identifier: Apache-2.0
"""Seeded noise of the plane, the same on every machine: a table read at hashed cells."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

_SIZE = 1 << 16
_COLUMN, _ROW, _SEED = 73856093, 19349663, 83492791


@cache
def _table(device: torch.device) -> Tensor:
    values = np.random.default_rng(0x5EED).random(_SIZE, np.float32)
    return torch.from_numpy(values).to(device)


def _looked_up(column: Tensor, row: Tensor, seed: Tensor) -> Tensor:
    return _table(column.device)[(column ^ row ^ seed) & (_SIZE - 1)]


def cell_noise(column: Tensor, row: Tensor, seed: Tensor) -> Tensor:
    """Return a number in [0, 1) for each cell; all arguments are whole numbers as float32."""
    return _looked_up(column.long() * _COLUMN, row.long() * _ROW, seed.long() * _SEED)


def smooth_noise(u: Tensor, v: Tensor, seed: Tensor) -> Tensor:
    """Return noise in [0, 1) that changes over a distance of about 1 in ``u`` and ``v``."""
    left, below = u.floor(), v.floor()
    a, b = u - left, v - below
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    column, row, key = left.long() * _COLUMN, below.long() * _ROW, seed.long() * _SEED
    key_low, key_high = row ^ key, (row + _ROW) ^ key
    right, nothing = column + _COLUMN, torch.zeros((), dtype=torch.long, device=u.device)
    low = torch.lerp(_looked_up(column, key_low, nothing), _looked_up(right, key_low, nothing), a)
    high = torch.lerp(
        _looked_up(column, key_high, nothing), _looked_up(right, key_high, nothing), a
    )
    return torch.lerp(low, high, b)


def cloudy_noise(u: Tensor, v: Tensor, seed: Tensor) -> Tensor:
    """Return smooth noise with a finer octave, in [0, 1)."""
    whole = smooth_noise(u, v, seed)
    return (2 * whole + smooth_noise(2.53 * u, 2.53 * v, seed + 1)) / 3
