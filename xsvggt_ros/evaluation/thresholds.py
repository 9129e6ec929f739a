# SPDX-License-Identifier: Apache-2.0
"""Limits that a run must keep, for continuous integration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.evaluation.catalogue import BY_NAME, Quantity

FAILED = 3
"""Exit code of a run that broke a limit."""


@dataclass(frozen=True)
class Threshold:
    """A limit on one quantity of the catalogue; ``limit`` is in the unit of metrics.json."""

    quantity: str
    sense: Literal["max", "min"]
    limit: float

    def __post_init__(self) -> None:
        if self.quantity not in BY_NAME:
            raise ConfigurationError(
                f"there is no quantity '{self.quantity}'; choose one of {', '.join(BY_NAME)}"
            )
        if not math.isfinite(self.limit):
            raise ConfigurationError(
                f"the limit of {self.quantity} is {self.limit}; it must be a finite number"
            )


@dataclass(frozen=True)
class Verdict:
    """Whether a run kept a limit; ``value`` is None where it did not measure the quantity."""

    threshold: Threshold
    value: float | None

    @property
    def quantity(self) -> Quantity:
        """What is limited."""
        return BY_NAME[self.threshold.quantity]

    @property
    def kept(self) -> bool:
        """Whether the limit holds; what was not measured breaks it, and so does NaN."""
        if self.value is None:
            return False
        limit = self.threshold.limit
        return self.value <= limit if self.threshold.sense == "max" else self.value >= limit

    @property
    def words(self) -> str:
        """The verdict in one line."""
        bound = "at most" if self.threshold.sense == "max" else "at least"
        value = "was not measured" if self.value is None else f"is {self.quantity.show(self.value)}"
        limit = self.quantity.show(self.threshold.limit)
        return f"{self.quantity.label} {value}; {bound} {limit} is allowed"

    def summary(self) -> dict[str, Any]:
        """Return the verdict in types that JSON holds."""
        return {**asdict(self.threshold), "value": self.value, "kept": self.kept}


def judge_limits(metrics: Mapping[str, Any], thresholds: tuple[Threshold, ...]) -> list[Verdict]:
    """Hold the numbers of a run against limits."""
    return [Verdict(each, BY_NAME[each.quantity].value(metrics)) for each in thresholds]
