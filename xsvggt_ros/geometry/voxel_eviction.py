# SPDX-License-Identifier: Apache-2.0
"""Which voxels go when a map is full."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SAMPLE = 8192
_SPARE = 1.25
"""A threshold from a sample is set this much higher, so that it seldom falls short."""


def lowest(scores: NDArray[np.generic], count: int) -> NDArray[np.int64]:
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


def _threshold(scores: NDArray[np.generic], count: int) -> np.generic:
    if len(scores) <= _SAMPLE:
        return np.partition(scores, count)[count]
    # An odd stride does not fall into step with rows of an image.
    sample = scores[:: len(scores) // _SAMPLE | 1]
    place = min(int(_SPARE * count / len(scores) * len(sample)) + 1, len(sample) - 1)
    threshold: np.generic = np.partition(sample, place)[place]
    return threshold
