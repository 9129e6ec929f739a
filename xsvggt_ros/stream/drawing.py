# SPDX-License-Identifier: Apache-2.0
"""Colours, lettering, and the cloud and the camera's path as parallel projections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from xsvggt_ros.stream.recording import Recording, TruthComparison


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
    """Return the range of finite values, of any shape, without that percentage at either end."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    low, high = np.percentile(finite, [percent, 100 - percent])
    return float(low), float(high) if high > low else float(low) + 1e-6


MOST_DRAWN = 200_000
HEADROOM = 0.25
"""Of the camera's height above the floor; what lies higher above the camera's way is a ceiling."""

FEWEST_BELOW = 0.1
"""Share of the points that must lie below a ceiling, or it is none."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """What is drawn, in a frame whose z points up.

    Attributes:
        points: float64 [n, 3].
        colors: uint8 [n, 3].
        poses: camera-to-world of every frame, float64 [f, 4, 4].

    """

    points: Array
    colors: NDArray[np.uint8]
    poses: Array

    @classmethod
    def of(cls, recording: Recording, comparison: TruthComparison | None) -> Scene:
        """Take a recording in its map frame or, where there is a truth, in the true world."""
        points, colors = recording.cloud.arrays()
        chosen = np.random.default_rng(0).permutation(len(points))[:MOST_DRAWN]
        moved = points[chosen].astype(np.float64)
        poses = np.array(recording.poses, np.float64).reshape(-1, 4, 4)
        if comparison is not None:
            moved = comparison.map_transform.points(moved)
            poses = comparison.map_transform.poses(poses)
        return cls(moved, colors[chosen], poses)

    def below_ceiling(self) -> Scene:
        """Leave out what hangs over the camera's way and would hide all below it."""
        if not len(self.points) or not len(self.poses):
            return self
        floor = span(self.points[:, 2], 2)[0]
        heights = self.poses[:, 2, 3]
        limit = heights.max() + HEADROOM * max(float(np.median(heights)) - floor, 0)
        below = self.points[:, 2] <= limit
        if below.mean() < FEWEST_BELOW:
            return self
        return Scene(self.points[below], self.colors[below], self.poses)


def draw_from_above(figure: Figure, box: Box, scene: Scene, title: str) -> Axes:
    """Draw the cloud and the way from above, x forward to the right; return the axes.

    Args:
        figure: that is drawn into.
        box: left, bottom, width and height in pixels.
        scene: the cloud and the path.
        title: of the view.

    """
    axes = axes_at(figure, box)
    dress(axes, title)
    _draw(axes, scene.below_ceiling(), box, across=(0, 1), towards=2)
    axes.set(xlabel="x forward", ylabel="y left")
    return axes


def draw_from_side(figure: Figure, box: Box, scene: Scene, title: str) -> None:
    """Draw the cloud and the way from the right-hand side; Args as for :func:`draw_from_above`."""
    axes = axes_at(figure, box)
    dress(axes, title)
    _draw(axes, scene, box, across=(0, 2), towards=1)
    axes.set(xlabel="x forward", ylabel="z up")


def draw_truth(figure: Figure, box: Box, comparison: TruthComparison, title: str) -> None:
    """Draw the place itself from above, with the true path and the estimated one.

    Args:
        figure: that is drawn into.
        box: left, bottom, width and height in pixels.
        comparison: with the truth.
        title: of the view.

    """
    axes = axes_at(figure, box)
    dress(axes, title)
    top_view = comparison.top_view
    (low_x, low_y), (high_x, high_y) = top_view.low, top_view.high
    axes.imshow(top_view.image, extent=(low_x, high_x, low_y, high_y), interpolation="antialiased")
    axes.grid(visible=False)
    axes.plot(*comparison.true_positions[:, :2].T, color=TRUTH, linewidth=2.2, label="true path")
    _draw_path(axes, comparison.positions[:, :2])
    _fit(axes, box, *_limits(comparison))
    axes.set(xlabel="x, metres", ylabel="y, metres")
    legend = axes.legend(loc="upper right", fontsize=9, labelcolor=INK, framealpha=0.75)
    legend.get_frame().set(facecolor=PAPER, edgecolor="none")


def show_place(axes: Axes, box: Box, comparison: TruthComparison) -> None:
    """Show the same part of the world as the drawing of the place itself, and its outline.

    Args:
        axes: of a view from above.
        box: left, bottom, width and height in pixels.
        comparison: with the truth.

    """
    (low_x, low_y), (high_x, high_y) = comparison.top_view.low, comparison.top_view.high
    outline = np.array(
        [[low_x, low_y], [high_x, low_y], [high_x, high_y], [low_x, high_y], [low_x, low_y]]
    )
    axes.plot(*outline.T, color=TRUTH, linewidth=1, alpha=0.7, zorder=2)
    _fit(axes, box, *_limits(comparison))
    axes.set(xlabel="x, metres", ylabel="y, metres")


def _limits(comparison: TruthComparison) -> tuple[Array, Array]:
    """Return the corners of the place and a margin for what was estimated beyond it."""
    low, high = np.array(comparison.top_view.low), np.array(comparison.top_view.high)
    margin = 0.1 * (high - low)
    return low - margin, high + margin


def _draw(axes: Axes, scene: Scene, box: Box, *, across: tuple[int, int], towards: int) -> None:
    """Draw a parallel projection along the axis ``towards`` the viewer."""
    depth = scene.points[:, towards]
    order = np.argsort(-depth if towards == 1 else depth)
    x, y = scene.points[order][:, across].T
    axes.scatter(x, y, s=2.2, c=scene.colors[order] / 255.0, linewidths=0)
    path = scene.poses[:, across, 3]
    _draw_path(axes, path)
    low, high = _around(scene.points[:, across], path)
    _fit(axes, box, low, high)
    size = 0.035 * (axes.get_ylim()[1] - axes.get_ylim()[0])
    axes.add_collection(_cameras(scene.poses, across, size))


def _draw_path(axes: Axes, path: Array) -> None:
    axes.plot(*path.T, color=ESTIMATE, linewidth=1.6, zorder=3, label="estimated path")
    axes.plot(*path[:1].T, "o", color=ESTIMATE, markersize=5, zorder=3)


def _cameras(poses: Array, across: tuple[int, int], size: float) -> LineCollection:
    """Return little pyramids at some of the poses, apex at the camera, opening forward."""
    some = poses[np.unique(np.linspace(0, len(poses) - 1, min(12, len(poses))).astype(int))]
    corners = size * np.array([[-0.6, -0.45, 1], [0.6, -0.45, 1], [0.6, 0.45, 1], [-0.6, 0.45, 1]])
    lines: list[Array] = []
    for pose in some:
        apex = pose[:3, 3]
        ends = corners @ pose[:3, :3].T + apex
        lines.extend(np.array([apex, end])[:, across] for end in ends)
        lines.append(np.vstack([ends, ends[:1]])[:, across])
    return LineCollection(lines, colors=ESTIMATE, linewidths=0.9, zorder=3)


def _around(points: NDArray[Any], path: Array) -> tuple[Array, Array]:
    """Return the corners of a box around the path and all points but the outliers."""
    ranges = [span(np.concatenate([points[:, k], path[:, k]]), 2) for k in (0, 1)]
    low, high = (np.array([each[end] for each in ranges]) for end in (0, 1))
    if len(path):
        low, high = np.minimum(low, path.min(axis=0)), np.maximum(high, path.max(axis=0))
    return low, high


def _fit(axes: Axes, box: Box, low: Array, high: Array) -> None:
    """Fit the axes around two corners, at one scale for both directions."""
    shape = np.array(box[2:]) / DOTS_PER_INCH
    half = max(0.53 * ((high - low) / shape).max(), 1e-6) * shape
    middle = 0.5 * (low + high)
    axes.set_xlim(middle[0] - half[0], middle[0] + half[0])
    axes.set_ylim(middle[1] - half[1], middle[1] + half[1])
