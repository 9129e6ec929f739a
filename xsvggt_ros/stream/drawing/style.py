# SPDX-License-Identifier: Apache-2.0
"""Colours and lettering that all parts of the overview share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH = 100
PAPER, PANEL, INK, MUTED, FAINT = "#0f1218", "#161b23", "#eef1f5", "#9aa4b2", "#3a4350"
ESTIMATE, TRUTH, WARM = "#4dd8ff", "#ffffff", "#ffb454"

Box = tuple[float, float, float, float]
"""Left, bottom, width and height of a part of the page, in pixels from its lower left corner."""


def axes_at(figure: Figure, box: Box) -> Axes:
    """Return axes that fill a box."""
    return figure.add_axes(shares(figure, box))


def shares(figure: Figure, box: Box) -> Box:
    """Return a box in shares of the figure's size."""
    width, height = figure.get_size_inches() * DOTS_PER_INCH
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height


def write(
    figure: Figure, x: float, y: float, text: str, size: float, color: str = INK, **more: Any
) -> None:
    """Write a line at a place in pixels; nothing in it is read as a formula."""
    place = shares(figure, (x, y, 0, 0))
    figure.text(*place[:2], text, color=color, size=size, parse_math=False, **more)


def dress(axes: Axes, title: str) -> None:
    """Give a panel its title, ground, grid and ticks."""
    axes.set_facecolor(PANEL)
    axes.set_title(title, color=INK, size=11, loc="left", pad=7, parse_math=False)
    axes.tick_params(colors=MUTED, labelsize=8.5, length=0)
    axes.grid(color=FAINT, linewidth=0.5, alpha=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.label.set(color=MUTED, size=9)
    axes.yaxis.label.set(color=MUTED, size=9)
    for spine in axes.spines.values():
        spine.set_color(FAINT)


def span(values: NDArray[Any], percent: float) -> tuple[float, float]:
    """Return the range of finite values without that percentage at either end."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    low, high = np.percentile(finite, [percent, 100 - percent])
    return float(low), float(high) if high > low else float(low) + 1e-6
