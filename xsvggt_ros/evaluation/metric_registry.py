# SPDX-License-Identifier: Apache-2.0
"""The numbers that people ask for, where metrics.json has them, and limits on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from xsvggt_ros.errors import ConfigurationError

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
_DRIFT, _ODOM, _STEPS, _POSES, _MAP_POSES = (
    ("odometry", each) for each in ("drift", "odom_drift", "steps", "poses", "map_poses")
)
_SPANS = (10, 50, 200)
"""Those of ``metrics.odometry``; --help needs no numpy."""
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
    Quantity(
        "ate_se3_online", ("trajectory", "se3_online", "ate_se3_online", "rmse"),
        "ATE, SE(3), scale known then", "m", "lower", 4,
    ),
    Quantity(
        "drift_translation_sim3", (*_DRIFT, "sim3", "drift_translation_sim3"),
        "drift, Sim(3)", "share", "lower", 2,
    ),
    Quantity(
        "drift_translation_se3_online", (*_DRIFT, "se3_online", "drift_translation_se3_online"),
        "drift, scale known then", "share", "lower", 2,
    ),
    Quantity(
        "drift_rotation_deg_per_m", (*_DRIFT, "sim3", "drift_rotation_deg_per_m"),
        "drift of rotation", "°/m", "lower",
    ),
    Quantity(
        "odom_drift_translation_sim3", (*_ODOM, "sim3", "drift_translation_sim3"),
        "drift in odom, Sim(3)", "share", "lower", 2,
    ),
    Quantity(
        "step_nees_sim3", (*_STEPS, "sim3", "step_nees_sim3"), "step NEES/6, Sim(3)", "", "neither",
        2,
    ),
    *(
        Quantity(
            f"pose_nees_{frames}_sim3", (*_POSES, "sim3", f"pose_nees_{frames}_sim3"),
            f"NEES/6 of poses over {frames} frames, Sim(3)", "", "neither", 2,
        )
        for frames in _SPANS
    ),
    Quantity(
        "map_pose_nees_sim3", (*_MAP_POSES, "sim3", "map_pose_nees_sim3"),
        "NEES/6 of poses in the map, Sim(3)", "", "neither", 2,
    ),
    Quantity(
        "map_pose_coverage_sim3", (*_MAP_POSES, "sim3", "map_pose_coverage_sim3"),
        "poses in the map within 95 %, Sim(3)", "share", "neither", 1,
    ),
    Quantity(
        "step_coverage_sim3", (*_STEPS, "sim3", "step_coverage_sim3"),
        "steps within 95 %, Sim(3)", "share", "neither", 1,
    ),
    Quantity(
        "step_error_max_sim3", (*_STEPS, "sim3", "step_error_max_sim3"),
        "largest step error, Sim(3)", "m", "lower", 4,
    ),
    Quantity(
        "step_error_max_deg", (*_STEPS, "sim3", "step_error_max_deg"), "largest step error", "°",
        "lower",
    ),
    Quantity(
        "step_error_max_sigmas_sim3", (*_STEPS, "sim3", "step_error_max_sigmas_sim3"),
        "largest step error, Sim(3)", "sigma", "lower", 1,
    ),
    Quantity("joins", ("odometry", "joined"), "joins", "", "neither", 0),
    Quantity("joins_refused", ("odometry", "joins_refused"), "refused joins", "", "lower", 0),
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


def limits_named(most: Sequence[str], least: Sequence[str]) -> tuple[Threshold, ...]:
    """Return the limits of ``--max`` and ``--min``, each as NAME=VALUE.

    Raises:
        ConfigurationError: no number, or an unknown name.

    """
    limits = []
    asked: dict[Literal["max", "min"], Sequence[str]] = {"max": most, "min": least}
    for sense, texts in asked.items():
        for text in texts:
            name, equals, value = text.partition("=")
            try:
                number = float(value)
            except ValueError:
                equals = ""
            if not equals:
                raise ConfigurationError(
                    f"--{sense} {text} is not NAME=VALUE, such as --{sense} ate_sim3=0.05"
                )
            limits.append(Threshold(name, sense, number))
    return tuple(limits)


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


def check_limits(metrics: Mapping[str, Any], thresholds: tuple[Threshold, ...]) -> list[Verdict]:
    """Compare the numbers of a run with limits."""
    return [Verdict(each, BY_NAME[each.quantity].value(metrics)) for each in thresholds]
