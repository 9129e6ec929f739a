# SPDX-License-Identifier: Apache-2.0
"""`xsvggt doctor`: what is installed and what is missing."""

from __future__ import annotations

from typing import Annotated

import typer

from xsvggt_ros.commands.speaking import console


def doctor(
    ros: Annotated[bool, typer.Option(help="Also check what the node needs.")] = True,
) -> None:
    """Show what is installed, what is missing, and what to do about it."""
    from xsvggt_ros.doctor import examine

    findings = examine(ros=ros)
    for finding in findings:
        mark = "[red]✘[/]" if finding.fault else "[yellow]![/]" if finding.remedy else "[green]✔[/]"
        console.print(f"{mark} [bold]{finding.subject}[/]: ", end="")
        console.print(finding.state, markup=False, highlight=False, soft_wrap=True)
        if finding.remedy:
            console.print(f"    → {finding.remedy}", style="yellow", markup=False, soft_wrap=True)
    if any(finding.fault for finding in findings):
        raise typer.Exit(1)
