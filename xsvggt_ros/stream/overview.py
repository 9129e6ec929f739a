# SPDX-License-Identifier: Apache-2.0
"""One image to look at after a run: what went in, what came out, and what it took."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from xsvggt_ros.geometry.files import replacing
from xsvggt_ros.stream.drawing.cache_chart import draw_cache
from xsvggt_ros.stream.drawing.strips import draw_strips
from xsvggt_ros.stream.drawing.style import DOTS_PER_INCH, INK, MUTED, PAPER, write
from xsvggt_ros.stream.drawing.views import (
    Scene,
    draw_from_above,
    draw_from_side,
    draw_truth,
    show_place,
)
from xsvggt_ros.stream.summary import summarize

if TYPE_CHECKING:
    from xsvggt_ros.stream.ground_truth import Comparison
    from xsvggt_ros.stream.recording import Recording

OVERVIEW_SIZE = (1600, 1240)
"""Width and height of the image in pixels."""

_MARGIN = 32
_PANEL = 452
"""Width of the three panels at the bottom."""


def write_overview(
    path: Path, recording: Recording, heading: str, comparison: Comparison | None = None
) -> None:
    """Draw a recording into a PNG of OVERVIEW_SIZE; the file appears whole or not at all.

    With a comparison it shows true depth, the place itself and the true path, in metres of the true
    world; without one the cloud from above and from the side, in the map frame.
    """
    width, height = OVERVIEW_SIZE
    figure = Figure((width / DOTS_PER_INCH, height / DOTS_PER_INCH), facecolor=PAPER)
    canvas = FigureCanvasAgg(figure)
    write(figure, _MARGIN, height - 42, heading, 13)
    _write_figures(figure, recording, comparison)
    draw_strips(figure, (_MARGIN, 528, width - 2 * _MARGIN, 588), recording, comparison)
    _draw_panels(figure, recording, comparison)
    with replacing(path) as stream:
        canvas.print_png(stream)


def _write_figures(figure: Figure, recording: Recording, comparison: Comparison | None) -> None:
    """Write the numbers that count, one beside the other."""
    figures = summarize(recording, comparison)
    step = (OVERVIEW_SIZE[0] - 2 * _MARGIN) / max(len(figures), 1)
    for number, each in enumerate(figures):
        left, base = _MARGIN + number * step, OVERVIEW_SIZE[1] - 88
        write(figure, left, base, each.value, 19, INK, weight="bold")
        write(figure, left, base - 20, each.meaning, 9, MUTED)


def _draw_panels(figure: Figure, recording: Recording, comparison: Comparison | None) -> None:
    """Draw cloud, truth or another view of the cloud, and the cache."""
    step = _PANEL + 64
    boxes = [(_MARGIN + 44 + number * step, 58, _PANEL, 420) for number in range(3)]
    scene = Scene.of(recording, comparison)
    if comparison is None:
        draw_from_above(figure, boxes[0], scene, "from above, without ceiling (map frame)")
        draw_from_side(figure, boxes[1], scene, "from the side (map frame)")
    else:
        axes = draw_from_above(
            figure, boxes[0], scene, "reconstructed map from above, without ceiling"
        )
        show_place(axes, boxes[0], comparison)
        title = (
            f"the place itself; ATE {comparison.ate_sim3:.2f} m, "
            f"scale {comparison.transform.scale:.2f}"
        )
        draw_truth(figure, boxes[1], comparison, title)
    draw_cache(figure, boxes[2], recording)
