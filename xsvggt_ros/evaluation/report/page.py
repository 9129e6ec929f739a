# SPDX-License-Identifier: Apache-2.0
"""One page about one run: no script, no link, nothing to load; a file that opens anywhere."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from xsvggt_ros.evaluation.evaluation import Evaluation
from xsvggt_ros.evaluation.report.curves import (
    cost_charts,
    error_chart,
    step_chart,
    trajectory_chart,
)
from xsvggt_ros.evaluation.report.images import cloud_view, drawing, gradient, strips
from xsvggt_ros.evaluation.report.summary import headlines, what_ran, where_frames_went
from xsvggt_ros.evaluation.report.tables import tables

MOST_POINTS = 200_000


def environment() -> Environment:
    """Return what fills the templates of this directory; everything is escaped but our own SVG."""
    return Environment(
        loader=PackageLoader("xsvggt_ros.evaluation.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(evaluation: Evaluation) -> str:
    """Return the report of a run as HTML."""
    metrics = evaluation.metrics()
    latency, memory = cost_charts(evaluation)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            name=evaluation.name,
            started=evaluation.started,
            state=evaluation.state,
            reason=evaluation.reason,
            what_ran=what_ran(evaluation),
            frames=where_frames_went(evaluation),
            association=evaluation.association.words,
            headlines=headlines(evaluation, metrics),
            verdicts=evaluation.verdicts,
            warnings=evaluation.warnings,
            missing=evaluation.scores.missing,
            tables={table.title: table for table in tables(evaluation)},
            trajectory=_markup(trajectory_chart(evaluation)),
            errors=_markup(error_chart(evaluation)),
            steps=_markup(step_chart(evaluation)),
            strips=strips(evaluation),
            depth_colors=gradient("turbo_r"),
            error_colors=gradient("inferno"),
            clouds=_clouds(evaluation),
            latency=_markup(latency),
            memory=_markup(memory),
            provenance=yaml.safe_dump(
                json.loads(json.dumps(evaluation.provenance)), sort_keys=False
            ),
            source=yaml.safe_dump(json.loads(json.dumps(evaluation.source)), sort_keys=False),
            settings=yaml.safe_dump(
                json.loads(json.dumps(evaluation.request.resolved())), sort_keys=False
            ),
        )
    )


def _markup(text: str | None) -> Markup | None:
    return Markup(text) if text else None


def _clouds(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the cloud and the path from above and from the side, in the map frame."""
    recording = evaluation.session.recording
    points, colors = recording.cloud.arrays()
    if not len(points):
        return []
    chosen = np.random.default_rng(0).permutation(len(points))[:MOST_POINTS]
    points, colors = points[chosen], colors[chosen]
    path = np.array(recording.poses, np.float64).reshape(-1, 4, 4)[:, :3, 3]
    above = cloud_view(points, colors, path, (0, 1), np.array([0.0, 0.0, 1.0]))
    side = cloud_view(points, colors, path, (0, 2), np.array([0.0, -1.0, 0.0]))
    return [
        {"title": "from above", "axes": "x forward →, y left ↑", "uri": drawing(above.image)},
        {"title": "from the side", "axes": "x forward →, z up ↑", "uri": drawing(side.image)},
    ]
