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


_SIM3, _SE3, _COST = ("trajectory", "sim3"), ("trajectory", "se3"), ("cost",)
_RAW, _MEDIAN, _L1 = ("depth", "raw"), ("depth", "median"), ("depth", "l1")

QUANTITIES = (
    Quantity("ate_sim3", (*_SIM3, "ate_sim3", "rmse"), "ATE, Sim(3)", "m", "lower", 4),
    Quantity("scale_sim3", (*_SIM3, "scale_sim3"), "scale, Sim(3)", "", "neither", 4),
    Quantity("ate_se3", (*_SE3, "ate_se3", "rmse"), "ATE, SE(3)", "m", "lower", 4),
    Quantity(
        "rpe_translation_sim3", (*_SIM3, "rpe_translation_sim3", "rmse"),
        "RPE translation, Sim(3)", "m", "lower", 4,
    ),
    Quantity(
        "rpe_rotation_deg", (*_SIM3, "rpe_rotation_deg", "rmse"), "RPE rotation", "°", "lower"
    ),
    Quantity("abs_rel_l1", (*_L1, "abs_rel_l1"), "AbsRel, L1 scale", "", "lower", 4),
    Quantity(
        "abs_rel_median", (*_MEDIAN, "abs_rel_median"), "AbsRel, median scale", "", "lower", 4
    ),
    Quantity("abs_rel_raw", (*_RAW, "abs_rel_raw"), "AbsRel, raw", "", "lower", 4),
    Quantity("depth_rmse_l1", (*_L1, "depth_rmse_l1"), "depth RMSE, L1 scale", "m", "lower"),
    Quantity("delta_1_l1", (*_L1, "delta_1_l1"), "δ < 1.25, L1 scale", "share", "higher", 1),
    Quantity(
        "accuracy_icp", ("cloud", "accuracy_icp", "mean"), "cloud accuracy, ICP", "m", "lower", 4
    ),
    Quantity(
        "completeness_icp", ("cloud", "completeness_icp", "mean"),
        "cloud completeness, ICP", "m", "lower", 4,
    ),
    Quantity(
        "normal_consistency_icp", ("cloud", "normal_consistency_icp", "mean"),
        "normal consistency, ICP", "", "higher",
    ),
    Quantity("f_score_icp", ("cloud", "f_score_icp"), "F-score, ICP", "share", "higher", 1),
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
)  # fmt: skip

BY_NAME = {quantity.name: quantity for quantity in QUANTITIES}
