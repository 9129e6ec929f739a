# SPDX-License-Identifier: Apache-2.0
"""Summaries of a list of errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import EvaluationError


@dataclass(frozen=True)
class ErrorStatistics:
    """Summary of ``count`` errors, in their unit; ``std`` divides by the count."""

    rmse: float
    mean: float
    median: float
    std: float
    min: float
    max: float
    count: int

    @classmethod
    def of(cls, errors: NDArray[np.floating]) -> ErrorStatistics:
        """Summarize errors [n].

        Raises:
            EvaluationError: there are none.

        """
        if not errors.size:
            raise EvaluationError("there are no errors to summarize; at least one is needed")
        return cls(
            rmse=float(np.sqrt(np.mean(np.square(errors)))),
            mean=float(errors.mean()),
            median=float(np.median(errors)),
            std=float(errors.std()),
            min=float(errors.min()),
            max=float(errors.max()),
            count=int(errors.size),
        )


@dataclass(frozen=True)
class MeanMedian:
    """Mean and median of the same numbers."""

    mean: float
    median: float

    @classmethod
    def of(cls, values: NDArray[np.floating]) -> MeanMedian:
        """Summarize values [n]."""
        return cls(float(values.mean()), float(np.median(values)))
