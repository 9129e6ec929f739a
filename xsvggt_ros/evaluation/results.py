# SPDX-License-Identifier: Apache-2.0
"""The files of one evaluation in a directory of its own, and two such directories compared."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from xsvggt_ros.errors import ConfigurationError, EvaluationError, OutputError, SourceError
from xsvggt_ros.evaluation.evaluation import SCHEMA, SERIES, Evaluation
from xsvggt_ros.evaluation.metric_registry import (
    BY_NAME,
    QUANTITIES,
    Quantity,
    Threshold,
    check_limits,
)
from xsvggt_ros.evaluation.report import page, summary
from xsvggt_ros.geometry.files import (
    Trajectory,
    replacing,
    require_writable,
    write_each,
    write_kitti,
    write_ply,
    write_tum,
)

METRICS, CONFIG, REPORT, SUMMARY = "metrics.json", "config.yaml", "report.html", "summary.md"


def write_evaluation(
    evaluation: Evaluation, directory: Path, thresholds: tuple[Threshold, ...] = ()
) -> Evaluation:
    """Write all results of a run into ``directory``; return the run with its limits checked.

    Small files come first, since they still fit on a full disk.

    Args:
        evaluation: the finished run.
        directory: of the run.
        thresholds: limits to check.

    Raises:
        PartlyWrittenError: something cannot be written; the rest is.

    """
    evaluation = with_verdicts(evaluation, thresholds)
    cloud = evaluation.session.recording.cloud
    writers: dict[str, Callable[[], object]] = {
        METRICS: lambda: write_json(directory / METRICS, evaluation.metrics()),
        CONFIG: lambda: write_text(directory / CONFIG, yaml_text(evaluation.request.resolved())),
        SUMMARY: lambda: write_text(directory / SUMMARY, summary(evaluation)),
        **_paths(evaluation, directory),
        "frames.csv": lambda: _write_frames(evaluation, directory / "frames.csv"),
        REPORT: lambda: write_text(directory / REPORT, page(evaluation)),
        "cloud.ply": lambda: write_ply(directory / "cloud.ply", *cloud.arrays()),
    }
    write_each({directory / name: write for name, write in writers.items()})
    return evaluation


def with_verdicts(evaluation: Evaluation, thresholds: tuple[Threshold, ...]) -> Evaluation:
    """Return a run with its limits checked."""
    return replace(evaluation, verdicts=tuple(check_limits(evaluation.metrics(), thresholds)))


def _paths(evaluation: Evaluation, directory: Path) -> dict[str, Callable[[], object]]:
    """Return the writers of the ground truth, and of the estimate in map and first camera frame."""
    session = evaluation.session
    stamps = session.recording.stamps
    trajectories = {"trajectory.tum": session.recording.trajectory()}
    if session.posed:
        posed = [stamps[index] for index in session.posed]
        trajectories["truth.tum"] = Trajectory.from_poses(posed, session.true)
        if score := evaluation.scores.trajectory.get("sim3"):
            moved = list(score.truth_from_estimate.poses(session.matched()[0]))
            trajectories["trajectory_aligned.tum"] = Trajectory.from_poses(posed, moved)
    writers: dict[str, Callable[[], object]] = {
        name: partial(write_tum, directory / name, each) for name, each in trajectories.items()
    }
    kitti = "trajectory.kitti"
    return {**writers, kitti: partial(write_kitti, directory / kitti, session.estimated)}


def _write_frames(evaluation: Evaluation, path: Path) -> None:
    """Write what each frame cost, one line each."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["frame", *SERIES])
    columns = [evaluation.costs.series(name).tolist() for name in SERIES]
    for index, row in enumerate(zip(*columns, strict=True)):
        writer.writerow([index, *(f"{value:.9g}" for value in row)])
    write_text(path, stream.getvalue())


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON; NaN and infinity, which JSON lacks, become null."""
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def yaml_text(value: dict[str, Any]) -> str:
    """Return settings as YAML."""
    plain = json.loads(json.dumps(value))
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))


def write_text(path: Path, text: str) -> None:
    """Write a text atomically."""
    with replacing(path) as stream:
        stream.write(text.encode("utf-8"))


LATEST = "latest"


def new_directory(results: Path, source: str, now: datetime) -> Path:
    """Make a new directory for a run.

    Args:
        results: its parent.
        source: name of what is evaluated, the stem of its name.
        now: the time in its name.

    Raises:
        OutputError: none can be made there.

    """
    require_writable(results)
    stem = f"{_file_name(source)}_{now:%Y-%m-%d_%H-%M-%S}"
    for attempt in range(1, 1000):
        directory = results / (stem if attempt == 1 else f"{stem}_{attempt}")
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise OutputError(
                f"'{directory}' cannot be made ({error.strerror or error}); choose another --output"
            ) from error
        return directory
    raise OutputError(f"'{results / stem}' and 998 more are taken; choose another --output")


def link_latest(directory: Path) -> Path | None:
    """Let ``latest`` beside ``directory`` point to it; None where there can be no links."""
    link = directory.parent / LATEST
    partial = directory.parent / f".{LATEST}.{os.getpid()}"
    if link.exists() and not link.is_symlink():
        return None  # not ours
    try:
        partial.unlink(missing_ok=True)
        partial.symlink_to(directory.name, target_is_directory=True)
        partial.replace(link)
    except OSError:
        return None
    return link


def _file_name(source: str) -> str:
    """Return the end of a source's name, fit for a directory."""
    name = re.sub(r"[^A-Za-z0-9._@+-]+", "-", Path(source).name).strip("-.")
    return name[-60:] or "source"


MACHINE_DEPENDENT = frozenset(
    ("latency_p50", "latency_p95", "fps", "process_memory", "device_memory", "dropped")
)
"""Quantities that change from machine to machine and from run to run."""

SAME = 1e-9
"""Relative change up to which two values count as the same."""


@dataclass(frozen=True)
class Change:
    """One quantity of two runs; None where a run did not measure it."""

    quantity: Quantity
    before: float | None
    after: float | None

    @property
    def relative(self) -> float | None:
        """The change as a share of the first value; None where it is undefined."""
        if self.before is None or self.after is None or self.before == 0:
            return None
        return (self.after - self.before) / abs(self.before)

    @property
    def worse(self) -> float:
        """How much worse it got, as a share; below 0 = better, infinite = no longer measured."""
        if self.quantity.better == "neither" or self.before is None:
            return 0.0
        if self.after is None:
            return float("inf")
        off = self.after - self.before
        off = -off if self.quantity.better == "higher" else off
        return off / abs(self.before) if self.before else float("inf") if off > 0 else 0.0

    @property
    def verdict(self) -> Literal["better", "worse", "same", ""]:
        """The direction of the change; empty where there is no better or worse."""
        if self.quantity.better == "neither" or self.before is None or self.after is None:
            return ""
        if abs(self.worse) <= SAME:
            return "same"
        return "worse" if self.worse > 0 else "better"


@dataclass(frozen=True)
class Comparison:
    """Two runs.

    Attributes:
        names: of the two.
        changes: of all quantities that either has.
        caveats: why some numbers may not be compared.
        settings: names of settings that differ, with both values.
        unlike: why no number of one run says anything about the other; empty where they compare.

    """

    names: tuple[str, str]
    changes: tuple[Change, ...]
    caveats: tuple[str, ...]
    settings: dict[str, tuple[Any, Any]]
    unlike: tuple[str, ...] = ()
    same_machine: bool = True

    def require_alike(self, names: tuple[str, ...] = ()) -> None:
        """Refuse runs that are not comparable.

        Raises:
            EvaluationError: they do not, or are of two machines and ``names`` has a quantity that
                depends on the machine.

        """
        reasons = [*self.unlike]
        machine_dependent = [name for name in names if name in MACHINE_DEPENDENT]
        if machine_dependent and not self.same_machine:
            reasons.append(f"the machines differ, on which {', '.join(machine_dependent)} depend")
        if reasons:
            raise EvaluationError(
                f"the runs do not compare: {'; '.join(reasons)}. Evaluate both in the same way"
            )

    def broken(self, allowed: float, names: tuple[str, ...] = ()) -> list[Change]:
        """Return what got worse by more than the share ``allowed``.

        Args:
            allowed: such as 0.05.
            names: quantities to look at; empty = all that do not depend on the machine.

        Raises:
            ConfigurationError: an unknown quantity.

        """
        unknown = set(names) - set(BY_NAME)
        if unknown:
            raise ConfigurationError(
                f"there is no quantity {', '.join(sorted(unknown))}; choose of {', '.join(BY_NAME)}"
            )
        looked_at = set(names) or set(BY_NAME) - MACHINE_DEPENDENT
        return [
            change
            for change in self.changes
            if change.quantity.name in looked_at and change.worse > allowed
        ]


def compare(first: Path, second: Path) -> Comparison:
    """Compare two result directories.

    Raises:
        SourceError: one of them holds no results.

    """
    before, after = read_metrics(first), read_metrics(second)
    changes = [
        Change(quantity, quantity.value(before), quantity.value(after)) for quantity in QUANTITIES
    ]
    settings = _differences(_settings(first), _settings(second))
    unlike = [*_unlike(before, after), *_scored_otherwise(settings)]
    same_machine = before["provenance"]["machine"] == after["provenance"]["machine"]
    machine = [] if same_machine else ["the machines differ: times and memory are not comparable"]
    return Comparison(
        (before["name"], after["name"]),
        tuple(each for each in changes if (each.before, each.after) != (None, None)),
        (*unlike, *machine),
        settings,
        tuple(unlike),
        same_machine,
    )


def read_metrics(directory: Path) -> dict[str, Any]:
    """Return what a result directory measured.

    Raises:
        SourceError: it holds no results, or damaged ones.

    """
    path = directory / METRICS
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceError(
            f"'{directory}' holds no {METRICS}; give a directory that 'xsvggt evaluate' has written"
        ) from None
    except (OSError, ValueError) as error:
        raise SourceError(f"'{path}' cannot be read: {error}; evaluate again") from error
    schema = metrics.get("schema", SCHEMA) if isinstance(metrics, Mapping) else SCHEMA
    if schema != SCHEMA:
        raise SourceError(
            f"'{path}' has schema {schema} and this version reads {SCHEMA}; evaluate again"
        )
    if not _is_result(metrics):
        raise SourceError(f"'{path}' is not the result of one evaluation; give another directory")
    return dict(metrics)


def _is_result(metrics: Any) -> bool:
    """Tell whether something has what a comparison looks at."""
    try:
        _ = metrics["cost"], metrics["live"], metrics["reason"], metrics["provenance"]["machine"]
        _data(metrics)
        for quantity in QUANTITIES:
            quantity.value(metrics)
        return isinstance(metrics["name"], str) and bool(
            metrics["state"] and int(metrics["frames"]["scored"]) >= 0
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return False


def _settings(directory: Path) -> dict[str, Any]:
    try:
        text = (directory / CONFIG).read_text(encoding="utf-8")
        held = yaml.safe_load(text)
        return _flat(held) if isinstance(held, Mapping) else {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return {}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = [*first, *(name for name in second if name not in first)]
    both = {name: (first.get(name), second.get(name)) for name in names}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}


def _scored_otherwise(settings: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """Return settings that decide what is taken and how it is scored, where they differ."""
    return [
        f"{name} is {before} in one and {after} in the other"
        for name, (before, after) in settings.items()
        if name.startswith(("options.", "scoring."))
        and not (name == "options.truth" and Path(str(before)).name == Path(str(after)).name)
    ]


def _unlike(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return why two runs are not comparable, the most serious reason first."""
    caveats = []
    if first["name"] != second["name"] or _data(first) != _data(second):
        caveats.append("the sources differ: their numbers are not comparable")
    for metrics, which in ((first, "first"), (second, "second")):
        if metrics["state"] != "complete":
            caveats.append(f"the {which} run is {metrics['state']}: {metrics['reason']}")
    if first["frames"]["scored"] != second["frames"]["scored"]:
        counts = f"{first['frames']['scored']} and {second['frames']['scored']}"
        caveats.append(f"they score {counts} frames; errors grow with length")
    if bool(first["live"]) != bool(second["live"]):
        caveats.append("one ran live and dropped frames, the other took every frame")
    return caveats


def _data(metrics: Mapping[str, Any]) -> Any:
    return metrics["provenance"]["data"].get("sha256_of_edges")
