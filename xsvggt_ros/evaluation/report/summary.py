# SPDX-License-Identifier: Apache-2.0
"""The summary in Markdown, for pull requests and terminals."""

from __future__ import annotations

from xsvggt_ros.evaluation.evaluation import Evaluation
from xsvggt_ros.evaluation.report.tables import Table, tables
from xsvggt_ros.evaluation.report.words import what_ran, where_frames_went


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
        lines += ["", "## Not judged", "", *(f"- {each}" for each in evaluation.scores.missing)]
    return "\n".join(lines) + "\n"


def markdown(table: Table) -> list[str]:
    """Return a table in Markdown, under its title."""
    rule = "|".join(["---", *("---:" for _ in table.heads[1:])])
    rows = ["| " + " | ".join(row) + " |" for row in (table.heads, *table.rows)]
    note = ["", table.note] if table.note else []
    return [f"## {table.title}", "", rows[0], f"|{rule}|", *rows[1:], *note]
