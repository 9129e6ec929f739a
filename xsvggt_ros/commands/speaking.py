# SPDX-License-Identifier: Apache-2.0
"""Where commands write what people read, and how they say what they have written."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.table import Table

    from xsvggt_ros.stream.summary import Figure

console = Console()
errors = Console(stderr=True)

HOW_TO_LOOK = {
    "overview.png": "any image viewer: frames, depth, confidence, the map, the cache",
    "cloud.ply": "MeshLab, CloudCompare, Blender, or open3d.visualization in Python",
    "trajectory.tum": "text: timestamp, position, quaternion; evo_traj tum --plot draws it",
    "depth": "one depth map per image, and cameras.csv",
    "losses.csv": "table: step, losses, learning rate; losses.png draws it",
    "evaluation": "images: input, true depth, predicted depth, confidence",
    "weights.safetensors": "weights, for --checkpoint",
    ".rrd": "rerun FILE opens it in its viewer",
}


OPTIONS = {
    "cache.budget_tokens": "--budget",
    "cache.budget_mib": "--budget-mib",
    "cache.key_bits": "--key-bits",
    "cache.value_bits": "--value-bits",
    "cache.policy": "--policy",
    "input.width": "--width",
    "model.device": "--device",
    "model.dtype": "--dtype",
}
"""What the parameters of the node are called on the command line."""


def in_options(text: str, available: Collection[str]) -> str:
    """Return a message with what its reader can set.

    Messages of the engine speak of the node's parameters, which a command has as options.
    """
    named = [
        f"{option} sets {name}"
        for name, option in OPTIONS.items()
        if option in available and re.search(rf"\b{re.escape(name)}\b", text)
    ]
    return f"{text} ({', '.join(named)})" if named else text


class OptionFormatter(logging.Formatter):
    """Formats warnings for the reader of a command."""

    def __init__(self, available: Collection[str]) -> None:
        super().__init__("%(message)s")
        self._available = available

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        return in_options(super().format(record), self._available)


def say_weights(path: Path) -> None:
    """Say where weights were written, and how large they are."""
    from rich.markup import escape

    console.print(f"[green]Written:[/] {escape(str(path))} ({path.stat().st_size / 2**20:.1f} MiB)")


def say_written(paths: Sequence[Path]) -> None:
    """Say what lies where and how to look at it."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="fold")  # a path cut short cannot be copied
    table.add_column()
    for path in paths:
        how = HOW_TO_LOOK.get(path.name) or HOW_TO_LOOK.get(path.suffix, "")
        table.add_row(Text(str(path), "bold"), how)
    console.print("\n[green]Written:[/]")
    console.print(table)


def say_lines(lines: Iterable[str], style: str) -> None:
    """Say sentences, one a line, as long as they are."""
    from rich.text import Text

    for line in lines:
        console.print(Text(line, style), soft_wrap=True)


def say_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, words: int, title: str | None = None
) -> None:
    """Say rows of numbers; the first ``words`` columns hold words instead."""
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(title=None if title is None else Text(title), box=SIMPLE, padding=(0, 1, 0, 0))
    for column, head in enumerate(heads):
        # A name that is cut short tells nothing: it goes on in the next line.
        table.add_column(head, justify="left" if column < words else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    say_whole(table)


def say_whole(table: Table) -> None:
    """Say a table without cutting anything: a file or a pipe is as wide as it needs."""
    from rich.measure import Measurement

    if console.is_terminal:
        console.print(table)
        return
    unbounded = console.options.update(width=10_000)
    width = Measurement.get(console, unbounded, table).maximum
    Console(file=console.file, width=max(width, console.width)).print(table)


def say_figures(figures: Sequence[Figure]) -> None:
    """Say the numbers that count, one a line."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for each in figures:
        table.add_row(Text(each.value, "bold", justify="right"), Text(each.meaning))
    console.print()
    console.print(table)
