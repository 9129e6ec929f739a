# SPDX-License-Identifier: Apache-2.0
"""Progress in the terminal: frames done and frames per second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident

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
