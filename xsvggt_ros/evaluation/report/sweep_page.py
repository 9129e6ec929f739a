# SPDX-License-Identifier: Apache-2.0
"""The page and the summary of a sweep: one table, and what accuracy costs."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from xsvggt_ros.evaluation.catalogue import BY_NAME, MIB
from xsvggt_ros.evaluation.files import REPORT, SUMMARY, write_text
from xsvggt_ros.evaluation.report.charts import Dot, pareto
from xsvggt_ros.evaluation.report.page import environment
from xsvggt_ros.evaluation.report.summary import markdown
from xsvggt_ros.evaluation.report.tables import Table
from xsvggt_ros.evaluation.sweep import REFERENCES, Row, Sweep, table_csv

ERRORS = ("ate", "absrel", "accuracy")
COSTS = (("bytes", 1 / MIB, "cache, MiB"), ("latency_p50", 1.0, "latency p50, ms"))
COLUMNS = (
    "ate", "rpe", "absrel", "delta1", "accuracy", "completeness", "fscore",
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
