# SPDX-License-Identifier: Apache-2.0
"""Errors of odometry: drift per distance, and whether steps are as precise as they claim.

Drift: A. Geiger, P. Lenz, R. Urtasun, "Are we ready for Autonomous Driving? The KITTI Vision
Benchmark Suite", CVPR 2012, section 3.2. Two differences from its development kit: a segment begins
at every pose (there: at every tenth), and an error is divided by the true length of its segment
(there: by the nominal one, which the segment exceeds).

NEES: Y. Bar-Shalom, X. R. Li, T. Kirubarajan, "Estimation with Applications to Tracking and
Navigation", 2001, section 5.4.2.

A number goes out under a name that ends in its alignment, as those of `trajectory.py` do. Rotations
alone, which no alignment changes, have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import EvaluationError
from xsvggt_ros.geometry.pose_covariance import AccumulatedError, Persistence
from xsvggt_ros.geometry.rigid import invert, log_se3, rotation_angles
from xsvggt_ros.metrics.trajectory import (
    ErrorStatistics,
    Poses,
    TrajectoryAlignment,
    align_poses,
    check_poses,
    inverses,
)

Array = NDArray[np.float64]

SEGMENTS = tuple(float(each) for each in range(100, 900, 100))
"""Metres; the segment lengths of KITTI."""

SHORTEST_PATH = 0.02
"""Metres; shorter paths have no drift worth the name."""

CHI2_6 = 12.591587
"""95 % quantile of chi2 with 6 components."""

SPANS = (10, 50, 200)
"""Frames over which poses are scored against their covariances."""
_BEGINS = 10
"""Poses of one span that begin before the first of them ends."""


@dataclass(frozen=True)
class DriftScore:
    """Errors over segments of a path, per metre of the true way.

    Attributes:
        alignment: that gave the estimate its unit; segments need no other.
        lengths: metres; nominal lengths of the segments.
        translation: by length; metres per metre.
        rotation: by length; degrees per metre.
        all_translation: of all segments together.
        all_rotation: of all segments together.

    """

    alignment: TrajectoryAlignment
    lengths: tuple[float, ...]
    translation: tuple[ErrorStatistics, ...]
    rotation: tuple[ErrorStatistics, ...]
    all_translation: ErrorStatistics
    all_rotation: ErrorStatistics

    def of_length(self, length: float | None) -> tuple[ErrorStatistics, ErrorStatistics] | None:
        """Return translation and rotation of segments of one length, None = of all of them.

        None where no segment of that length fits the path.
        """
        if length is None:
            return self.all_translation, self.all_rotation
        if length not in self.lengths:
            return None
        place = self.lengths.index(length)
        return self.translation[place], self.rotation[place]

    def metrics(self) -> dict[str, float]:
        """Return the means over all segments, as KITTI ranks by them."""
        return {
            f"drift_translation_{self.alignment}": self.all_translation.mean,
            "drift_rotation_deg_per_m": self.all_rotation.mean,
        }

    def summary(self) -> dict[str, Any]:
        """Return everything in types that JSON holds."""
        kind = self.alignment
        segments = [
            {
                "metres": length,
                "segments": way.count,
                f"drift_translation_{kind}": way.mean,
                "drift_rotation_deg_per_m": turn.mean,
            }
            for length, way, turn in zip(self.lengths, self.translation, self.rotation, strict=True)
        ]
        return {
            **self.metrics(),
            "segments": self.all_translation.count,
            "by_length": segments,
        }


def segment_lengths(path_length: float) -> tuple[float, ...]:
    """Return the lengths of segments, metres, for a path of so many metres.

    KITTI's (100 to 800 m), divided by ten until the path is at least twice the shortest of them;
    those that fit.

    Raises:
        EvaluationError: the path is shorter than 2 cm.

    """
    if path_length < SHORTEST_PATH:
        raise EvaluationError(
            f"the true path is {1000 * path_length:.1f} mm long; drift per distance needs "
            f"{1000 * SHORTEST_PATH:g} mm"
        )
    unit = 1.0
    while path_length < 2 * SEGMENTS[0] * unit:
        unit /= 10
    lengths = (round(length * unit, 9) for length in SEGMENTS)
    return tuple(length for length in lengths if length <= path_length)


def score_drift(
    estimate: Poses,
    truth: Poses,
    alignment: TrajectoryAlignment = "sim3",
    *,
    lengths: tuple[float, ...] | None = None,
) -> DriftScore:
    """Return the drift of n matched poses over segments of the true path.

    A segment goes from pose i to the first pose j whose true way from i is at least as long as the
    segment. Its error is inv(inv(Q_i) Q_j) (inv(P_i) P_j) for true poses Q and estimated ones P,
    over the true way from i to j.

    Args:
        estimate: float64 [n, 4, 4], camera-to-world; matched with ``truth`` one by one.
        truth: float64 [n, 4, 4], metres.
        alignment: gives the estimate its unit.
        lengths: of the segments, metres; None = :func:`segment_lengths` of the true path.

    Raises:
        EvaluationError: what :func:`~xsvggt_ros.metrics.trajectory.score_trajectory` raises; a
            truth without rotations; no segment fits the path.

    """
    check_poses(estimate, truth)
    _require_rotations(truth)
    moved = align_poses(estimate, truth, alignment).poses(estimate)
    steps = np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1)
    way = np.concatenate([[0.0], np.cumsum(steps)])
    wanted = segment_lengths(float(way[-1])) if lengths is None else lengths
    found: dict[float, tuple[Array, Array]] = {}
    for length in wanted:
        ends = np.searchsorted(way, way + length * (1 - 1e-9))
        begins = np.flatnonzero(ends < len(way))
        if len(begins):
            found[length] = _segment_errors(moved, truth, way, begins, ends[begins])
    if not found:
        raise EvaluationError(
            f"the true path is {way[-1]:.3f} m long, so that no segment of {wanted} m fits"
        )
    return DriftScore(
        alignment=alignment,
        lengths=tuple(found),
        translation=tuple(ErrorStatistics.of(each) for each, _ in found.values()),
        rotation=tuple(ErrorStatistics.of(each) for _, each in found.values()),
        all_translation=ErrorStatistics.of(np.concatenate([each for each, _ in found.values()])),
        all_rotation=ErrorStatistics.of(np.concatenate([each for _, each in found.values()])),
    )


def _segment_errors(
    estimate: Poses, truth: Poses, way: Array, begins: NDArray[np.intp], ends: NDArray[np.intp]
) -> tuple[Array, Array]:
    """Return metres per metre and degrees per metre of each segment."""
    true = inverses(truth[begins]) @ truth[ends]
    error = inverses(true) @ inverses(estimate[begins]) @ estimate[ends]
    metres = way[ends] - way[begins]
    translation = np.linalg.norm(error[:, :3, 3], axis=1) / metres
    rotation = np.degrees(rotation_angles(error[:, :3, :3])) / metres
    return translation, rotation


@dataclass(frozen=True)
class Consistency:
    """How n errors compare with their covariances.

    An error is Log(inv(true) estimated): translation first, in the camera's own axes.

    Attributes:
        alignment: that gave the estimate its unit.
        nees: float64 [n]; e' inv(S) e / 6 for errors e and covariances S: 1 on average, where the
            covariances are right.
        nees_translation: the mean of the same of the translation alone, over 3.
        nees_rotation: the mean of the same of the rotation alone, over 3.
        coverage: share of errors with e' inv(S) e within the 95 % quantile.

    """

    alignment: TrajectoryAlignment
    nees: Array
    nees_translation: float
    nees_rotation: float
    coverage: float

    def named(self, what: str, over: str = "") -> dict[str, float]:
        """Return the numbers of a report, by names that say of ``what``, and ``over`` how much."""
        kind = self.alignment
        return {
            f"{what}_nees{over}_{kind}": float(self.nees.mean()),
            f"{what}_nees_translation{over}_{kind}": self.nees_translation,
            f"{what}_nees_rotation{over}": self.nees_rotation,
            f"{what}_coverage{over}_{kind}": self.coverage,
        }


@dataclass(frozen=True)
class StepScore(Consistency):
    """Errors of steps from frame to frame, and how they compare with their covariances.

    Attributes:
        scale: that the estimate was multiplied by; NaN where it changed from step to step.
        translation: metres.
        rotation: degrees.
        sigmas: float64 [n]; the largest component of an error in standard deviations.

    """

    scale: float
    translation: ErrorStatistics
    rotation: ErrorStatistics
    sigmas: Array

    def metrics(self) -> dict[str, float]:
        """Return the numbers of a report, by name."""
        return {
            **self.named("step"),
            f"step_error_max_{self.alignment}": self.translation.max,
            "step_error_max_deg": self.rotation.max,
            f"step_error_max_sigmas_{self.alignment}": float(self.sigmas.max()),
        }

    def summary(self) -> dict[str, Any]:
        """Return everything but the single errors, in types that JSON holds."""
        return {
            **self.metrics(),
            "steps": len(self.nees),
            f"step_error_{self.alignment}": asdict(self.translation),
            "step_error_deg": asdict(self.rotation),
        }


def score_steps(
    steps: Poses,
    true_steps: Poses,
    covariances: Array,
    alignment: TrajectoryAlignment,
    *,
    scale: float | Array = 1.0,
) -> StepScore:
    """Return the errors of n steps, and whether they are as large as the covariances say.

    Args:
        steps: float64 [n, 4, 4], the later camera in the earlier one, as estimated.
        true_steps: float64 [n, 4, 4], metres.
        covariances: float64 [n, 6, 6] of disturbances of ``steps`` on the right, translation first,
            in the unit of ``steps``.
        alignment: that ``scale`` is from.
        scale: metres per unit of ``steps``; one for all, or [n].

    Raises:
        EvaluationError: shapes differ, there are no steps, or a covariance is none.

    """
    count = len(steps)
    if not count or steps.shape != true_steps.shape or covariances.shape != (count, 6, 6):
        raise EvaluationError(
            f"steps of shapes {steps.shape} and {true_steps.shape} with covariances of shape "
            f"{covariances.shape}; all must have one length of at least 1"
        )
    _require_rotations(true_steps)
    scaled, of_steps = _in_metres(steps, covariances, scale)
    errors = np.stack([log_se3(each) for each in inverses(true_steps) @ scaled])
    variances = np.diagonal(of_steps, axis1=1, axis2=2)
    return StepScore(
        alignment,
        *_consistency(errors, of_steps),
        scale=float(np.ravel(scale)[0]) if np.ptp(scale) == 0 else float("nan"),
        translation=ErrorStatistics.of(np.linalg.norm(errors[:, :3], axis=1)),
        rotation=ErrorStatistics.of(np.degrees(np.linalg.norm(errors[:, 3:], axis=1))),
        sigmas=(np.abs(errors) / np.sqrt(variances)).max(axis=1),
    )


@dataclass(frozen=True)
class PoseScore(Consistency):
    """Errors of poses that are sums of steps, and how they compare with their covariances.

    Attributes:
        frames: that each pose is the sum of.

    """

    frames: int

    def metrics(self) -> dict[str, float]:
        """Return the numbers of a report, by name."""
        return self.named("pose", f"_{self.frames}")


@dataclass(frozen=True)
class MapPoseScore(Consistency):
    """Errors of poses in the map, and how they compare with their covariances."""

    def metrics(self) -> dict[str, float]:
        """Return the numbers of a report, by name."""
        return self.named("map_pose")


def score_map_poses(
    poses: Poses,
    truth: Poses,
    covariances: Array,
    alignment: TrajectoryAlignment,
    *,
    scale: float | Array = 1.0,
) -> MapPoseScore:
    """Return whether poses in the map are as wrong as their covariances say.

    Args:
        poses: float64 [n, 4, 4], cameras in that of the first frame, which is exact.
        truth: float64 [n, 4, 4], metres.
        covariances: float64 [n, 6, 6] of disturbances of ``poses`` on the right, translation first,
            in the unit of ``poses``.
        alignment: that ``scale`` is from.
        scale: metres per unit of ``poses``; one for all, or [n].

    Raises:
        EvaluationError: a covariance is not positive definite.

    """
    _require_rotations(truth)
    scaled, of_poses = _in_metres(poses, covariances, scale)
    errors = np.stack([log_se3(each) for each in inverses(truth) @ scaled])
    return MapPoseScore(alignment, *_consistency(errors, of_poses))


def score_poses(
    steps: Poses,
    true_steps: Poses,
    covariances: Array,
    persistences: Sequence[Persistence],
    runs: list[NDArray[np.intp]],
    alignment: TrajectoryAlignment,
    *,
    scale: float | Array = 1.0,
) -> tuple[PoseScore, ...]:
    """Return whether sums of steps are as wrong as a session that began with them would say.

    Their covariances come about as those of poses in `odom` do. Windows overlap: each begins a
    tenth of its length after the one before.

    Args:
        steps: as for :func:`score_steps`.
        true_steps: the same.
        covariances: the same.
        persistences: how long the error of each step lasts, [n].
        runs: places of steps that follow one another.
        alignment: that ``scale`` is from.
        scale: metres per unit of ``steps``; one for all, or [n].

    Returns:
        One score for each of :data:`SPANS` that is not longer than all runs.

    """
    moved, of_steps = _in_metres(steps, covariances, scale)
    scores = []
    for frames in SPANS:
        windows = [
            run[begin : begin + frames]
            for run in runs
            for begin in range(0, len(run) - frames + 1, max(1, frames // _BEGINS))
        ]
        if not windows:
            continue
        errors, of_poses = [], []
        for window in windows:
            pose, true, accumulated = np.eye(4), np.eye(4), AccumulatedError()
            for place in window:
                pose, true = pose @ moved[place], true @ true_steps[place]
                accumulated.step(moved[place], of_steps[place], persistences[place])
            errors.append(log_se3(invert(true) @ pose))
            of_poses.append(accumulated.covariance)
        consistency = _consistency(np.array(errors), np.array(of_poses))
        scores.append(PoseScore(alignment, *consistency, frames=frames))
    return tuple(scores)


def _in_metres(steps: Poses, covariances: Array, scale: float | Array) -> tuple[Poses, Array]:
    """Return steps [n, 4, 4] and covariances [n, 6, 6] in metres by a scale, for all or [n]."""
    units = np.ones((len(steps), 6))
    units[:, :3] = np.broadcast_to(np.asarray(scale, np.float64), (len(steps),))[:, None]
    scaled = np.array(steps, np.float64)
    scaled[:, :3, 3] *= units[:, :3]
    return scaled, covariances * units[:, :, None] * units[:, None, :]


def _consistency(errors: Array, covariances: Array) -> tuple[Array, float, float, float]:
    """Return NEES/6 of each error [n, 6], NEES/3 of translation and rotation, and coverage."""
    squares = _normalized_squares(errors, covariances)
    way, turn = (
        float(_normalized_squares(errors[:, part], covariances[:, part, part]).mean() / 3)
        for part in (slice(0, 3), slice(3, 6))
    )
    return squares / 6, way, turn, float(np.mean(squares <= CHI2_6))


def _normalized_squares(errors: Array, covariances: Array) -> Array:
    """Return e' inv(S) e of each error, [n].

    Raises:
        EvaluationError: a covariance is not positive definite.

    """
    try:
        np.linalg.cholesky(covariances)
    except np.linalg.LinAlgError as error:
        raise EvaluationError(
            "a covariance is not positive definite; leave out the steps that have none"
        ) from error
    weighted = np.linalg.solve(covariances, errors[:, :, None])[:, :, 0]
    return np.asarray((errors * weighted).sum(axis=1), np.float64)


def _require_rotations(truth: Poses) -> None:
    if not np.isfinite(truth).all():
        raise EvaluationError("the truth has no orientation, which errors of motions need")
