# SPDX-License-Identifier: Apache-2.0
"""One run as text, as Markdown and as a page: no script, no link, nothing to load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from xsvggt_ros.evaluation.evaluation import Evaluation
from xsvggt_ros.evaluation.metric_registry import BY_NAME, MIB
from xsvggt_ros.evaluation.report.figures import (
    cloud_view,
    cost_charts,
    drawing,
    error_chart,
    gradient,
    step_chart,
    strips,
    trajectory_chart,
)
from xsvggt_ros.evaluation.report.tables import Table, tables


def summary(evaluation: Evaluation) -> str:
    """Return the whole run in Markdown."""
    lines = [f"# {evaluation.name}", "", what_ran(evaluation), "", where_frames_went(evaluation)]
    lines += ["", evaluation.association.words]
    if evaluation.state != "complete":
        lines += ["", f"**{evaluation.state}**: {evaluation.reason}"]
    if evaluation.verdicts:
        lines += ["", "## Limits", ""]
        lines += [f"- {'kept' if v.kept else '**broken**'}: {v.words}" for v in evaluation.verdicts]
    if evaluation.warnings:
        lines += ["", "## Warnings", "", *(f"- {each}" for each in evaluation.warnings)]
    for table in tables(evaluation):
        lines += ["", *markdown(table)]
    if evaluation.scores.missing:
        lines += ["", "## Not measured", "", *(f"- {each}" for each in evaluation.scores.missing)]
    return "\n".join(lines) + "\n"


def markdown(table: Table) -> list[str]:
    """Return a table in Markdown, under its title."""
    rule = "|".join(["---", *("---:" for _ in table.heads[1:])])
    rows = ["| " + " | ".join(row) + " |" for row in (table.heads, *table.rows)]
    note = ["", table.note] if table.note else []
    return [f"## {table.title}", "", rows[0], f"|{rule}|", *rows[1:], *note]


@dataclass(frozen=True)
class Headline:
    """One of the few numbers on top."""

    label: str
    value: str
    note: str


def headlines(evaluation: Evaluation, metrics: Mapping[str, Any]) -> list[Headline]:
    """Return the numbers that people look for first."""

    def shown(name: str) -> str:
        quantity = BY_NAME[name]
        return quantity.show(quantity.value(metrics))

    scores, cost, live = evaluation.scores, evaluation.cost, evaluation.live
    ratio = cost.uncompressed_bytes / max(cost.cache_peak_bytes, 1)
    cards = (
        (scores.trajectory, "ATE, Sim(3)", "ate_sim3",
         f"scale {shown('scale_sim3')}, SE(3) {shown('ate_se3')}"),
        (scores.trajectory, "RPE, Sim(3)", "rpe_translation_sim3",
         f"{shown('rpe_rotation_deg')} per frame"),
        (scores.odometry.drift, "Drift, Sim(3)", "drift_translation_sim3",
         f"{shown('drift_rotation_deg_per_m')}, scale known then "
         f"{shown('drift_translation_se3_online')}, in odom "
         f"{shown('odom_drift_translation_sim3')}"),
        (scores.odometry.steps, "Step NEES/6, Sim(3)", "step_nees_sim3",
         f"{shown('step_coverage_sim3')} within 95 %, largest error "
         f"{shown('step_error_max_sigmas_sim3')}, {shown('joins')} joins"),
        (scores.depth, "AbsRel, L1 scale", "abs_rel_l1",
         f"δ < 1.25: {shown('delta_1_l1')}, AbsRel, median scale: {shown('abs_rel_median')}"),
        (scores.cloud, "F-score", "f_score_icp",
         f"accuracy {shown('accuracy_icp')}, completeness {shown('completeness_icp')}"),
        (True, "Latency p50", "latency_p50",
         f"p95 {shown('latency_p95')}, {cost.frames_per_second:.1f} frames/s"),
        (True, "Cache", "bytes",
         f"uncompressed {cost.uncompressed_bytes / MIB:,.1f} MiB, {ratio:.1f} times as much"),
        (live, "Dropped", "dropped",
         f"{live.output_rate:.1f} of {live.input_rate:.1f} frames/s" if live else ""),
    )  # fmt: skip
    return [Headline(label, shown(name), note) for there, label, name, note in cards if there]


def what_ran(evaluation: Evaluation) -> str:
    """Return weights, cache and machine in one line."""
    machine = evaluation.provenance["machine"]
    device = machine.get("gpu", machine["processor"] if machine["device"] == "cpu" else "")
    request = evaluation.request
    parts = (request.network.words, request.cache.words, f"{machine['device']} {device}".strip())
    return "  ·  ".join(parts)


def where_frames_went(evaluation: Evaluation) -> str:
    """Return the counts in one line."""
    counts = evaluation.counts
    text = f"{counts.processed} of {counts.taken} frames"
    if counts.refused:
        text += f", {counts.refused} refused"
    if counts.dropped:
        text += f", {counts.dropped} dropped"
    return text + f", {evaluation.seconds:.1f} s"


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
