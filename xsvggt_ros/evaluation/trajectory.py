# SPDX-License-Identifier: Apache-2.0
"""How far a path is from the true one: ATE and RPE, as Sturm et al. define them.

J. Sturm, N. Engelhard, F. Endres, W. Burgard, D. Cremers, "A Benchmark for the Evaluation of RGB-D
SLAM Systems", IROS 2012. All poses are camera-to-world.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import ConfigurationError, EvaluationError
from xsvggt_ros.evaluation.statistics import ErrorStatistics
from xsvggt_ros.geometry.alignment import Similarity, align
from xsvggt_ros.geometry.rigid import invert

Poses = NDArray[np.float64]
"""float64 [n, 4, 4]."""

LEAST_POSES = 3
"""Two poses can always be laid upon each other, so that they tell nothing."""

LEAST_EXTENT = 0.01
"""Metres; of a truth that stays within, no scale can be told."""

STRAIGHT = 0.01
"""Of a path's spread along its longest axis; with less across it, the path is a line."""

TrajectoryAlignment = Literal["none", "origin", "se3", "sim3"]
TRAJECTORY_ALIGNMENTS: tuple[TrajectoryAlignment, ...] = ("none", "origin", "se3", "sim3")
"""none: poses as they are, for worlds that are the same. origin: the first poses are laid upon each
other. se3: least squares over all positions, sizes kept. sim3: the same with one scale."""


@dataclass(frozen=True)
class TrajectoryScore:
    """Errors of a path after one kind of alignment.

    Where the truth has positions only, all but those of positions are NaN.

    Attributes:
        alignment: how the estimate was laid upon the truth.
        transform: of the estimate's world into the truth's; its scale is the recovered one.
        ate: metres; distance between true and estimated position.
        ate_rotation: degrees; angle between true and estimated orientation.
        rpe_translation: metres; error of the motion over ``delta`` frames.
        rpe_rotation: degrees; the same of its rotation.
        delta: frames between the two poses of a motion.
        extent: metres; diagonal of the box around the true path.
        position_errors: float64 [n], metres, what ``ate`` summarizes.
        step_translation_errors: float64 [n - delta], metres, what ``rpe_translation`` summarizes.
        step_rotation_errors: float64 [n - delta], degrees, what ``rpe_rotation`` summarizes.

    """

    alignment: TrajectoryAlignment
    transform: Similarity
    ate: ErrorStatistics
    ate_rotation: ErrorStatistics
    rpe_translation: ErrorStatistics
    rpe_rotation: ErrorStatistics
    delta: int
    extent: float
    position_errors: NDArray[np.float64]
    step_translation_errors: NDArray[np.float64]
    step_rotation_errors: NDArray[np.float64]

    @property
    def scale(self) -> float:
        """What the estimate's lengths were multiplied with."""
        return self.transform.scale

    def summary(self) -> dict[str, Any]:
        """Return everything but the single errors, in types that JSON holds."""
        return {
            "alignment": self.alignment,
            "scale": self.scale,
            "transform": self.transform.matrix().tolist(),
            "ate": asdict(self.ate),
            "ate_rotation_deg": asdict(self.ate_rotation),
            "rpe_translation": asdict(self.rpe_translation),
            "rpe_rotation_deg": asdict(self.rpe_rotation),
            "delta_frames": self.delta,
        }


def score_trajectory(
    estimate: Poses, truth: Poses, alignment: TrajectoryAlignment = "sim3", *, delta: int = 1
) -> TrajectoryScore:
    """Return ATE and RPE of n matched poses after one kind of alignment.

    ATE is ||t_i - T p_i|| for true positions t_i, estimated ones p_i and the alignment T. RPE is
    the motion inv(inv(Q_i) Q_{i+delta}) (inv(P_i) P_{i+delta}) over all i, of true poses Q and
    aligned poses P: the length of its translation, the angle of its rotation.

    Args:
        estimate: float64 [n, 4, 4]; matched with ``truth`` one by one, in the order of time.
        truth: float64 [n, 4, 4], metres; rotations may be NaN where only positions are known.
        alignment: how the estimate is laid upon the truth first.
        delta: frames between the two poses of a motion.

    Raises:
        ConfigurationError: an unknown alignment.
        EvaluationError: too few poses, shapes that differ, poses that are not finite, or an
            alignment that needs rotations of a truth without them.

    """
    _check(estimate, truth, delta)
    transform = _transform(estimate, truth, alignment)
    moved = transform.poses(estimate)
    distances = np.linalg.norm(moved[:, :3, 3] - truth[:, :3, 3], axis=1)
    turned = np.swapaxes(truth[:, :3, :3], 1, 2) @ moved[:, :3, :3]
    steps = _inverses(_steps(truth, delta)) @ _steps(moved, delta)
    step_distances = np.linalg.norm(steps[:, :3, 3], axis=1)
    step_angles = np.degrees(rotation_angles(steps[:, :3, :3]))
    return TrajectoryScore(
        alignment=alignment,
        transform=transform,
        ate=ErrorStatistics.of(distances),
        ate_rotation=ErrorStatistics.of(np.degrees(rotation_angles(turned))),
        rpe_translation=ErrorStatistics.of(step_distances),
        rpe_rotation=ErrorStatistics.of(step_angles),
        delta=delta,
        extent=_extent(truth),
        position_errors=distances,
        step_translation_errors=step_distances,
        step_rotation_errors=step_angles,
    )


def score_alignments(
    estimate: Poses,
    truth: Poses,
    alignments: Iterable[TrajectoryAlignment] = ("origin", "se3", "sim3"),
    *,
    delta: int = 1,
) -> dict[TrajectoryAlignment, TrajectoryScore]:
    """Return :func:`score_trajectory` for each of several alignments.

    ``origin`` stands for "no alignment" by default, because an estimate's world is its first
    camera and never that of the truth.
    """
    return {each: score_trajectory(estimate, truth, each, delta=delta) for each in alignments}


def rotation_angles(rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the angles of rotations [n, 3, 3] in radians, 0 to pi.

    The half angle's sine and cosine both take part, so that angles near 0 and near pi are as exact
    as all others; the arc cosine of the trace loses half of the digits there.
    """
    sine = np.linalg.norm((rotations - np.eye(3)).reshape(-1, 9), axis=1) / np.sqrt(8.0)
    cosine = np.sqrt(np.maximum(1 + np.trace(rotations, axis1=1, axis2=2), 0)) / 2
    return np.asarray(2 * np.arctan2(sine, cosine), np.float64)


def associate(
    stamps: NDArray[np.int64], others: NDArray[np.int64], tolerance: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Match each stamp with the nearest other one, both in rising order, nanoseconds.

    Returns:
        Indices into ``stamps`` and ``others`` of the pairs no further than ``tolerance`` apart.

    """
    if not len(stamps) or not len(others):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    after = np.searchsorted(others, stamps).clip(0, len(others) - 1)
    before = (after - 1).clip(0)
    nearer_before = np.abs(stamps - others[before]) <= np.abs(others[after] - stamps)
    nearest = np.where(nearer_before, before, after).astype(np.int64)
    matched = np.flatnonzero(np.abs(others[nearest] - stamps) <= tolerance).astype(np.int64)
    return matched, nearest[matched]


def _check(estimate: Poses, truth: Poses, delta: int) -> None:
    if estimate.shape != truth.shape or estimate.shape[1:] != (4, 4):
        raise EvaluationError(
            f"poses of shapes {estimate.shape} and {truth.shape}; both must be (n, 4, 4)"
        )
    if delta < 1 or len(truth) <= delta:
        raise EvaluationError(
            f"{len(truth)} matched poses and a delta of {delta} frames; delta must be 1 or more, "
            "and more poses than that must have a true one"
        )
    whole = np.isfinite(truth).all() or _positions_only(truth)
    if not (np.isfinite(estimate).all() and whole):
        raise EvaluationError("a pose is not finite; leave frames without a pose out")


def _positions_only(truth: Poses) -> bool:
    return bool(np.isfinite(truth[:, :3, 3]).all() and np.isnan(truth[:, :3, :3]).all())


def require_telling(truth: Poses, alignment: TrajectoryAlignment) -> None:
    """Refuse to align true poses [n, 4, 4] that any estimate would fit.

    Raises:
        EvaluationError: they are too few, or stay in one place.

    """
    if alignment in ("se3", "sim3") and len(truth) < LEAST_POSES:
        raise EvaluationError(
            f"{len(truth)} matched poses; {LEAST_POSES} are needed, since fewer always fit"
        )
    if alignment == "sim3" and _extent(truth) < LEAST_EXTENT:
        raise EvaluationError(
            f"the true path stays within {1000 * _extent(truth):.1f} mm, so that it tells no "
            f"scale; {1000 * LEAST_EXTENT:g} mm are needed"
        )


def _extent(truth: Poses) -> float:
    return float(np.linalg.norm(np.ptp(truth[:, :3, 3], axis=0)))


def is_straight(truth: Poses) -> bool:
    """Tell whether true poses [n, 4, 4] lie on a line, which leaves turns about it open."""
    places = truth[:, :3, 3] - truth[:, :3, 3].mean(axis=0)
    spread = np.linalg.svd(places, compute_uv=False)
    return len(truth) >= LEAST_POSES and bool(spread[1] < STRAIGHT * spread[0])


def _transform(estimate: Poses, truth: Poses, alignment: str) -> Similarity:
    if alignment == "none":
        return Similarity()
    if alignment == "origin" and _positions_only(truth):
        raise EvaluationError("the truth has no orientation by which first poses could be aligned")
    if alignment == "origin":
        first = truth[0] @ invert(estimate[0])
        return Similarity(1.0, first[:3, :3], first[:3, 3])
    if alignment in ("se3", "sim3"):
        return align(estimate[:, :3, 3], truth[:, :3, 3], scale=alignment == "sim3")
    raise ConfigurationError(
        f"alignment '{alignment}' is unknown; choose one of {', '.join(TRAJECTORY_ALIGNMENTS)}"
    )


def _steps(poses: Poses, delta: int) -> Poses:
    return np.asarray(_inverses(poses[:-delta]) @ poses[delta:], np.float64)


def _inverses(poses: Poses) -> Poses:
    return np.stack([invert(each) for each in poses])
