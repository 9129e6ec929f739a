# SPDX-License-Identifier: Apache-2.0
"""The pages and summaries of sweeps and protocols: one table each, and what accuracy costs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import yaml
from markupsafe import Markup

from xsvggt_ros.evaluation.metric_registry import BY_NAME, MIB
from xsvggt_ros.evaluation.protocol_catalogue import Column
from xsvggt_ros.evaluation.protocol_run import ProtocolTable
from xsvggt_ros.evaluation.report.charts import Dot, pareto
from xsvggt_ros.evaluation.report.page import environment
from xsvggt_ros.evaluation.report.summary import markdown
from xsvggt_ros.evaluation.report.tables import Table
from xsvggt_ros.evaluation.results import REPORT, SUMMARY, write_text
from xsvggt_ros.evaluation.sweep import REFERENCES, Row, Sweep, table_csv

ERRORS = ("ate_sim3", "abs_rel_l1", "accuracy_icp")
COSTS = (("bytes", 1 / MIB, "cache, MiB"), ("latency_p50", 1.0, "latency p50, ms"))
COLUMNS = (
    "ate_sim3", "rpe_translation_sim3", "abs_rel_l1", "delta_1_l1", "accuracy_icp",
    "completeness_icp", "f_score_icp",
    "bytes", "latency_p50", "latency_p95", "fps", "process_memory", "device_memory", "dropped",
)  # fmt: skip


def sweep_table(sweep: Sweep) -> Table:
    """Return the table; columns that no run has a value for are left out."""
    shown = [name for name in COLUMNS if any(name in row.values for row in sweep.rows)]
    rows = [
        (row.label, row.state, *(BY_NAME[name].show(row.values.get(name)) for name in shown),
         row.note)
        for row in sweep.rows
    ]  # fmt: skip
    heads = ("run", "state", *(BY_NAME[name].label for name in shown), "note")
    return Table("Runs", heads, rows)


def pareto_charts(sweep: Sweep) -> list[str]:
    """Draw each error that was measured against bytes and against latency."""
    return [
        chart
        for error in ERRORS
        for cost, factor, label in COSTS
        if (chart := _chart(sweep, error, cost, factor, label))
    ]


def _chart(sweep: Sweep, error: str, cost: str, factor: float, label: str) -> str | None:
    dots = [
        Dot(_short(row), factor * row.values[cost], row.values[error], row.group,
            row.group in REFERENCES)
        for row in sweep.rows
        if error in row.values and cost in row.values
    ]  # fmt: skip
    if not dots:
        return None
    up = BY_NAME[error].label
    return pareto(f"{up} against {label}", label, up, dots)


def _short(row: Row) -> str:
    """Return a label without what its group says."""
    words = [word for word in row.label.split() if not word.startswith("policy=")]
    return " ".join(word for word in words if word != row.group) or row.label


def sweep_page(sweep: Sweep) -> str:
    """Return the report of a sweep as HTML."""
    return (
        environment()
        .get_template("sweep.html.j2")
        .render(
            name=sweep.name,
            rows=sweep.rows,
            table=sweep_table(sweep),
            charts=[Markup(chart) for chart in pareto_charts(sweep)],
            warnings=sweep.warnings,
        )
    )


def sweep_summary(sweep: Sweep) -> str:
    """Return the sweep in Markdown."""
    lines = [f"# Sweep over {sweep.name}"]
    lines += ["", *(f"- {each}" for each in sweep.warnings)] if sweep.warnings else []
    return "\n".join([*lines, "", *markdown(sweep_table(sweep))]) + "\n"


def write_sweep(sweep: Sweep, directory: Path) -> None:
    """Write report.html, summary.md and sweep.csv beside sweep.json."""
    write_text(directory / REPORT, sweep_page(sweep))
    write_text(directory / SUMMARY, sweep_summary(sweep))
    write_text(directory / "sweep.csv", table_csv(sweep))


def protocol_table(table: ProtocolTable) -> Table:
    """Return one row per sequence, the mean last; columns that no sequence fills are left out."""
    columns = shown_columns(table)
    rows = [
        (
            row.sequence,
            *(column.show(row.metrics.get(column.name)) for column in columns),
            str(row.frames),
            row.error or "",
        )
        for row in (*table.rows, *([table.mean] if table.mean else []))
    ]
    heads = [f"{each.label}, {each.unit}" if each.unit else each.label for each in columns]
    return Table("Sequences", ("sequence", *heads, "frames", "note"), rows)


def shown_columns(table: ProtocolTable) -> list[Column]:
    """Return the columns that some sequence fills."""
    filled = {name for row in table.rows for name in row.metrics}
    return [column for column in table.columns if column.name in filled]


def protocol_page(table: ProtocolTable) -> str:
    """Return the report of a protocol as HTML."""
    return (
        environment()
        .get_template("protocol.html.j2")
        .render(
            run=table,
            columns=shown_columns(table),
            table=protocol_table(table),
            provenance=yaml.safe_dump(json.loads(json.dumps(table.provenance)), sort_keys=False),
        )
    )


def protocol_summary(table: ProtocolTable) -> str:
    """Return a protocol in Markdown."""
    lines = [f"# {table.protocol}, {table.dataset}", "", f"{table.weights}  ·  {table.cache}"]
    lines += ["", *(f"- {each}" for each in table.remarks)] if table.remarks else []
    lines += ["", *markdown(protocol_table(table)), "", "## Protocol", ""]
    return "\n".join([*lines, *(f"- {each}" for each in table.notes)]) + "\n"


def protocol_csv(table: ProtocolTable) -> str:
    """Return one line per sequence, with the numbers in full."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    names = [column.name for column in shown_columns(table)]
    writer.writerow(["sequence", "error", "frames", "weight", *names])
    for row in table.rows:
        values = [row.metrics.get(name, "") for name in names]
        writer.writerow([row.sequence, row.error or "", row.frames, row.weight, *values])
    return stream.getvalue()


def write_protocol(table: ProtocolTable, directory: Path) -> None:
    """Write report.html, summary.md and sequences.csv beside protocol.json."""
    write_text(directory / REPORT, protocol_page(table))
    write_text(directory / SUMMARY, protocol_summary(table))
    write_text(directory / "sequences.csv", protocol_csv(table))
