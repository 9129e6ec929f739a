# SPDX-License-Identifier: Apache-2.0
"""The files that a recording leaves behind.

Among them one image to look at: what went in, what came out, and what it took.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError, OutputError
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.files import replacing, seconds_text, write_each, write_ply, write_tum
from xsvggt_ros.stream.drawing import (
    DOTS_PER_INCH,
    ESTIMATE,
    FAINT,
    INK,
    MUTED,
    PAPER,
    WARM,
    Box,
    Scene,
    axes_at,
    draw_from_above,
    draw_from_side,
    draw_truth,
    dress,
    show_place,
    span,
    write,
)
from xsvggt_ros.stream.recording import MIB, Recording, mebibytes, summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from xsvggt_ros.stream.recording import RecordedFrame, TruthComparison


MOST_DRAWN = 2_000
"""Frames of the curves; of more, every so many."""


def draw_cache(figure: Figure, box: Box, recording: Recording) -> None:
    """Draw allocated and uncompressed bytes; each curve says what it ends at.

    Args:
        figure: that is drawn into.
        box: left, bottom, width and height in pixels.
        recording: whose cache is drawn.

    """
    axes = axes_at(figure, box)
    dress(axes, "memory of the past, MiB")
    axes.set_xlabel("frames")
    if not recording.cache:
        return
    stride = -(-len(recording.cache) // MOST_DRAWN)
    frames = np.arange(1, len(recording.cache) + 1)[::-1][::stride][::-1]
    rows = np.array([recording.cache[frame - 1] for frame in frames], np.float64) / MIB
    held, uncompressed = rows[:, 0] + rows[:, 1], rows[:, 2]
    axes.fill_between(frames, uncompressed, color=WARM, alpha=0.12, linewidth=0)
    axes.plot(frames, uncompressed, color=WARM, linewidth=2)
    axes.fill_between(frames, held, color=ESTIMATE, alpha=0.35, linewidth=0)
    axes.plot(frames, held, color=ESTIMATE, linewidth=2)
    top = 1.18 * max(uncompressed.max(), held.max(), 1e-9)
    axes.set(xlim=(0, max(1.0, 1.02 * frames[-1])), ylim=(0, top))
    last = recording.cache[-1]
    _name(axes, uncompressed[-1], top, f"uncompressed: {mebibytes(last.uncompressed)}", WARM)
    _name(axes, held[-1], top, f"allocated: {mebibytes(last.allocated + last.scratch)}", ESTIMATE)
    if last.scratch:
        axes.text(
            0.03, 0.95, f"allocated = cache {mebibytes(last.allocated)} + scratch "
            f"{mebibytes(last.scratch)}", color=MUTED, size=8.5, va="top",
            transform=axes.transAxes, parse_math=False,
        )  # fmt: skip


def _name(axes: Axes, height: float, top: float, text: str, color: str) -> None:
    """Write what a curve is above its end."""
    axes.text(
        0.985, height / top + 0.02, text, color=color, size=10, ha="right", va="bottom",
        transform=axes.transAxes, parse_math=False,
    )  # fmt: skip


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
    figure: Figure, box: Box, recording: Recording, comparison: TruthComparison | None
) -> None:
    """Draw images, depth, confidence and, where it is known, true depth, so that they fill a box.

    Args:
        figure: that is drawn into.
        box: left, bottom, width and height in pixels.
        recording: whose images are drawn.
        comparison: gives the true depth; None where it is not known.

    """
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
    indices = np.linspace(0, len(frames) - 1, count).round().astype(int)
    return [frames[index] for index in indices]


def _height_per_width(frame: RecordedFrame) -> float:
    height, width = frame.depth.shape
    return float(height / width)


def _rows(frames: Sequence[RecordedFrame], comparison: TruthComparison | None) -> list[_Row]:
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


OVERVIEW_SIZE = (1600, 1240)
"""Width and height of the image in pixels."""

_MARGIN = 32
_PANEL = 452
"""Width of the three panels at the bottom."""


def write_overview(
    path: Path, recording: Recording, heading: str, comparison: TruthComparison | None = None
) -> None:
    """Draw a recording into a PNG of OVERVIEW_SIZE; the file appears whole or not at all.

    With a comparison it shows true depth, the place itself and the true path, in metres of the true
    world; without one the cloud from above and from the side, in the map frame.

    Args:
        path: of the PNG.
        recording: that is drawn.
        heading: first line.
        comparison: with the truth, or None.

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


def _write_figures(
    figure: Figure, recording: Recording, comparison: TruthComparison | None
) -> None:
    """Write the numbers that count, one beside the other."""
    figures = summarize(recording, comparison)
    step = (OVERVIEW_SIZE[0] - 2 * _MARGIN) / max(len(figures), 1)
    for number, each in enumerate(figures):
        left, base = _MARGIN + number * step, OVERVIEW_SIZE[1] - 88
        write(figure, left, base, each.value, 19, INK, weight="bold")
        write(figure, left, base - 20, each.meaning, 9, MUTED)


def _draw_panels(figure: Figure, recording: Recording, comparison: TruthComparison | None) -> None:
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


STEPS_PER_UNIT = 1000
"""Of a 16-bit PNG: thousandths of the model's unit, so millimetres where that is metres."""

MOST_STEPS = 65535

TABLE = "cameras.csv"

_OWN = re.compile(r"[0-9]{6,}\.(png|npy)")
"""Names of depth maps."""

logger = logging.getLogger(__name__)


class DepthFiles:
    """Writes one depth map per frame, and ``cameras.csv`` with the pinhole camera of each.

    ``png`` is 16 bit, STEPS_PER_UNIT to a unit, 0 where unknown or out of range; ``npy`` is
    float32, NaN where unknown. With the first file, those of an earlier run go, so that no two are
    mixed. After one that cannot be written, no more are.

    Attributes:
        failure: why writing ended early; None while it goes well.

    """

    def __init__(self, directory: Path, kind: str) -> None:
        """Make the directory; raise ConfigurationError for an unknown kind."""
        if kind not in ("png", "npy"):
            raise ConfigurationError(f"depth format '{kind}' is unknown; choose png or npy")
        self._directory = directory
        self._kind = kind
        self.failure: OutputError | None = None
        self._rows = ["file,timestamp,fx,fy,cx,cy,width,height"]

    def write(self, stamp: int, depth: NDArray[np.float32], camera: Intrinsics) -> None:
        """Write the depth of one frame and note its camera.

        Args:
            stamp: nanoseconds.
            depth: [h, w].
            camera: of that size.

        """
        if self.failure is not None:
            return
        name = f"{len(self._rows) - 1:06d}.{self._kind}"
        try:
            if len(self._rows) == 1:
                self._remove_earlier()
                self.close()  # Even a run that is killed leaves the mark of its files.
            with replacing(self._directory / name) as stream:
                if self._kind == "npy":
                    np.save(stream, depth)
                else:
                    stream.write(cv2.imencode(".png", depth_steps(depth))[1].tobytes())
        except OutputError as error:
            self.failure = error
            logger.warning("no more depth is written after %d maps: %s", len(self._rows) - 1, error)
            return
        numbers = ",".join(f"{v:.6f}" for v in (camera.fx, camera.fy, camera.cx, camera.cy))
        size = f"{camera.width},{camera.height}"
        self._rows.append(f"{name},{seconds_text(stamp)},{numbers},{size}")

    def _remove_earlier(self) -> None:
        """Remove what an earlier run wrote here, and nothing else."""
        if not (self._directory / TABLE).is_file():
            return
        try:
            for each in self._directory.iterdir():
                if each.name == TABLE or _OWN.fullmatch(each.name):
                    each.unlink()
        except OSError as error:
            raise OutputError(
                f"'{self._directory}' holds depth of an earlier run that cannot be removed "
                f"({error.strerror}); choose another place"
            ) from error

    def close(self) -> Path:
        """Write the table of cameras so far; return the directory."""
        with replacing(self._directory / TABLE) as stream:
            stream.write("\n".join([*self._rows, ""]).encode("ascii"))
        return self._directory


def depth_steps(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return depth [h, w] in STEPS_PER_UNIT; 0 where it is unknown, not positive or too far."""
    steps = np.rint(depth.astype(np.float64) * STEPS_PER_UNIT)
    steps[~((steps > 0) & (steps <= MOST_STEPS))] = 0
    return steps.astype(np.uint16)


def write_results(
    recording: Recording, directory: Path, heading: str, comparison: TruthComparison | None = None
) -> list[Path]:
    """Write cloud.ply, trajectory.tum and overview.png; return their paths.

    The camera's path comes first, since a kilobyte fits on most full disks.

    Args:
        recording: what is written.
        directory: of the files.
        heading: of the overview.
        comparison: with the truth; adds to the overview.

    Raises:
        PartlyWrittenError: some cannot be written; the others are.

    """
    paths = [directory / name for name in ("cloud.ply", "trajectory.tum", "overview.png")]
    cloud, path, overview = paths
    write_each(
        {
            path: partial(write_tum, path, recording.trajectory()),
            overview: partial(write_overview, overview, recording, heading, comparison),
            cloud: partial(write_ply, cloud, *recording.cloud.arrays()),
        }
    )
    return paths


def title(source: str, weights: str, cache: CacheSettings, frames: int) -> str:
    """Return the heading of an overview; of a long path, it shows the end.

    Args:
        source: of the images.
        weights: a file, or a name.
        cache: settings in force.
        frames: number of frames.

    """
    source, weights = (str(Path(*Path(each).parts[-2:])) for each in (source, weights))
    return f"{source}  ·  {weights}  ·  {cache.words}  ·  {frames} frames"
