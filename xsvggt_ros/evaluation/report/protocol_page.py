# SPDX-License-Identifier: Apache-2.0
"""The page, the summary and the table of a protocol."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import yaml

from xsvggt_ros.evaluation.files import REPORT, SUMMARY, write_text
from xsvggt_ros.evaluation.protocol_catalogue import Column
from xsvggt_ros.evaluation.protocol_run import ProtocolTable
from xsvggt_ros.evaluation.report.page import environment
from xsvggt_ros.evaluation.report.summary import markdown
from xsvggt_ros.evaluation.report.tables import Table


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
            identity=yaml.safe_dump(json.loads(json.dumps(table.identity)), sort_keys=False),
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
