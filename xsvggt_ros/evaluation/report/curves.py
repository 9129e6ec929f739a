# SPDX-License-Identifier: Apache-2.0
"""Which curves a report shows, and of what."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.evaluation.evaluation import Evaluation
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
from xsvggt_ros.metrics.odometry import CHI2_6
from xsvggt_ros.metrics.trajectory import TrajectoryScore

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
