# SPDX-License-Identifier: Apache-2.0
"""Trajectory errors: ATE and RPE.

J. Sturm, N. Engelhard, F. Endres, W. Burgard, D. Cremers, "A Benchmark for the Evaluation of RGB-D
SLAM Systems", IROS 2012. All poses are camera-to-world.

A number of this module goes out under a name that ends in its alignment, such as ``ate_sim3``
(:meth:`TrajectoryScore.metrics`); the rotation part of the RPE, which no alignment changes, has
none. Where no statistic is named, it is the root mean square.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import ConfigurationError, EvaluationError
from xsvggt_ros.geometry.rigid import Similarity, align, invert, rotation_angles


@dataclass(frozen=True)
class ErrorStatistics:
    """Summary of ``count`` errors, in their unit; ``std`` divides by the count."""

    rmse: float
    mean: float
    median: float
    std: float
    min: float
    max: float
    count: int

    @classmethod
    def of(cls, errors: NDArray[np.floating]) -> ErrorStatistics:
        """Summarize errors [n].

        Raises:
            EvaluationError: there are none.

        """
        if not errors.size:
            raise EvaluationError("there are no errors to summarize; at least one is needed")
        return cls(
            rmse=float(np.sqrt(np.mean(np.square(errors)))),
            mean=float(errors.mean()),
            median=float(np.median(errors)),
            std=float(errors.std()),
            min=float(errors.min()),
            max=float(errors.max()),
            count=int(errors.size),
        )


@dataclass(frozen=True)
class MeanMedian:
    """Mean and median of the same numbers."""

    mean: float
    median: float

    @classmethod
    def of(cls, values: NDArray[np.floating]) -> MeanMedian:
        """Summarize values [n]."""
        return cls(float(values.mean()), float(np.median(values)))


Poses = NDArray[np.float64]
"""float64 [n, 4, 4]."""

LEAST_POSES = 3
"""Two poses can always be laid upon each other, so that they tell nothing."""

LEAST_EXTENT = 0.01
"""Metres; of a truth that stays within, no scale can be told."""

STRAIGHT = 0.01
"""Of a path's spread along its longest axis; with less across it, the path is a line."""

TrajectoryAlignment = Literal["none", "origin", "se3", "se3_online", "sim3"]
TRAJECTORY_ALIGNMENTS: tuple[TrajectoryAlignment, ...] = (
    "none",
    "origin",
    "se3",
    "se3_online",
    "sim3",
)
"""none: poses as they are, for worlds that are the same. origin: the first poses are laid upon each
other. se3: least squares over all positions, sizes kept. se3_online: the same, of an estimate whose
every step is in metres by the scale as it was known at the time. sim3: the same with one scale."""


@dataclass(frozen=True)
class TrajectoryScore:
    """Errors of a path after one kind of alignment.

    Where the truth has positions only, all but those of positions are NaN.

    Attributes:
        alignment: how the estimate was aligned with the ground truth.
        truth_from_estimate: the alignment of the worlds; its scale is the recovered one.
        ate: metres; distance between true and estimated position.
        ate_rotation: degrees; angle between true and estimated orientation.
        rpe_translation: metres; error of the motion over ``delta`` frames.
        rpe_rotation: degrees; the same of its rotation.
        delta: frames between the two poses of a motion.
        extent: metres; see :func:`path_extent`.
        position_errors: float64 [n], metres, what ``ate`` summarizes.
        step_translation_errors: float64 [n - delta], metres, what ``rpe_translation`` summarizes.
        step_rotation_errors: float64 [n - delta], degrees, what ``rpe_rotation`` summarizes.

    """

    alignment: TrajectoryAlignment
    truth_from_estimate: Similarity
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
        """Factor on the estimate's lengths."""
        return self.truth_from_estimate.scale

    @property
    def relative_ate(self) -> float:
        """ATE as a share of the true path's extent; NaN of a camera that stands still."""
        return self.ate.rmse / self.extent if self.extent else float("nan")

    def statistics(self) -> dict[str, ErrorStatistics]:
        """Return all errors by their full names, such as ``ate_sim3``."""
        kind = self.alignment
        return {
            f"ate_{kind}": self.ate,
            f"ate_rotation_{kind}_deg": self.ate_rotation,
            f"rpe_translation_{kind}": self.rpe_translation,
            "rpe_rotation_deg": self.rpe_rotation,
        }

    def metrics(self) -> dict[str, float]:
        """Return the root mean squares of all errors, the relative ATE and the recovered scale."""
        kind = self.alignment
        return {
            **{name: each.rmse for name, each in self.statistics().items()},
            f"relative_ate_{kind}": self.relative_ate,
            f"scale_{kind}": self.scale,
        }

    def summary(self) -> dict[str, Any]:
        """Return everything but the single errors, in types that JSON holds."""
        return {
            f"scale_{self.alignment}": self.scale,
            "truth_from_estimate": self.truth_from_estimate.matrix().tolist(),
            **{name: asdict(each) for name, each in self.statistics().items()},
            f"relative_ate_{self.alignment}": self.relative_ate,
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
        alignment: how the estimate is aligned with the ground truth first.
        delta: frames between the two poses of a motion.

    Raises:
        ConfigurationError: an unknown alignment.
        EvaluationError: too few poses, shapes that differ, poses that are not finite, or an
            alignment that needs rotations of a truth without them.

    """
    check_poses(estimate, truth, delta)
    truth_from_estimate = align_poses(estimate, truth, alignment)
    moved = truth_from_estimate.poses(estimate)
    distances = np.linalg.norm(moved[:, :3, 3] - truth[:, :3, 3], axis=1)
    turned = np.swapaxes(truth[:, :3, :3], 1, 2) @ moved[:, :3, :3]
    steps = inverses(_steps(truth, delta)) @ _steps(moved, delta)
    step_distances = np.linalg.norm(steps[:, :3, 3], axis=1)
    step_angles = np.degrees(rotation_angles(steps[:, :3, :3]))
    return TrajectoryScore(
        alignment=alignment,
        truth_from_estimate=truth_from_estimate,
        ate=ErrorStatistics.of(distances),
        ate_rotation=ErrorStatistics.of(np.degrees(rotation_angles(turned))),
        rpe_translation=ErrorStatistics.of(step_distances),
        rpe_rotation=ErrorStatistics.of(step_angles),
        delta=delta,
        extent=path_extent(truth),
        position_errors=distances,
        step_translation_errors=step_distances,
        step_rotation_errors=step_angles,
    )


def check_poses(estimate: Poses, truth: Poses, delta: int = 1) -> None:
    """Refuse matched poses that cannot be compared over ``delta`` frames.

    Raises:
        EvaluationError: too few poses, shapes that differ, or poses that are not finite.

    """
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
    if alignment in ("se3", "se3_online", "sim3") and len(truth) < LEAST_POSES:
        raise EvaluationError(
            f"{len(truth)} matched poses; {LEAST_POSES} are needed, since fewer always fit"
        )
    if alignment == "sim3" and path_extent(truth) < LEAST_EXTENT:
        raise EvaluationError(
            f"the true path stays within {1000 * path_extent(truth):.1f} mm, so that it tells no "
            f"scale; {1000 * LEAST_EXTENT:g} mm are needed"
        )


def path_extent(truth: Poses) -> float:
    """Return the diagonal of the box around true positions, metres.

    The box lies along the axes of the first camera, so that the extent does not depend on the
    world that the poses are in; along those of the world where the first orientation is unknown.

    Args:
        truth: camera_to_world, [n, 4, 4].

    """
    positions, turn = truth[:, :3, 3], truth[0, :3, :3]
    along = positions @ turn if np.isfinite(turn).all() else positions
    return float(np.linalg.norm(np.ptp(along, axis=0)))


def is_straight(truth: Poses) -> bool:
    """Return whether true poses [n, 4, 4] lie on a line, about which rotations stay open."""
    places = truth[:, :3, 3] - truth[:, :3, 3].mean(axis=0)
    spread = np.linalg.svd(places, compute_uv=False)
    return len(truth) >= LEAST_POSES and bool(spread[1] < STRAIGHT * spread[0])


def align_poses(estimate: Poses, truth: Poses, alignment: str) -> Similarity:
    """Return the motion of estimated poses [n, 4, 4] onto true ones by one kind of alignment.

    Raises:
        ConfigurationError: an unknown alignment.
        EvaluationError: it needs rotations, and the truth has none.

    """
    if alignment == "none":
        return Similarity()
    if alignment == "origin" and _positions_only(truth):
        raise EvaluationError("the truth has no orientation by which first poses could be aligned")
    if alignment == "origin":
        first = truth[0] @ invert(estimate[0])
        return Similarity(1.0, first[:3, :3], first[:3, 3])
    if alignment in ("se3", "se3_online", "sim3"):
        return align(estimate[:, :3, 3], truth[:, :3, 3], scale=alignment == "sim3")
    raise ConfigurationError(
        f"alignment '{alignment}' is unknown; choose one of {', '.join(TRAJECTORY_ALIGNMENTS)}"
    )


def _steps(poses: Poses, delta: int) -> Poses:
    return np.asarray(inverses(poses[:-delta]) @ poses[delta:], np.float64)


def inverses(poses: Poses) -> Poses:
    """Return the inverses of rigid motions [n, 4, 4]."""
    rotations = np.swapaxes(poses[:, :3, :3], 1, 2)
    inverted = np.tile(np.eye(4), (len(poses), 1, 1))
    inverted[:, :3, :3] = rotations
    inverted[:, :3, 3] = -(rotations @ poses[:, :3, 3, None])[:, :, 0]
    return inverted
