# SPDX-License-Identifier: Apache-2.0
"""How commands end whose runs get a directory of their own."""

from __future__ import annotations

from pathlib import Path

import typer

from xsvggt_ros.commands.speaking import console
from xsvggt_ros.interruption import INTERRUPTED


def end_run(directory: Path, *, interrupted: bool, code: int = 0) -> None:
    """Make a run's directory the latest and say where its report is.

    Raises:
        typer.Exit: a signal ended the run early, or ``code`` is not 0.

    """
    from rich.markup import escape

    from xsvggt_ros.evaluation.directory import link_latest

    link_latest(directory)
    report = escape(str(directory / "report.html"))
    console.print(f"[green]Report:[/] {report}", highlight=False, soft_wrap=True)
    if interrupted or code:
        raise typer.Exit(INTERRUPTED if interrupted else code)
