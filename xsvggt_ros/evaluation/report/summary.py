# SPDX-License-Identifier: Apache-2.0
"""A run in sentences and Markdown: what page, summary and terminal share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xsvggt_ros.evaluation.evaluation import Evaluation
from xsvggt_ros.evaluation.metric_registry import BY_NAME, MIB
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

    cost = evaluation.cost
    cards = []
    if evaluation.scores.trajectory:
        cards.append(
            Headline(
                "ATE, Sim(3)",
                shown("ate_sim3"),
                f"scale {shown('scale_sim3')}, SE(3) {shown('ate_se3')}",
            )
        )
        cards.append(
            Headline(
                "RPE, Sim(3)",
                shown("rpe_translation_sim3"),
                f"{shown('rpe_rotation_deg')} per frame",
            )
        )
    if evaluation.scores.odometry.drift:
        cards.append(
            Headline(
                "Drift, Sim(3)",
                shown("drift_translation_sim3"),
                f"{shown('drift_rotation_deg_per_m')}, scale known then "
                f"{shown('drift_translation_se3_online')}, in odom "
                f"{shown('odom_drift_translation_sim3')}",
            )
        )
    if evaluation.scores.odometry.steps:
        cards.append(
            Headline(
                "Step NEES/6, Sim(3)",
                shown("step_nees_sim3"),
                f"{shown('step_coverage_sim3')} within 95 %, largest error "
                f"{shown('step_error_max_sigmas_sim3')}, {shown('joins')} joins",
            )
        )
    if evaluation.scores.depth:
        cards.append(
            Headline(
                "AbsRel, L1 scale",
                shown("abs_rel_l1"),
                f"δ < 1.25: {shown('delta_1_l1')}, AbsRel, median scale: {shown('abs_rel_median')}",
            )
        )
    if evaluation.scores.cloud:
        cards.append(
            Headline(
                "F-score",
                shown("f_score_icp"),
                f"accuracy {shown('accuracy_icp')}, completeness {shown('completeness_icp')}",
            )
        )
    cards.append(
        Headline("Latency p50", shown("latency_p50"), f"p95 {shown('latency_p95')}, "
                 f"{cost.frames_per_second:.1f} frames/s")
    )  # fmt: skip
    ratio = cost.uncompressed_bytes / max(cost.cache_peak_bytes, 1)
    cards.append(
        Headline("Cache", shown("bytes"), f"uncompressed {cost.uncompressed_bytes / MIB:,.1f} MiB, "
                 f"{ratio:.1f} times as much")
    )  # fmt: skip
    if evaluation.live:
        live = evaluation.live
        cards.append(
            Headline("Dropped", shown("dropped"),
                     f"{live.output_rate:.1f} of {live.input_rate:.1f} frames/s")
        )  # fmt: skip
    return cards


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
