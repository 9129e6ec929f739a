# SPDX-License-Identifier: Apache-2.0
"""Progress in the terminal: frames done and frames per second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
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
        return Text(f"{speed:.1f} frames/s" if speed else "", style="progress.data.speed")


@contextmanager
def frame_progress(console: Console, total: int | None) -> Iterator[Callable[[int, str], None]]:
    """Show a bar; yields a function that takes the frames done and a word on what goes on."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        SpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=total)
        yield lambda done, doing: progress.update(task, completed=done, description=doing)


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
        TextColumn("\n{task.description}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("starting", total=total, completed=done)
        yield lambda step, line: progress.update(task, completed=step, description=line)


def known_total(count: int | None, most: int | None) -> int | None:
    """Return how many frames will come, None where nobody knows."""
    if count is None or most is None:
        return count
    return min(count, most)
