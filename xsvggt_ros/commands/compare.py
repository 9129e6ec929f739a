# SPDX-License-Identifier: Apache-2.0
"""`xsvggt compare`: two result directories side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xsvggt_ros.commands.speaking import console, say_lines, say_whole

if TYPE_CHECKING:
    from xsvggt_ros.evaluation.results import Comparison

COLORS = {"better": "green", "worse": "red", "same": "dim", "": ""}


def compare(
    first: Annotated[Path, typer.Argument(help="Result directory of `xsvggt evaluate`.")],
    second: Annotated[Path, typer.Argument(help="Another one, to compare with it.")],
    *,
    max_worse: Annotated[
        float | None,
        typer.Option(min=0, help="Percent by which a number may get worse; else exit code 3."),
    ] = None,
    quantities: Annotated[
        str,
        typer.Option(
            help="Numbers that --max-worse looks at, such as ate_sim3,abs_rel_l1,bytes; default: "
            "all that do not depend on the machine."
        ),
    ] = "",
) -> None:
    """Compare two result directories: what got better, what got worse, which settings differ."""
    from xsvggt_ros.errors import ConfigurationError
    from xsvggt_ros.evaluation.metric_registry import FAILED
    from xsvggt_ros.evaluation.results import compare as compared

    if quantities and max_worse is None:
        raise ConfigurationError(
            f"--quantities {quantities} means nothing without --max-worse; give that, too"
        )
    comparison = compared(first, second)
    _show(comparison)
    if max_worse is None:
        return
    names = tuple(name for name in quantities.split(",") if name)
    comparison.require_alike(names)
    broken = comparison.broken(max_worse / 100, names)
    for change in broken:
        console.print(
            f"[red]worse by more than {max_worse:g} %:[/] {change.quantity.label}", highlight=False
        )
    if broken:
        raise typer.Exit(FAILED)


def _show(comparison: Comparison) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(" → ".join(dict.fromkeys(comparison.names))))
    for head in ("", "first", "second", "change"):
        table.add_column(head, justify="left" if not head else "right", overflow="fold")
    for change in comparison.changes:
        relative = "" if change.relative is None else f"{100 * change.relative:+.1f} %"
        color = COLORS[change.verdict]
        show = change.quantity.show
        table.add_row(
            change.quantity.label,
            show(change.before),
            show(change.after),
            Text(f"{relative} {change.verdict}".strip(), color),
        )
    say_whole(table)
    for name, (before, after) in comparison.settings.items():
        console.print(f"{name}: {before} → {after}", markup=False, highlight=False)
    say_lines(comparison.caveats, "yellow")
