# SPDX-License-Identifier: Apache-2.0
"""The numbers that people ask for, where metrics.json has them, and which way is better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Better = Literal["lower", "higher", "neither"]

MIB = 2**20


@dataclass(frozen=True)
class Quantity:
    """One number of metrics.json.

    Attributes:
        name: short, as in options and tables of files.
        path: keys that lead to it.
        label: for people.
        unit: of the value as it is stored; ``B`` is shown in MiB, ``share`` in percent.
        better: the direction of progress.
        decimals: shown after the point.

    """

    name: str
    path: tuple[str, ...]
    label: str
    unit: str
    better: Better
    decimals: int = 3

    def value(self, metrics: Mapping[str, Any]) -> float | None:
        """Return the number, None where the run did not measure it."""
        place: Any = metrics
        for key in self.path:
            if not isinstance(place, Mapping) or place.get(key) is None:
                return None
            place = place[key]
        value = float(place)
        return None if math.isnan(value) else value

    def show(self, value: float | None) -> str:
        """Return a value with its unit, a dash for none."""
        if value is None:
            return "-"
        if self.unit == "B":
            return f"{value / MIB:.{self.decimals}f} MiB"
        if self.unit == "share":
            return f"{100 * value:.{self.decimals}f} %"
        space = "" if self.unit == "°" else " "
        return f"{value:.{self.decimals}f}{space}{self.unit}".rstrip()


_TRAJECTORY, _DEPTH, _COST = ("trajectory", "sim3"), ("depth", "scale"), ("cost",)

QUANTITIES = (
    Quantity("ate", (*_TRAJECTORY, "ate", "rmse"), "ATE after Sim(3), rmse", "m", "lower", 4),
    Quantity("scale", (*_TRAJECTORY, "scale"), "recovered scale", "", "neither", 4),
    Quantity(
        "ate_se3", ("trajectory", "se3", "ate", "rmse"), "ATE after SE(3), rmse", "m", "lower", 4
    ),
    Quantity(
        "rpe", (*_TRAJECTORY, "rpe_translation", "rmse"), "RPE translation, rmse", "m", "lower", 4
    ),
    Quantity(
        "rpe_rotation",
        (*_TRAJECTORY, "rpe_rotation_deg", "rmse"),
        "RPE rotation, rmse",
        "°",
        "lower",
    ),
    Quantity("absrel", (*_DEPTH, "abs_rel"), "AbsRel, scale aligned", "", "lower", 4),
    Quantity("absrel_raw", ("depth", "raw", "abs_rel"), "AbsRel, raw", "", "lower", 4),
    Quantity("rmse", (*_DEPTH, "rmse"), "depth RMSE, scale aligned", "m", "lower"),
    Quantity("delta1", (*_DEPTH, "delta_1"), "δ < 1.25, scale aligned", "share", "higher", 1),
    Quantity("accuracy", ("cloud", "accuracy", "mean"), "cloud accuracy, mean", "m", "lower", 4),
    Quantity(
        "completeness",
        ("cloud", "completeness", "mean"),
        "cloud completeness, mean",
        "m",
        "lower",
        4,
    ),
    Quantity(
        "normals", ("cloud", "normal_consistency", "mean"), "normal consistency, mean", "", "higher"
    ),
    Quantity("fscore", ("cloud", "f_score"), "F-score", "share", "higher", 1),
    Quantity("latency_p50", (*_COST, "latency", "p50"), "latency p50", "ms", "lower", 1),
    Quantity("latency_p95", (*_COST, "latency", "p95"), "latency p95", "ms", "lower", 1),
    Quantity("fps", (*_COST, "frames_per_second"), "engine, frames/s", "", "higher", 2),
    Quantity("bytes", (*_COST, "cache_peak_bytes"), "cache, peak", "B", "lower", 2),
    Quantity("scratch", (*_COST, "scratch_bytes"), "scratch, peak", "B", "lower", 2),
    Quantity(
        "process_memory", (*_COST, "process_peak_bytes"), "process memory, peak", "B", "lower", 0
    ),
    Quantity(
        "device_memory", (*_COST, "device_peak_bytes"), "device memory, peak", "B", "lower", 0
    ),
    Quantity("dropped", ("live", "dropped_share"), "frames dropped live", "share", "lower", 1),
)

BY_NAME = {quantity.name: quantity for quantity in QUANTITIES}
