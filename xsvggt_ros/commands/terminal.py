# SPDX-License-Identifier: Apache-2.0
"""Terminal output of the commands: sentences, tables, and the progress of frames."""

from __future__ import annotations

import logging
import re
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from xsvggt_ros.process import INTERRUPTED

if TYPE_CHECKING:
    from rich.table import Table

    from xsvggt_ros.stream.recording import Figure


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


def _options() -> dict[str, str]:
    """Return what the parameters of the node are called on the command line."""
    from xsvggt_ros.cache.settings import CacheSettings
    from xsvggt_ros.commands.options import CACHE

    cache = {f"cache.{each.name}": CACHE.spelling(each.name) for each in fields(CacheSettings)}
    named = ("width", "device", "dtype", "heads_dtype", "weights")
    rooms = {"width": "input"}
    network = {f"{rooms.get(n, 'model')}.{n}": f"--{n.replace('_', '-')}" for n in named}
    return {**cache, **network, "model.compile": "--compile"}


def in_options(text: str, available: Collection[str]) -> str:
    """Return a message with the options that set what it names.

    Messages of the engine name the node's parameters; a command has options instead.
    """
    named = [
        f"{option} sets {name}"
        for name, option in _options().items()
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


def print_weights(path: Path) -> None:
    """Print where weights were written, and their size."""
    from rich.markup import escape

    console.print(f"[green]Written:[/] {escape(str(path))} ({path.stat().st_size / 2**20:.1f} MiB)")


def print_written(paths: Sequence[Path]) -> None:
    """Print the files that were written and how to view them."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="fold")  # a path cut short cannot be copied
    table.add_column()
    for path in paths:
        how = HOW_TO_LOOK.get(path.name) or HOW_TO_LOOK.get(path.suffix, "")
        table.add_row(Text(str(path), "bold"), how)
    console.print("\n[green]Written:[/]")
    console.print(table)


def print_lines(lines: Iterable[str], style: str) -> None:
    """Print sentences, one per line, without wrapping."""
    for line in lines:
        console.print(Text(line, style), soft_wrap=True)


def print_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, words: int, title: str | None = None
) -> None:
    """Print rows of numbers, as a list where the terminal is too narrow for a table.

    Args:
        heads: of the columns.
        rows: of cells.
        words: columns at the left that hold words.
        title: above all.

    """
    from rich.box import SIMPLE
    from rich.table import Table

    cells = [list(row) for row in rows]
    # A cell stays whole; a head may break between its words.
    widths = [
        max(map(len, [*head.split(), *(row[column] for row in cells)]), default=0)
        for column, head in enumerate(heads)
    ]
    if console.is_terminal and sum(width + 2 for width in widths) > console.width:
        _print_records(heads, cells, words=words, title=title)
        return
    table = Table(title=None if title is None else Text(title), box=SIMPLE, padding=(0, 1, 0, 0))
    for column, (head, width) in enumerate(zip(heads, widths, strict=True)):
        table.add_column(head, justify="left" if column < words else "right", min_width=width)
    for row in cells:
        table.add_row(*map(Text, row))
    print_whole(table)


def _print_records(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, words: int, title: str | None
) -> None:
    """Print each row as its words and, below them, its numbers with their names."""
    if title:
        console.print(Text(f"\n{title}", "italic"))
    for row in rows:
        console.print(Text("  ".join(row[:words]), "bold"), soft_wrap=True)
        numbers = [
            f"{head} {cell}".replace(" ", "\N{NO-BREAK SPACE}")  # a number stays with its name
            for head, cell in zip(heads[words:], row[words:], strict=True)
        ]
        for line in textwrap.wrap("   ".join(numbers), console.width - 2):
            console.print(Text(f"  {line}".replace("\N{NO-BREAK SPACE}", " ")), soft_wrap=True)


def print_whole(table: Table) -> None:
    """Print a table without cutting anything: a file or a pipe is as wide as it needs."""
    from rich.measure import Measurement

    if console.is_terminal:
        console.print(table)
        return
    unbounded = console.options.update(width=10_000)
    width = Measurement.get(console, unbounded, table).maximum
    Console(file=console.file, width=max(width, console.width)).print(table)


def print_figures(figures: Sequence[Figure]) -> None:
    """Print the most important numbers, one per line."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for each in figures:
        table.add_row(Text(each.value, "bold", justify="right"), Text(each.meaning))
    console.print()
    console.print(table)


def end_run(directory: Path, *, interrupted: bool, code: int = 0) -> None:
    """Link a run's directory as the latest and print where its report is.

    Args:
        directory: of the run.
        interrupted: whether a signal ended the run early.
        code: exit code otherwise.

    Raises:
        typer.Exit: a signal ended the run early, or ``code`` is not 0.

    """
    from rich.markup import escape

    from xsvggt_ros.evaluation.results import link_latest

    link_latest(directory)
    report = escape(str(directory / "report.html"))
    console.print(f"[green]Report:[/] {report}", highlight=False, soft_wrap=True)
    if interrupted or code:
        raise typer.Exit(INTERRUPTED if interrupted else code)


class SpeedColumn(ProgressColumn):
    """Frames per second of late."""

    def render(self, task: Task) -> Text:
        """Return the speed, or nothing before there is one."""
        speed = task.finished_speed or task.speed
        if task.fields.get("unit") == "runs":
            return Text("")
        return Text(f"{speed:.1f} frames/s" if speed else "", style="progress.data.speed")


def _frame_columns() -> tuple[ProgressColumn, ...]:
    return (
        TextColumn("{task.description}", markup=False),  # names may hold brackets
        BarColumn(),
        MofNCompleteColumn(),
        SpeedColumn(),
        TimeRemainingColumn(),
    )


@contextmanager
def frame_progress(console: Console, total: int | None) -> Iterator[Callable[[int, str], None]]:
    """Show a bar; yields a function that takes the frames done and a word on what goes on."""
    with Progress(*_frame_columns(), console=console) as progress:
        task = progress.add_task("starting", total=total)
        yield lambda done, doing: progress.update(task, completed=done, description=doing)


RunProgress = Callable[[int, int | None, str], None]
"""Takes the frames done, the frames to come in all (None = nobody knows), and what goes on."""


@contextmanager
def run_progress(console: Console) -> Iterator[RunProgress]:
    """Show a bar whose length is known later only."""
    with Progress(*_frame_columns(), console=console) as progress:
        task = progress.add_task("starting", total=None)
        yield lambda done, total, doing: progress.update(
            task, completed=done, total=total, description=doing
        )


@contextmanager
def sweep_progress(console: Console, runs: int) -> Iterator[Callable[[int, str], RunProgress]]:
    """Show a bar of runs, and one for each thread that has a run at hand.

    Yields what takes a run's number, from 0, and its name, in the thread that runs it, and returns
    what that run's progress goes to.
    """
    with Progress(*_frame_columns(), console=console) as progress:
        whole = progress.add_task("all runs", total=runs, unit="runs")
        tasks: dict[int, TaskID] = {}

        def begin(number: int, name: str) -> RunProgress:
            thread = get_ident()
            if thread not in tasks:
                tasks[thread] = progress.add_task(name, total=None)
            task = tasks[thread]
            progress.update(whole, completed=max(number + 1 - len(tasks), 0))
            progress.reset(task, total=None, description=name)

            def show(done: int, total: int | None, doing: str) -> None:
                progress.update(task, completed=done, total=total, description=f"{name}: {doing}")

            return show

        yield begin
        progress.update(whole, completed=runs)


@contextmanager
def training_progress(
    console: Console, total: int, done: int
) -> Iterator[Callable[[int, str], None]]:
    """Show a bar of steps with a line of losses below; yields what takes the step and that line."""
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("\n{task.description}", markup=False),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=total, completed=done)
        yield lambda step, line: progress.update(task, completed=step, description=line)


def known_total(count: int | None, most: int | None) -> int | None:
    """Return how many frames will come, None where nobody knows."""
    if count is None or most is None:
        return count
    return min(count, most)
