# SPDX-License-Identifier: Apache-2.0
"""The tables of a report as text; page and summary only lay them out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from xsvggt_ros.evaluation.evaluation import Evaluation, Percentiles
from xsvggt_ros.evaluation.metric_registry import BY_NAME, MIB
from xsvggt_ros.metrics.odometry import Consistency, DriftScore

ALIGNED = {
    "none": "none",
    "origin": "first pose only",
    "se3": "SE(3)",
    "se3_online": "SE(3), scale known then",
    "sim3": "Sim(3)",
    "raw": "raw",
    "median": "median scale",
    "l1": "L1 scale",
    "l1_shift": "L1 scale and shift",
}


@dataclass(frozen=True)
class Table:
    """A table; the first column holds words, the others numbers. ``note`` says what they mean."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def tables(evaluation: Evaluation) -> list[Table]:
    """Return every table that has data."""
    made = (
        _trajectory(evaluation), _drift(evaluation), _steps(evaluation), _summed_steps(evaluation),
        _map_poses(evaluation), _joins(evaluation), _depth(evaluation), _cloud(evaluation),
        _live(evaluation),
    )  # fmt: skip
    return [table for table in made if table] + [_latency(evaluation), _memory(evaluation)]


def _trajectory(evaluation: Evaluation) -> Table | None:
    scores = evaluation.scores.trajectory
    if not scores:
        return None
    rows = [
        (
            ALIGNED[kind],
            f"{score.scale:.4f}",
            *(f"{value:.4f}" for value in (score.ate.rmse, score.ate.median, score.ate.max)),
            _known(score.ate_rotation.rmse, 3),
            _known(score.rpe_translation.rmse, 4),
            _known(score.rpe_rotation.rmse, 3),
        )
        for kind, score in scores.items()
    ]
    first = next(iter(scores.values()))
    return Table(
        "Trajectory",
        ("aligned by", "scale", "ATE rmse, m", "median", "max", "rotation rmse, °",
         "RPE rmse, m", "RPE rmse, °"),
        rows,
        f"{first.ate.count} poses. ATE: distance of positions; RPE: error of the motion over "
        f"{first.delta} frame(s). The scale is the factor on the estimate's lengths.",
    )  # fmt: skip


_SHORT = {"sim3": "", "se3_online": ", scale known then"}
"""How the columns of a wide table say their alignment."""


def _drift(evaluation: Evaluation) -> Table | None:
    odometry = evaluation.scores.odometry
    columns = [
        (f"{frame}{_SHORT.get(kind, f', {ALIGNED[kind]}')}", score)
        for frame, scores in (("map", odometry.drift), ("odom", odometry.odom_drift))
        for kind, score in scores.items()
    ]
    if not columns:
        return None
    # No alignment changes rotations.
    turned = [
        (frame, next(iter(scores.values())))
        for frame, scores in (("map", odometry.drift), ("odom", odometry.odom_drift))
        if scores
    ]
    lengths = sorted({length for _, score in columns for length in score.lengths})
    rows = [(f"{length:g} m", *_drift_cells(columns, turned, length)) for length in lengths]
    return Table(
        "Drift",
        (
            "segments of",
            "segments",
            *(f"{label}, %" for label, _ in columns),
            *(f"{frame}, °/m" for frame, _ in turned),
        ),
        [*rows, ("all", *_drift_cells(columns, turned, None))],
        "Errors over segments of the true path, as in KITTI. map: joins correct it; odom: the sum "
        "of steps. Scaled by Sim(3), except where the scale is the one known then. "
        f"{_scale_note(evaluation)}",
    )


def _drift_cells(
    columns: list[tuple[str, DriftScore]],
    turned: list[tuple[str, DriftScore]],
    length: float | None,
) -> list[str]:
    """Return the cells of one length of segments; None = of all of them."""
    found, turns = (
        [score.of_length(length) for _, score in scores] for scores in (columns, turned)
    )
    first = next(each for each in found if each is not None)
    ways = ["-" if each is None else f"{100 * each[0].mean:.2f}" for each in found]
    angles = ["-" if each is None else f"{each[1].mean:.3f}" for each in turns]
    return [f"{first[0].count}", *ways, *angles]


def _scale_note(evaluation: Evaluation) -> str:
    odometry = evaluation.scores.odometry
    if odometry.scales is None:
        return f"No scale was known during the run (scale_source {odometry.scale_source})."
    least, most, last = odometry.scales
    late = odometry.frames_without_scale
    return (
        f"Scale known then: metres per unit from true {odometry.scale_source}, {least:.4f} to "
        f"{most:.4f}, {last:.4f} at the end"
        + (f", unknown for the first {late} frames." if late else ".")
    )


def _consistency(score: Consistency) -> tuple[str, ...]:
    """Return the cells under NEES/6, translation/3, rotation/3 and within 95 %."""
    parts = (score.nees.mean(), score.nees_translation, score.nees_rotation)
    return *(f"{each:.2f}" for each in parts), f"{100 * score.coverage:.1f}"


def _steps(evaluation: Evaluation) -> Table | None:
    odometry = evaluation.scores.odometry
    if not odometry.steps:
        return None
    rows = [
        (
            ALIGNED[kind],
            *_consistency(score),
            f"{score.translation.max:.4f}",
            f"{score.rotation.max:.3f}",
            f"{score.sigmas.max():.1f}",
            f"{odometry.step_frames[kind][score.sigmas.argmax()]}",
        )
        for kind, score in odometry.steps.items()
    ]
    steps = len(next(iter(odometry.steps.values())).nees)
    return Table(
        "Steps of odometry",
        ("scaled by", "NEES/6", "translation/3", "rotation/3", "within 95 %, %",
         "largest error, m", "largest, °", "largest, sigma", "at frame"),
        rows,
        f"{steps} steps from frame to frame in odom, against the true ones and their covariances: "
        "NEES/6 of 1 and 95 % within are right; more NEES is a covariance that is too small. "
        f"{odometry.unknown_steps} steps whose covariance is published as unknown are left out.",
    )  # fmt: skip


def _summed_steps(evaluation: Evaluation) -> Table | None:
    poses = evaluation.scores.odometry.poses
    rows = [
        (
            ALIGNED[kind],
            f"{score.frames}",
            *_consistency(score),
            f"{len(score.nees)}",
        )
        for kind, scores in poses.items()
        for score in scores
    ]
    if not rows:
        return None
    return Table(
        "Poses in odom",
        ("scaled by", "frames", "NEES/6", "translation/3", "rotation/3", "within 95 %, %", "poses"),
        rows,
        "Sums of so many steps, against the true ones and the covariances that a session begun "
        "there would publish. They overlap, so a short stream has few that are independent.",
    )


def _map_poses(evaluation: Evaluation) -> Table | None:
    scores = evaluation.scores.odometry.map_poses
    if not scores:
        return None
    return Table(
        "Poses in the map",
        ("scaled by", "NEES/6", "translation/3", "rotation/3", "within 95 %, %", "poses"),
        [
            (
                ALIGNED[kind],
                *_consistency(score),
                f"{len(score.nees)}",
            )
            for kind, score in scores.items()
        ],
        "Against the true ones, from the first frame on, and the covariances of ~/pose. Errors of "
        "neighbours are nearly the same, so a stream counts as a few.",
    )


MOST_JOINS = 30
"""Rows; metrics.json has them all."""


def _joins(evaluation: Evaluation) -> Table | None:
    odometry = evaluation.scores.odometry
    if not odometry.joins:
        return None
    rows = [
        (
            f"{join.frame}",
            join.reason,
            join.objection or "joined",
            *(_known(value, 4) for value in (join.scale, 100 * join.distance, join.jump)),
            _known(join.jump_deg, 3),
        )
        for join in odometry.joins[:MOST_JOINS]
    ]
    more = len(odometry.joins) - len(rows)
    return Table(
        "Joins",
        ("frame", "because", "result", "scale", "points apart, %", "map to odom, units", "°"),
        rows,
        f"{odometry.joined} joins, {len(odometry.joins) - odometry.joined} refused"
        + (f"; {more} more are in metrics.json. " if more else ". ")
        + "Scale: session's units per unit of the new gauge. map to odom: by how much it moved.",
    )


def _known(value: float, decimals: int) -> str:
    """Return a number, a dash where it is unknown."""
    return "-" if math.isnan(value) else f"{value:.{decimals}f}"


def _depth(evaluation: Evaluation) -> Table | None:
    scores = evaluation.scores.depth
    if not scores:
        return None
    rows = []
    for kind, score in scores.items():
        e = score.errors
        rows.append(
            (
                ALIGNED[kind],
                *(f"{v:.4f}" for v in (e.abs_rel, e.sq_rel, e.depth_rmse, e.depth_log_rmse)),
                *(f"{100 * v:.1f}" for v in (e.delta_1, e.delta_2, e.delta_3)),
                f"{score.alignment.scale:.3f}",
            )
        )
    first = next(iter(scores.values()))
    sampled = (
        "" if first.errors.pixels == first.seen else f", {first.errors.pixels:,} of them drawn"
    )
    return Table(
        "Depth",
        ("aligned by", "AbsRel", "SqRel, m", "RMSE, m", "log RMSE", "δ<1.25, %", "δ<1.25², %",
         "δ<1.25³, %", "scale"),
        rows,
        f"All {first.seen:,} pixels with both depths{sampled}, aligned once for the whole session. "
        f"{first.missing:,} pixels with a truth have no prediction.",
    )  # fmt: skip


def _cloud(evaluation: Evaluation) -> Table | None:
    cloud = evaluation.scores.cloud
    if not cloud:
        return None
    numbers = cloud.summary()
    rows = [
        (label, *(f"{numbers[key][kind]:.4f}" for kind in ("mean", "median")))
        for key, label in (
            ("accuracy_icp", "accuracy, m (estimate to truth)"),
            ("completeness_icp", "completeness, m (truth to estimate)"),
            ("normal_consistency_icp", "normal consistency"),
        )
    ]
    return Table("Cloud", ("", "mean", "median"), rows, cloud_note(evaluation))


def cloud_note(evaluation: Evaluation) -> str:
    """Say how the clouds were compared."""
    show, metrics = BY_NAME["f_score_icp"], evaluation.metrics()
    distance = evaluation.request.scoring.fscore_distance
    points = evaluation.session.cloud
    count = len(points.points()) if points else 0
    return (
        f"F-score within {100 * distance:g} cm: {show.show(show.value(metrics))}. "
        f"{count:,} points of the same pixels, aligned by Sim(3), then by ICP."
    )


def _live(evaluation: Evaluation) -> Table | None:
    live, counts = evaluation.live, evaluation.counts
    if live is None:
        return None
    row = (
        f"{live.speed:g}", live.queue, f"{live.input_rate:.2f}", f"{live.output_rate:.2f}",
        f"{counts.dropped} of {counts.taken}", f"{live.late_source}",
    )  # fmt: skip
    heads = ("speed", "queue", "frames/s in", "frames/s out", "dropped", "late from the source")
    return Table(
        "Live",
        heads,
        [row],
        "Latency counts from a frame's arrival here, the time in the queue included.",
    )


def _latency(evaluation: Evaluation) -> Table:
    cost = evaluation.cost
    live = evaluation.live is not None
    whole = "arrival to result" if live else "image to result"
    rows = [
        _times(whole, cost.latency),
        _times("network and cache", cost.network),
    ]
    stages = ", ".join(f"{name} {value:.1f}" for name, value in cost.stages.items())
    return Table(
        "Latency, ms",
        ("", "p50", "p95", "p99", "max", "mean"),
        rows,
        f"Device synchronised. The first frame took {cost.first_frame:.1f} ms and is in none of "
        f"these. Mean of each stage: {stages}. The engine alone: "
        f"{cost.frames_per_second:.2f} frames/s.",
    )


def _times(label: str, times: Percentiles | None) -> tuple[str, ...]:
    if times is None:
        return (label, *("-" for _ in range(5)))
    values = (times.p50, times.p95, times.p99, times.max, times.mean)
    return (label, *(f"{value:.1f}" for value in values))


def _memory(evaluation: Evaluation) -> Table:
    cost = evaluation.cost
    rows = [
        ("cache: keys, values, scales, indices", _mib(cost.cache_peak_bytes),
         _mib(cost.cache_steady_bytes)),
        ("scratch of decoding", _mib(cost.scratch_bytes), ""),
        ("camera head's memory", _mib(cost.camera_bytes), ""),
        ("the same tokens, uncompressed", _mib(cost.uncompressed_bytes), ""),
        ("weights", _mib(cost.weights_bytes), _mib(cost.weights_bytes)),
        ("process, libraries included", _mib(cost.process_peak_bytes),
         _mib(cost.process_steady_bytes)),
    ]  # fmt: skip
    if cost.device_peak_bytes is not None and cost.device_steady_bytes is not None:
        rows.append(("device", _mib(cost.device_peak_bytes), _mib(cost.device_steady_bytes)))
    return Table(
        "Memory, MiB",
        ("", "peak", "steady"),
        rows,
        f"Steady is the median over the second half of the frames. At most {cost.tokens:,} tokens "
        f"in a layer; {cost.evicted_tokens:,} tokens evicted, summed over layers.",
    )


def _mib(count: int) -> str:
    return f"{count / MIB:,.2f}" if count < 100 * MIB else f"{count / MIB:,.0f}"
