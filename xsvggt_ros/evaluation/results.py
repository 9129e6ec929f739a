# SPDX-License-Identifier: Apache-2.0
"""The files of one evaluation, in a directory of its own with the link ``latest`` beside it."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from xsvggt_ros.errors import OutputError
from xsvggt_ros.evaluation.cost import SERIES
from xsvggt_ros.evaluation.evaluation import Evaluation
from xsvggt_ros.evaluation.metric_registry import Threshold, check_limits
from xsvggt_ros.evaluation.report.page import page
from xsvggt_ros.evaluation.report.summary import summary
from xsvggt_ros.geometry.cloud_io import write_ply
from xsvggt_ros.geometry.files import replacing, require_writable, write_each
from xsvggt_ros.geometry.trajectory_io import Trajectory, write_kitti, write_tum

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
