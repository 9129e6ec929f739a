# SPDX-License-Identifier: Apache-2.0
"""One picture to look at after a run: frames, depth, the cloud from above and from the side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from xsvggt_ros.geometry.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from xsvggt_ros.stream.recording import RecordedFrame, Recording

OVERVIEW_SIZE = (1600, 1120)
"""Width and height of the picture in pixels."""

DOTS_PER_INCH = 100
PAPER, INK, FAINT, PATH = "#101319", "#e8eaed", "#5c6470", "#4dd8ff"
MOST_DRAWN = 200_000


def write_overview(path: Path, recording: Recording, heading: str) -> None:
    """Draw a recording into a PNG of OVERVIEW_SIZE; the file appears whole or not at all."""
    width, height = (pixels / DOTS_PER_INCH for pixels in OVERVIEW_SIZE)
    figure = Figure((width, height), facecolor=PAPER)
    canvas = FigureCanvasAgg(figure)
    figure.text(0.022, 0.975, heading, color=INK, size=13, va="center", parse_math=False)
    _draw_frames(figure, recording.pictures.pick())
    _draw_cloud(figure, recording)
    with replacing(path) as stream:
        canvas.print_png(stream)


def _draw_frames(figure: Figure, frames: Sequence[RecordedFrame]) -> None:
    """Draw a row of pictures and below it the row of their depth maps."""
    if not frames:
        return
    places = figure.add_gridspec(
        2, len(frames), left=0.022, right=0.945, top=0.95, bottom=0.57, wspace=0.03, hspace=0.02
    )
    scale = Normalize(*_span(np.concatenate([frame.depth.ravel() for frame in frames]), 1))
    for column, frame in enumerate(frames):
        _draw_picture(figure, places[0, column], "S").imshow(frame.color)
        axes = _draw_picture(figure, places[1, column], "N")
        shown = axes.imshow(frame.depth, norm=scale, cmap=_depth_colors(), interpolation="nearest")
    _draw_scale(figure, axes, shown)


def _depth_colors() -> Colormap:
    """Return the colours of depth: near is bright, unknown is grey."""
    from matplotlib import colormaps

    return colormaps["turbo_r"].with_extremes(bad=FAINT)


def _draw_picture(figure: Figure, place: Any, anchor: Literal["N", "S"]) -> Axes:
    """Return axes for a picture, without ticks and frame, that lean on their other row."""
    axes = figure.add_subplot(place)
    axes.set_axis_off()
    axes.set_anchor(anchor)
    return axes


def _draw_scale(figure: Figure, beside: Axes, shown: Any) -> None:
    """Draw the one colour bar of the row of depth maps."""
    beside.apply_aspect()
    box = beside.get_position()
    axes = figure.add_axes((0.953, box.y0, 0.009, box.height))
    bar = figure.colorbar(shown, cax=axes)
    bar.outline.set_visible(False)
    axes.tick_params(colors=INK, labelsize=9, length=2)
    axes.set_title("depth", color=INK, size=10, loc="left")


def _draw_cloud(figure: Figure, recording: Recording) -> None:
    """Draw the cloud and the camera's path from above and from the side."""
    points, colors = recording.cloud.arrays()
    chosen = np.random.default_rng(0).permutation(len(points))[:MOST_DRAWN]
    points, colors = points[chosen], colors[chosen]
    poses = np.array(recording.poses, np.float64).reshape(-1, 4, 4)
    top = figure.add_axes((0.055, 0.055, 0.43, 0.46))
    _draw_view(top, points, colors, poses, across=(0, 1), towards=2)
    _label(top, "from above (map frame)", "x forward", "y left")
    side = figure.add_axes((0.545, 0.055, 0.43, 0.46))
    _draw_view(side, points, colors, poses, across=(0, 2), towards=1)
    _label(side, "from the side (map frame)", "x forward", "z up")


def _draw_view(
    axes: Axes,
    points: NDArray[np.float32],
    colors: NDArray[np.uint8],
    poses: NDArray[np.float64],
    *,
    across: tuple[int, int],
    towards: int,
) -> None:
    """Draw a parallel projection along the axis ``towards`` the viewer."""
    order = np.argsort(-points[:, towards] if towards == 1 else points[:, towards])
    x, y = points[order][:, across].T
    axes.scatter(x, y, s=2.2, c=colors[order] / 255.0, linewidths=0)
    path = poses[:, across, 3]
    axes.plot(*path.T, color=PATH, linewidth=1.6, zorder=3)
    axes.plot(*path[:1].T, "o", color=PATH, markersize=5, zorder=3)
    _frame_view(axes, points[:, across], path)
    size = 0.04 * (axes.get_ylim()[1] - axes.get_ylim()[0])
    axes.add_collection(_cameras(poses, across, size))


def _cameras(poses: NDArray[np.float64], across: tuple[int, int], size: float) -> LineCollection:
    """Return little pyramids at some of the poses, apex at the camera, opening forward."""
    some = poses[np.unique(np.linspace(0, len(poses) - 1, min(12, len(poses))).astype(int))]
    corners = size * np.array([[-0.6, -0.45, 1], [0.6, -0.45, 1], [0.6, 0.45, 1], [-0.6, 0.45, 1]])
    lines: list[NDArray[np.float64]] = []
    for pose in some:
        apex = pose[:3, 3]
        ends = corners @ pose[:3, :3].T + apex
        lines.extend(np.array([apex, end])[:, across] for end in ends)
        lines.append(np.vstack([ends, ends[:1]])[:, across])
    return LineCollection(lines, colors=PATH, linewidths=0.9, zorder=3)


def _frame_view(axes: Axes, points: NDArray[np.float32], path: NDArray[np.float64]) -> None:
    """Fit the axes around the path and all points but the outliers, at one scale for both axes."""
    low, high = (
        np.array([_span(np.concatenate([points[:, k], path[:, k]]), 2)[end] for k in (0, 1)])
        for end in (0, 1)
    )
    if len(path):
        low, high = np.minimum(low, path.min(axis=0)), np.maximum(high, path.max(axis=0))
    box = axes.get_position()
    shape = np.array([box.width * OVERVIEW_SIZE[0], box.height * OVERVIEW_SIZE[1]])
    half = max(0.54 * ((high - low) / shape).max(), 1e-6) * shape
    axes.set_xlim(*(0.5 * (low + high)[0] + half[0] * np.array([-1, 1])))
    axes.set_ylim(*(0.5 * (low + high)[1] + half[1] * np.array([-1, 1])))


def _span(values: NDArray[Any], percent: float) -> tuple[float, float]:
    """Return the range of finite values without that percentage at either end."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    low, high = np.percentile(finite, [percent, 100 - percent])
    return float(low), float(high) if high > low else float(low) + 1e-6


def _label(axes: Axes, title: str, across: str, up: str) -> None:
    """Write on and around a view."""
    axes.set_facecolor(PAPER)
    axes.set_title(title, color=INK, size=11, loc="left")
    axes.set_xlabel(across, color=INK, size=10)
    axes.set_ylabel(up, color=INK, size=10)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(color=FAINT, linewidth=0.4, alpha=0.5)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color(FAINT)
