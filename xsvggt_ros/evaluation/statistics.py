# SPDX-License-Identifier: Apache-2.0
"""The usual numbers over a list of errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import EvaluationError


@dataclass(frozen=True)
class ErrorStatistics:
    """Numbers over ``count`` errors, in the errors' unit; ``std`` divides by the count."""

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
