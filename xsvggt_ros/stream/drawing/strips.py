# SPDX-License-Identifier: Apache-2.0
"""Rows of images: what went in, and what came out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap, Normalize
from numpy.typing import NDArray

from xsvggt_ros.stream.drawing.style import FAINT, MUTED, Box, axes_at, span, write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xsvggt_ros.stream.ground_truth import Comparison
    from xsvggt_ros.stream.recording import RecordedFrame, Recording

GAP = 6
LABELS = 96
SCALES = 74
FEWEST = 4
"""Pixels between images, left of them and right of them; and images in a row at least, where
there are so many."""


@dataclass(frozen=True)
class _Row:
    """One row: its name, a word on it, its images, and the colours that stand for numbers."""

    name: str
    note: str
    images: list[NDArray[Any]]
    scale: Normalize | None = None
    colors: Colormap | None = None


def draw_strips(
    figure: Figure, box: Box, recording: Recording, comparison: Comparison | None
) -> None:
    """Draw images, depth, confidence and, where it is known, true depth, so as to fill a box."""
    frames = recording.images.pick()
    if not frames:
        return
    count = 3 if comparison is None else 4
    frames = _fitting(frames, box, count)
    rows = _rows(frames, comparison)
    left, bottom, width, height = box
    cell_height = (height - (count - 1) * GAP) / count
    cell_width = (width - LABELS - SCALES - (len(frames) - 1) * GAP) / len(frames)
    shown_height = min(cell_height, cell_width * _height_per_width(frames[0]))
    shown_width = shown_height / _height_per_width(frames[0])
    for number, row in enumerate(rows):
        base = bottom + height - (number + 1) * shown_height - number * GAP
        write(figure, left, base + shown_height - 2, row.name, 11, va="top")
        write(figure, left, base + shown_height - 22, row.note, 8.5, MUTED, va="top")
        for column, image in enumerate(row.images):
            place = left + LABELS + column * (shown_width + GAP)
            axes = axes_at(figure, (place, base, shown_width, shown_height))
            axes.set_axis_off()
            shown = axes.imshow(
                image, norm=row.scale, cmap=row.colors, interpolation="antialiased", aspect="auto"
            )
        if row.scale is not None:
            bar = axes_at(figure, (place + shown_width + 12, base, 12, shown_height))
            figure.colorbar(shown, cax=bar).outline.set_visible(False)
            bar.tick_params(colors=MUTED, labelsize=8, length=2)
            bar.locator_params(nbins=4)


def _fitting(frames: list[RecordedFrame], box: Box, rows: int) -> list[RecordedFrame]:
    """Choose as many frames, evenly, as make the images large and the rows full."""
    tallest = (box[3] - (rows - 1) * GAP) / rows
    widest = tallest / _height_per_width(frames[0]) + GAP
    room = round((box[2] - LABELS - SCALES + GAP) / widest)
    count = min(len(frames), max(FEWEST, room))
    places = np.linspace(0, len(frames) - 1, count).round().astype(int)
    return [frames[place] for place in places]


def _height_per_width(frame: RecordedFrame) -> float:
    height, width = frame.depth.shape
    return height / width


def _rows(frames: Sequence[RecordedFrame], comparison: Comparison | None) -> list[_Row]:
    scale = 1.0 if comparison is None else comparison.depth_scale
    depths = [scale * frame.depth for frame in frames]
    depth_colors = colormaps["turbo_r"].with_extremes(bad=FAINT)
    true: list[NDArray[Any]] = []
    if comparison is not None:
        unknown = np.full_like(frames[0].depth, np.nan)
        true = [comparison.depths.get(frame.stamp, unknown) for frame in frames]
    near_and_far = Normalize(*span(np.concatenate([each.ravel() for each in depths + true]), 1))
    confidence = [frame.confidence for frame in frames]
    sure = Normalize(*span(np.concatenate([each.ravel() for each in confidence]), 1))
    unit = "network's unit" if comparison is None else f"m, times {scale:.2f}"
    rows = [
        _Row("input", "", [frame.color for frame in frames]),
        _Row("depth", unit, depths, near_and_far, depth_colors),
    ]
    if comparison is not None:
        rows.append(_Row("true depth", "m", true, near_and_far, depth_colors))
    colors = colormaps["magma"].with_extremes(bad=FAINT)
    return [*rows, _Row("confidence", "from 1 up", confidence, sure, colors)]
