# SPDX-License-Identifier: Apache-2.0
"""Some frames of a run, one column each: image, true depth, estimate, error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xsvggt_ros.evaluation.depth import DepthAlignment
from xsvggt_ros.evaluation.evaluation import Evaluation
from xsvggt_ros.evaluation.judge import STRIPS
from xsvggt_ros.evaluation.report.images import colored, drawing, photograph

WORST_SHOWN = 0.5
"""Relative error from which on the error's colour stays the same."""


@dataclass(frozen=True)
class Column:
    """Images of one frame as data URIs; without a true depth, truth and error are None."""

    index: int
    image: str
    truth: str | None
    estimate: str
    error: str | None
    caption: str


@dataclass(frozen=True)
class Strips:
    """Columns that share the colours of depth, from ``near`` to ``far``, and of error."""

    columns: list[Column]
    near: float
    far: float
    unit: str
    worst: float = WORST_SHOWN


def strips(evaluation: Evaluation) -> Strips:
    """Return the frames that the run has kept, spread evenly over the session."""
    chosen = evaluation.session.strips.pick()[:STRIPS]
    score = evaluation.scores.depth.get("scale")
    alignment = score.alignment if score else DepthAlignment("raw")
    depths = [alignment.apply(each.depth) for each in chosen]
    truths = [each.truth for each in chosen if each.truth is not None]
    values = np.concatenate([each.ravel() for each in (truths if score and truths else depths)])
    values = values[np.isfinite(values)]
    near, far = np.percentile(values, [1, 99]).tolist() if len(values) else (0.0, 1.0)
    columns = []
    for each, depth in zip(chosen, depths, strict=True):
        truth = error = None
        if each.truth is not None and score:
            truth = drawing(colored(each.truth, near, far))
            off = np.abs(depth - each.truth) / np.where(each.truth > 0, each.truth, np.nan)
            error = drawing(colored(off, 0, WORST_SHOWN, "inferno"))
        errors = evaluation.scores.frame_depth.get(each.index)
        caption = f"AbsRel {errors.abs_rel:.3f}" if errors else ""
        estimate = drawing(colored(depth, near, far))
        columns.append(Column(each.index, photograph(each.color), truth, estimate, error, caption))
    return Strips(columns, near, far, "m" if score else "units")
