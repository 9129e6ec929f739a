# SPDX-License-Identifier: Apache-2.0
"""The figures of a report: curves over frames, frames beside their depth, and the cloud."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from xsvggt_ros.evaluation.evaluation import Evaluation
from xsvggt_ros.evaluation.evaluator import STRIPS
from xsvggt_ros.evaluation.metric_registry import MIB
from xsvggt_ros.evaluation.report.charts import (
    ESTIMATE,
    MUTED,
    THIRD,
    TRUTH,
    WARM,
    Chart,
    Curve,
    Level,
    Path,
    paths,
    stack,
)
from xsvggt_ros.metrics.depth import DepthAlignment
from xsvggt_ros.metrics.odometry import CHI2_6
from xsvggt_ros.metrics.trajectory import TrajectoryScore
from xsvggt_ros.stream.frame import ImageArray

_VIEWS = (("from above", 0, 1, "metres"), ("from the side", 0, 2, "metres up"))


def trajectory_chart(evaluation: Evaluation) -> str | None:
    """Draw the path from above and from the side, beside the true one where there is one."""
    score = evaluation.scores.trajectory.get("sim3")
    if score is None:
        poses = np.array(evaluation.session.recording.poses, np.float64).reshape(-1, 4, 4)
        if len(poses) < 2:
            return None
        places = poses[:, :3, 3]
        views = (("from above", 0, 1, "x forward", "y left"),
                 ("from the side", 0, 2, "x forward", "z up"))  # fmt: skip
        return paths(
            [
                (title, across, up, [Path("estimate", places[:, [i, j]], np.zeros(len(places)))])
                for title, i, j, across, up in views
            ]
        )
    estimated, true = evaluation.session.matched()
    axes = level_axes(true)
    moved = score.truth_from_estimate.poses(estimated)[:, :3, 3] @ axes.T
    truth = true[:, :3, 3] @ axes.T
    origin = truth[0]
    moved, truth = moved - origin, truth - origin
    return paths(
        [
            (
                title,
                "metres",
                up,
                [
                    Path("truth", truth[:, [i, j]]),
                    Path("estimate, Sim(3)", moved[:, [i, j]], score.position_errors),
                ],
            )
            for title, i, j, up in _VIEWS
        ]
    )


def level_axes(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows: where the path is longest, across it, and up, as the cameras have it on average.

    Worlds of data sets are turned every way; people look at paths from above all the same.
    """
    up = -poses[:, :3, 1].mean(axis=0)  # NaN where the truth has positions only
    length = float(np.linalg.norm(up))
    up = up / length if length > 1e-3 else np.array([0.0, 0.0, 1.0])
    level = np.eye(3) - np.outer(up, up)
    places = poses[:, :3, 3] - poses[:, :3, 3].mean(axis=0)
    _, vectors = np.linalg.eigh(level @ (places.T @ places) @ level + 1e-9 * level)
    along = level @ vectors[:, -1]
    along /= np.linalg.norm(along)
    return np.stack([along, np.cross(up, along), up])


def error_chart(evaluation: Evaluation) -> str | None:
    """Draw the errors of pose and depth over the frames of the session."""
    charts = []
    score = evaluation.scores.trajectory.get("sim3")
    if score:
        frames = np.array(evaluation.session.posed, np.float64)
        position = Curve("position", frames, score.position_errors, ESTIMATE, filled=True)
        charts.append(
            Chart("Position error after Sim(3)", "m", [position],
                  [Level(f"rmse {score.ate.rmse:.3f} m", score.ate.rmse)])
        )  # fmt: skip
        if np.isfinite(score.rpe_translation.rmse):
            charts.append(_motion_chart(score, frames[score.delta :]))
    depth = evaluation.scores.frame_depth
    if depth:
        frames = np.array(sorted(depth), np.float64)
        values = np.array([depth[int(frame)].abs_rel for frame in frames])
        whole = evaluation.scores.depth["l1"].errors.abs_rel
        charts.append(
            Chart("AbsRel, one L1 scale for the whole session", "share",
                  [Curve("AbsRel", frames, values, WARM, filled=True)],
                  [Level(f"all pixels {whole:.3f}", whole, MUTED)])
        )  # fmt: skip
    return stack(charts, "frame of the session") if charts else None


def step_chart(evaluation: Evaluation) -> str | None:
    """Draw how the errors of steps in `odom` compare with their covariances."""
    odometry = evaluation.scores.odometry
    score = odometry.steps.get("sim3")
    if score is None:
        return None
    frames = odometry.step_frames["sim3"].astype(np.float64)
    charts = [
        Chart(
            "Squared step error over its covariance (NEES/6), after Sim(3)",
            "1 = right",
            [Curve("NEES/6", frames, score.nees, ESTIMATE, filled=True)],
            [Level("95 % of steps should be below", CHI2_6 / 6, MUTED)],
        ),
        Chart(
            "Largest component of a step error",
            "sigma",
            [Curve("component", frames, score.sigmas, WARM, filled=True)],
            [Level("3 sigma", 3.0, MUTED)],
        ),
    ]
    return stack(charts, "frame of the session")


def _motion_chart(score: TrajectoryScore, frames: NDArray[np.float64]) -> Chart:
    return Chart(
        f"Error of the motion over {score.delta} frame(s)",
        "m",
        [Curve("translation", frames, score.step_translation_errors, THIRD, filled=True)],
        [Level(f"rmse {score.rpe_translation.rmse:.4f} m", score.rpe_translation.rmse)],
    )


def cost_charts(evaluation: Evaluation) -> tuple[str, str]:
    """Draw latency, and cache and memory, over the frames of the run."""
    costs, cost = evaluation.costs, evaluation.cost
    frames = np.arange(len(costs), dtype=np.float64)
    milliseconds = {name: 1e3 * costs.series(name) for name in ("latency", "network")}
    levels = []
    if cost.latency:
        levels = [Level(f"p50 {cost.latency.p50:.0f} ms", cost.latency.p50, MUTED),
                  Level(f"p95 {cost.latency.p95:.0f} ms", cost.latency.p95)]  # fmt: skip
    later = slice(1, None) if len(frames) > 1 else slice(None)
    latency = stack(
        [
            Chart(
                "Latency, first frame left out",
                "ms",
                [
                    Curve("whole frame", frames[later], milliseconds["latency"][later], ESTIMATE),
                    Curve("network", frames[later], milliseconds["network"][later], TRUTH),
                ],
                levels,
            )
        ],
        "frame of the run",
        height=2.7,
    )
    cache = Chart(
        "Bytes of the cache",
        "MiB",
        [
            Curve("allocated", frames, costs.series("cache_bytes") / MIB, ESTIMATE, filled=True),
            Curve("uncompressed", frames, costs.series("uncompressed_bytes") / MIB, TRUTH, "--"),
        ],
        logarithmic=cost.uncompressed_bytes > 5 * cost.cache_peak_bytes,
    )
    tokens = Chart(
        "Tokens in the fullest layer",
        "tokens",
        [
            Curve("held", frames, costs.series("tokens"), THIRD, filled=True),
            Curve("evicted, mean of layers", frames,
                  costs.series("evicted") / max(1, evaluation.layers), WARM),
        ],
        [Level("budget", float(costs.series("budget_tokens")[-1]), MUTED)]
        if evaluation.request.cache.bounded
        else [],
    )  # fmt: skip
    memory = [Curve("process", frames, costs.series("process_bytes") / MIB, ESTIMATE, filled=True)]
    if cost.device_peak_bytes is not None:
        memory.append(Curve("device", frames, costs.series("device_bytes") / MIB, WARM))
    process = Chart("Memory in all", "MiB", memory)
    return latency, stack([cache, tokens, process], "frame of the run")


UNKNOWN = (205, 210, 218)
"""Color of unknown values."""

PAPER = (250, 251, 252)
PATH = (232, 89, 12)

DOT = 3
"""Pixels of a point, each way."""


def photograph(image: ImageArray) -> str:
    """Return an RGB image [h, w, 3] as a JPEG in a data URI."""
    return _uri(image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 88])


def drawing(image: ImageArray) -> str:
    """Return an RGB image [h, w, 3] as a PNG in a data URI."""
    return _uri(image, ".png", [cv2.IMWRITE_PNG_COMPRESSION, 6])


def _uri(image: ImageArray, suffix: str, options: list[int]) -> str:
    done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    assert done
    kind = "jpeg" if suffix == ".jpg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode('ascii')}"


def colored(
    values: NDArray[np.floating], low: float, high: float, palette: str = "turbo_r"
) -> ImageArray:
    """Return values as colors, uint8 [h, w, 3]; NaN is gray.

    Args:
        values: [h, w].
        low: value of the first color.
        high: value of the last color.
        palette: of matplotlib.

    """
    known = np.isfinite(values)
    share = (np.where(known, values, low) - low) / max(high - low, 1e-12)
    image = _palette(palette)[(255 * share.clip(0, 1)).astype(np.uint8)]
    image[~known] = UNKNOWN
    return image


def gradient(palette: str) -> str:
    """Return a palette from its low to its high end as a CSS gradient."""
    colors = _palette(palette)[np.linspace(0, 255, 9).astype(int)]
    return ", ".join(f"rgb({r} {g} {b})" for r, g, b in colors.tolist())


@lru_cache(maxsize=8)
def _palette(name: str) -> NDArray[np.uint8]:
    colors: NDArray[np.float64] = colormaps[name](np.arange(256))[:, :3]
    pixels: NDArray[np.uint8] = (255 * colors).round().astype(np.uint8)
    return pixels


@dataclass(frozen=True)
class View:
    """A cloud seen in parallel rays.

    Attributes:
        image: RGB [h, w, 3].
        metre: pixels that one unit of length takes.

    """

    image: ImageArray
    metre: float


def cloud_view(
    points: NDArray[np.float32],
    colors: NDArray[np.uint8],
    path: NDArray[np.float64],
    axes: tuple[int, int],
    towards: NDArray[np.float64],
    size: tuple[int, int] = (960, 640),
) -> View:
    """Draw a cloud [n, 3] and the camera's path [m, 3] from one side.

    Args:
        points: of the cloud.
        colors: RGB, uint8 [n, 3].
        path: positions of the camera.
        axes: which coordinate runs to the right and which one up.
        towards: direction [3] towards the viewer; nearer points hide others.
        size: width and height in pixels.

    """
    width, height = size
    flat = points[:, axes]
    middle, metre = _frame(flat, path[:, axes], size)
    image = np.full((height, width, 3), PAPER, np.uint8)
    x = np.rint((flat[:, 0] - middle[0]) * metre + width / 2).astype(int)
    y = np.rint(height / 2 - (flat[:, 1] - middle[1]) * metre).astype(int)
    order = np.argsort(points @ towards.astype(np.float32), kind="stable")
    for shift_y in range(DOT):
        for shift_x in range(DOT):
            u, v = x[order] + shift_x, y[order] + shift_y
            seen = (u >= 0) & (u < width) & (v >= 0) & (v < height)
            image[v[seen], u[seen]] = colors[order][seen]
    _draw_camera_path(image, path[:, axes], middle, metre)
    return View(image, metre)


def _frame(
    points: NDArray[np.float32], path: NDArray[np.float64], size: tuple[int, int]
) -> tuple[NDArray[np.float64], float]:
    """Return middle and pixels per unit that show the path whole, and all points but outliers."""
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    if len(points):
        low, high = np.percentile(points, [2, 98], axis=0)
    if len(path):
        low, high = np.minimum(low, path.min(axis=0)), np.maximum(high, path.max(axis=0))
    span = np.maximum(high - low, 1e-6)
    return (low + high) / 2, float((0.88 * np.array(size) / span).min())


def _draw_camera_path(
    image: ImageArray, path: NDArray[np.float64], middle: NDArray[np.float64], metre: float
) -> None:
    height, width = image.shape[:2]
    if not len(path):
        return
    x = (path[:, 0] - middle[0]) * metre + width / 2
    y = height / 2 - (path[:, 1] - middle[1]) * metre
    corners = np.rint(16 * np.stack([x, y], axis=1)).astype(np.int32)
    for color, thickness in (((255, 255, 255), 5), (PATH, 2)):
        cv2.polylines(image, [corners], False, color, thickness, cv2.LINE_AA, 4)
    start = (int(corners[0, 0]), int(corners[0, 1]))
    for color, radius in (((255, 255, 255), 7), (PATH, 5)):
        cv2.circle(image, start, 16 * radius, color, -1, cv2.LINE_AA, 4)


WORST_SHOWN = 0.5
"""Relative error from which on the error's colour stays the same."""


@dataclass(frozen=True)
class Column:
    """Images of one frame as data URIs; without a true depth, truth and error are None."""

    index: int
    image: str
    truth: str | None
    estimate: str
    error: str | None
    caption: str


@dataclass(frozen=True)
class Strips:
    """Columns that share the colours of depth, from ``near`` to ``far``, and of error."""

    columns: list[Column]
    near: float
    far: float
    unit: str
    worst: float = WORST_SHOWN


def strips(evaluation: Evaluation) -> Strips:
    """Return the frames that the run has kept, spread evenly over the session."""
    chosen = evaluation.session.strips.pick()[:STRIPS]
    score = evaluation.scores.depth.get("l1")
    alignment = score.alignment if score else DepthAlignment("raw")
    depths = [alignment.align(each.depth) for each in chosen]
    truths = [each.truth for each in chosen if each.truth is not None]
    values = np.concatenate([each.ravel() for each in (truths if score and truths else depths)])
    values = values[np.isfinite(values)]
    near, far = np.percentile(values, [1, 99]).tolist() if len(values) else (0.0, 1.0)
    columns = []
    for each, depth in zip(chosen, depths, strict=True):
        truth = error = None
        if each.truth is not None and score:
            truth = drawing(colored(each.truth, near, far))
            off = np.abs(depth - each.truth) / np.where(each.truth > 0, each.truth, np.nan)
            error = drawing(colored(off, 0, WORST_SHOWN, "inferno"))
        errors = evaluation.scores.frame_depth.get(each.index)
        caption = f"AbsRel, L1 scale: {errors.abs_rel:.3f}" if errors else ""
        estimate = drawing(colored(depth, near, far))
        columns.append(Column(each.index, photograph(each.color), truth, estimate, error, caption))
    return Strips(columns, near, far, "m" if score else "units")
