# SPDX-License-Identifier: Apache-2.0
"""How many of the 16 bits of its pixels a camera uses; no message says."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

FULL_SCALE = 65535
LEAST_USED = (FULL_SCALE + 1) // 8
"""A camera that has not reached an eighth of the range has fewer bits than its pixels."""

_DEPTHS = (8, 10, 12, 14, 16)
"""Bits that sensors have."""


_HOT_PIXELS = 5000
"""Pixels of which one may be brighter than the sensor can measure: a hot one, or none at all."""


def _brightest(pixels: NDArray[Any]) -> int:
    """Return the largest value, but for those of hot pixels."""
    values = pixels.ravel()
    odd = values.size // _HOT_PIXELS
    most = int(values.max(initial=0))
    # Counting is for images whose bits only a few pixels decide about.
    if not odd or int(np.count_nonzero(values > most // 4)) > odd:
        return most
    return int(np.partition(values, values.size - 1 - odd)[values.size - 1 - odd])


class BitsInUse:
    """Follows the largest value of a camera's 16-bit images through a session.

    A 10-bit camera whose values were taken for 16-bit ones would reach the network as four levels
    of grey.
    """

    def __init__(self) -> None:
        self._most = 0
        self._newest = 0
        self._said = 0

    def begin(self) -> None:
        """Take note that a session began with the newest image."""
        self._most = self._newest

    def full_scale(self, pixels: NDArray[Any]) -> int:
        """Return the value of white, by these uint16 pixels and all before them."""
        self._newest = _brightest(pixels)
        self._most = max(self._most, self._newest)
        bits = next(depth for depth in _DEPTHS if self._most < 1 << depth)
        if 0 < self._most < LEAST_USED and bits != self._said:
            self._said = bits
            logger.warning(
                "16-bit images reach no more than %d of %d so far: they are read as %d-bit "
                "ones; shift the driver's pixels up if that is wrong",
                self._most, FULL_SCALE, bits,
            )  # fmt: skip
        return (1 << bits) - 1
