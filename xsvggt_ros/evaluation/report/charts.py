# SPDX-License-Identifier: Apache-2.0
"""Charts as SVG to be put into a page: its fonts, its colours, crisp at any width."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, HAIRLINE = "#1b2330", "#667085", "#e4e7ec"
ESTIMATE, TRUTH, WARM, THIRD = "#2f6fed", "#98a2b3", "#e8590c", "#0ca678"

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "xsvggt",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": HAIRLINE,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": HAIRLINE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.5,
    "lines.solid_joinstyle": "round",
    "text.parse_math": False,
}
"""Of all charts of the report."""

MOST_DRAWN = 1_500
"""Points of a curve; of more, each stretch is drawn by its lowest and its highest."""


@dataclass(frozen=True)
class Curve:
    """One curve of a chart: y [n] over x [n]."""

    label: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    color: str = ESTIMATE
    style: str = "-"
    filled: bool = False


@dataclass(frozen=True)
class Level:
    """A horizontal line across a chart."""

    label: str
    y: float
    color: str = WARM


@dataclass(frozen=True)
class Chart:
    """One panel: curves over a shared axis."""

    title: str
    unit: str
    curves: Sequence[Curve]
    levels: Sequence[Level] = ()
    logarithmic: bool = False


def stack(charts: Sequence[Chart], across: str, *, height: float = 2.1) -> str:
    """Return panels one above the other as SVG.

    Args:
        charts: from top to bottom.
        across: label of the shared axis.
        height: of a panel, inches.

    """
    with rc_context(STYLE):
        inches = height * len(charts) + 0.35
        figure = Figure((9.6, inches))
        panels = figure.subplots(len(charts), 1, sharex=True, squeeze=False)[:, 0]
        # Fixed margins: matplotlib's layout engines take longer than all the drawing.
        figure.subplots_adjust(
            left=0.085, right=0.985, bottom=0.48 / inches, top=1 - 0.32 / inches,
            hspace=0.55 / (height - 0.45),
        )  # fmt: skip
        for panel, chart in zip(panels, charts, strict=True):
            _draw(panel, chart)
        panels[-1].set_xlabel(across)
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        return svg(figure)


def _draw(axes: Axes, chart: Chart) -> None:
    for curve in chart.curves:
        x, y = envelope(curve.x, curve.y)
        axes.plot(x, y, curve.style, color=curve.color, label=curve.label)
        if curve.filled:
            axes.fill_between(x, y, color=curve.color, alpha=0.10, linewidth=0)
    for level in chart.levels:
        axes.axhline(level.y, color=level.color, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            level.label, (1, level.y), xycoords=("axes fraction", "data"), xytext=(-3, 4),
            textcoords="offset points", ha="right", color=level.color, fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.0},
        )  # fmt: skip
    axes.margins(x=0.01, y=0.12)
    if chart.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    elif _never_negative(chart):
        axes.set_ylim(bottom=0)
    axes.set_title(chart.title, pad=7)
    axes.set_ylabel(chart.unit)
    if len(chart.curves) > 1:
        axes.legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(chart.curves), borderaxespad=0.2
        )


def _never_negative(chart: Chart) -> bool:
    return all(np.nanmin(curve.y, initial=0.0) >= 0 for curve in chart.curves)


def envelope(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a curve of few points that looks like that of many: peaks stay."""
    if len(x) <= MOST_DRAWN:
        return x, y
    stretches = np.array_split(np.arange(len(x)), MOST_DRAWN // 2)
    chosen: list[int] = []
    for stretch in stretches:
        values = np.nan_to_num(y[stretch])
        chosen += sorted({int(stretch[values.argmin()]), int(stretch[values.argmax()])})
    return x[chosen], y[chosen]


@dataclass(frozen=True)
class Path:
    """A path to be drawn: positions [n, 2]; ``errors`` [n], metres, colour it."""

    label: str
    positions: NDArray[np.float64]
    errors: NDArray[np.float64] | None = None


def paths(views: Sequence[tuple[str, str, str, Sequence[Path]]]) -> str:
    """Draw paths in several views side by side, equal scale on both axes, as SVG.

    Each view is title, label across, label up, and its paths.
    """
    with rc_context(STYLE):
        figure = Figure((9.6, 4.2))
        panels = figure.subplots(1, len(views), squeeze=False)[0]
        figure.subplots_adjust(left=0.085, right=0.89, bottom=0.12, top=0.92, wspace=0.26)
        shown: Any = None
        for panel, (title, across, up, drawn) in zip(panels, views, strict=True):
            for path in drawn:
                shown = _draw_path(panel, path) or shown
            panel.set_title(title, pad=8)
            panel.set_xlabel(across)
            panel.set_ylabel(up)
            panel.set_aspect("equal", adjustable="datalim")
            panel.margins(0.08)
        if shown is not None:
            bar = figure.colorbar(shown, cax=figure.add_axes((0.915, 0.12, 0.018, 0.8)))
            bar.outline.set_visible(False)
            bar.set_label("position error, m", color=MUTED)
        panels[0].legend(loc="best")
        return svg(figure)


def _draw_path(axes: Axes, path: Path) -> Any:
    """Draw one path; return what a colour bar explains, None for a plain one."""
    x, y = path.positions.T
    if path.errors is None:
        axes.plot(x, y, color=TRUTH, linewidth=3.2, label=path.label, solid_capstyle="round")
        return None
    points = path.positions[:, None]
    colored = LineCollection(
        list(np.concatenate([points[:-1], points[1:]], axis=1)),
        cmap="plasma", array=path.errors[1:], linewidths=1.8, capstyle="round",
    )  # fmt: skip
    axes.add_collection(colored)
    axes.plot(x[:1], y[:1], "o", color=INK, markersize=5, label="start", zorder=4)
    axes.plot(x[-1:], y[-1:], "s", color=INK, markersize=5, label="end", zorder=4)
    axes.plot([], [], color="#b5367a", label=path.label)
    axes.update_datalim(path.positions)
    return colored


@dataclass(frozen=True)
class Dot:
    """One run in a chart of runs; ``accented`` ones are the references of a sweep."""

    label: str
    x: float
    y: float
    group: str
    accented: bool = False


def pareto(title: str, across: str, up: str, dots: Sequence[Dot]) -> str:
    """Draw runs as dots and the line of those that no other run beats on both axes, as SVG.

    Args:
        title: of the chart.
        across: label of the x axis.
        up: label of the y axis.
        dots: the runs.

    """
    palette = (ESTIMATE, THIRD, "#7048e8", "#f08c00", "#d6336c", "#1098ad", "#5c940d")
    groups = list(dict.fromkeys(dot.group for dot in dots))
    with rc_context(STYLE):
        figure = Figure((9.6, 4.6))
        axes = figure.subplots()
        figure.subplots_adjust(left=0.085, right=0.985, bottom=0.12, top=0.86)
        best = undominated(dots)
        axes.step(
            [dot.x for dot in best], [dot.y for dot in best], where="post", color=HAIRLINE,
            linewidth=5, zorder=1,
        )  # fmt: skip
        for index, group in enumerate(groups):
            members = [dot for dot in dots if dot.group == group]
            accented = members[0].accented
            axes.scatter(
                [dot.x for dot in members], [dot.y for dot in members],
                s=70 if accented else 46, marker="D" if accented else "o", zorder=3,
                color=INK if accented and index == 0 else palette[index % len(palette)],
                label=group, edgecolors="white", linewidths=0.8,
            )  # fmt: skip
        for dot in dots:
            axes.annotate(
                dot.label, (dot.x, dot.y), xytext=(6, 5), textcoords="offset points", fontsize=8,
                color=MUTED,
            )  # fmt: skip
        if min(dot.x for dot in dots) > 0:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(FuncFormatter(_sparse))
        axes.set_title(title, pad=10)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.margins(0.12)
        axes.legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.06), ncols=len(groups), borderaxespad=0
        )
        return svg(figure)


def _sparse(value: float, place: int) -> str:
    """Label the twos and fives between the powers of ten."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def undominated(dots: Sequence[Dot]) -> list[Dot]:
    """Return the dots that no other one beats on both axes (less is better), by rising x."""
    best: list[Dot] = []
    for dot in sorted(dots, key=lambda dot: (dot.x, dot.y)):
        if not best or dot.y < best[-1].y:
            best.append(dot)
    return best


def svg(figure: Figure) -> str:
    """Return a figure as an SVG element that takes the width of what it stands in."""
    stream = io.StringIO()
    FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    element = text[text.index("<svg") :]
    head, _, body = element.partition(">")
    attributes = re.sub(r' (?:width|height)="[^"]*"', "", " ".join(head.split()))
    return f'{attributes} role="img">{body}'
