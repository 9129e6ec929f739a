# SPDX-License-Identifier: Apache-2.0
"""Means over streams with intervals from resampling them, for the benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
SHARE = 95
"""Percent of the resamples that lie within an interval."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number over streams, and its interval."""

    value: float
    low: float
    high: float

    def show(self, digits: int = 2) -> str:
        """Return it as it stands in tables."""
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def resampled(statistic: Callable[[NDArray[np.intp]], Array], count: int) -> Estimate:
    """Return a statistic of ``count`` streams with the interval from resampling them.

    ``statistic`` maps indices of streams, [resamples, count], to [resamples].
    """
    whole = np.arange(count)[None]
    drawn = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
    edge = (1 - SHARE / 100) / 2
    low, high = np.quantile(statistic(drawn), [edge, 1 - edge])
    return Estimate(float(statistic(whole)[0]), float(low), float(high))


def mean_of(values: Array) -> Estimate:
    """Return the mean of values [streams]."""
    return resampled(lambda drawn: values[drawn].mean(axis=1), len(values))


def difference_of(values: Array, others: Array) -> Estimate:
    """Return by how much values are larger than others of the same streams, in the mean."""
    return mean_of(values - others)


def ratio_of(values: Array, others: Array) -> Estimate:
    """Return how many times as large values are as others of the same streams, in the mean."""
    return resampled(
        lambda drawn: values[drawn].mean(axis=1) / others[drawn].mean(axis=1), len(values)
    )
