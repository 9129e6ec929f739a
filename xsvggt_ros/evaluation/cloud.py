# SPDX-License-Identifier: Apache-2.0
"""How far a cloud is from the true surface: accuracy, completeness, normals, F-score.

H. Aanaes et al., "Large-Scale Data for Multiple-View Stereopsis", IJCV 2016, for accuracy and
completeness; A. Knapitsch et al., "Tanks and Temples", SIGGRAPH 2017, for the F-score. The details
(ICP first, normals of 30 neighbours, no bound on distances) are those of the reference.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from xsvggt_ros.errors import EvaluationError
from xsvggt_ros.evaluation.icp import Registration, register
from xsvggt_ros.evaluation.normals import estimate_normals
from xsvggt_ros.geometry.alignment import Similarity
from xsvggt_ros.geometry.cameras import Intrinsics, unproject
from xsvggt_ros.geometry.rigid import Matrix

Points = NDArray[np.float64]

ICP_DISTANCE = 0.1
"""Metres, of the reference."""

F_DISTANCE = 0.05
"""Metres within which a point counts as right, for the F-score."""

LEAST_POINTS = 3


@dataclass(frozen=True)
class MeanMedian:
    """Mean and median of the same numbers."""

    mean: float
    median: float

    @classmethod
    def of(cls, values: NDArray[np.floating]) -> MeanMedian:
        """Summarize values [n]."""
        return cls(float(values.mean()), float(np.median(values)))


@dataclass(frozen=True)
class CloudScore:
    """Errors of a cloud after alignment.

    Attributes:
        accuracy: metres; from each predicted point to the nearest true one.
        completeness: metres; from each true point to the nearest predicted one.
        normal_accuracy: |n n'| of the normals of the pairs of ``accuracy`` (NC1).
        normal_completeness: the same of the pairs of ``completeness`` (NC2).
        normal_consistency: mean of NC1 and NC2 (NC).
        precision: share of predicted points within ``distance`` of a true one.
        recall: share of true points within ``distance`` of a predicted one.
        f_score: harmonic mean of precision and recall.
        distance: metres, of precision and recall.
        registration: what ICP did; None where it was not asked for.
        predicted: points of the predicted cloud.
        true: points of the true cloud.

    """

    accuracy: MeanMedian
    completeness: MeanMedian
    normal_accuracy: MeanMedian
    normal_completeness: MeanMedian
    normal_consistency: MeanMedian
    precision: float
    recall: float
    f_score: float
    distance: float
    registration: Registration | None
    predicted: int
    true: int

    def summary(self) -> dict[str, Any]:
        """Return the score in types that JSON holds."""
        plain = asdict(self)
        if self.registration is not None:
            plain["registration"]["transform"] = self.registration.transform.tolist()
        return plain


def score_cloud(
    predicted: Points,
    truth: Points,
    *,
    icp_distance: float | None = ICP_DISTANCE,
    distance: float = F_DISTANCE,
) -> CloudScore:
    """Judge predicted points [n, 3] against true ones [m, 3], metres, in the same world.

    Args:
        predicted: points, already aligned as far as the protocol says.
        truth: points of the true surface.
        icp_distance: metres; pairs beyond it do not take part in ICP. None leaves ICP out.
        distance: metres, of the F-score.

    Raises:
        EvaluationError: one of the clouds has fewer than three points, or one is not finite.

    """
    for name, points in (("predicted", predicted), ("true", truth)):
        if len(points) < LEAST_POINTS or not np.isfinite(points).all():
            raise EvaluationError(
                f"the {name} cloud has {len(points)} points; {LEAST_POINTS} or more, all finite, "
                "are needed"
            )
    registration = None
    if icp_distance is not None:
        registration = register(predicted, truth, icp_distance)
        moved = registration.transform
        predicted = predicted @ moved[:3, :3].T + moved[:3, 3]
    predicted_normals, true_normals = estimate_normals(predicted), estimate_normals(truth)
    to_truth, nearest_true = cKDTree(truth).query(predicted)
    to_predicted, nearest_predicted = cKDTree(predicted).query(truth)
    first = _consistency(predicted_normals, true_normals[nearest_true])
    second = _consistency(true_normals, predicted_normals[nearest_predicted])
    precision = float(np.mean(to_truth < distance))
    recall = float(np.mean(to_predicted < distance))
    total = precision + recall
    return CloudScore(
        accuracy=MeanMedian.of(to_truth),
        completeness=MeanMedian.of(to_predicted),
        normal_accuracy=first,
        normal_completeness=second,
        normal_consistency=MeanMedian(
            (first.mean + second.mean) / 2, (first.median + second.median) / 2
        ),
        precision=precision,
        recall=recall,
        f_score=2 * precision * recall / total if total else 0.0,
        distance=distance,
        registration=registration,
        predicted=len(predicted),
        true=len(truth),
    )


def _consistency(normals: Points, others: Points) -> MeanMedian:
    return MeanMedian.of(np.abs((normals * others).sum(axis=1)))


def frame_points(
    depth: NDArray[np.float32], intrinsics: Intrinsics, camera_to_world: Matrix
) -> NDArray[np.float32]:
    """Return the finite points [n, 3] of a depth map [H, W] in the world."""
    points = unproject(depth, intrinsics).reshape(-1, 3)
    points = points[np.isfinite(points).all(axis=1)]
    turned = points @ camera_to_world[:3, :3].T + camera_to_world[:3, 3]
    return np.asarray(turned, np.float32)


class PointSample:
    """A cloud of bounded size that stands for one of any size.

    Once ``capacity`` points are held, every second one is dropped at random (seeded), and from then
    on only a share of the new ones is taken, so that all frames keep their weight. Each point takes
    12 bytes.
    """

    def __init__(self, capacity: int | None = 500_000, seed: int = 0) -> None:
        """Hold at most ``capacity`` points, None for all."""
        self._capacity = capacity
        self._random = np.random.default_rng(seed)
        self._parts: list[NDArray[np.float32]] = []
        self._held = 0
        self._share = 1.0
        self.seen = 0

    def add(self, points: NDArray[np.floating]) -> None:
        """Take in points [n, 3]; those that are not finite are left out."""
        finite = points[np.isfinite(points).all(axis=1)].astype(np.float32)
        self.seen += len(finite)
        part = finite if self._share == 1 else self._thinned(finite, self._share)
        self._parts.append(part)
        self._held += len(part)
        while self._capacity is not None and self._held > self._capacity:
            self._share /= 2
            self._parts = [self._thinned(np.concatenate(self._parts), 0.5)]
            self._held = len(self._parts[0])

    def _thinned(self, points: NDArray[np.float32], share: float) -> NDArray[np.float32]:
        return points[self._random.random(len(points)) < share]

    def points(self) -> Points:
        """Return the sample, float64 [n, 3]."""
        whole = np.concatenate([np.zeros((0, 3), np.float32), *self._parts])
        return whole.astype(np.float64)


class CloudPair:
    """Predicted and true points of a sequence, in bounded memory.

    Predicted points stay in the estimate's own world until its alignment is known, at the end.
    """

    def __init__(self, capacity: int | None = 500_000) -> None:
        """Hold at most ``capacity`` points on each side, None for all."""
        self.predicted = PointSample(capacity, seed=0)
        self.truth = PointSample(capacity, seed=1)

    def score(
        self,
        transform: Similarity,
        *,
        icp_distance: float | None = ICP_DISTANCE,
        distance: float = F_DISTANCE,
    ) -> CloudScore:
        """Move the predicted points into the true world and judge them, see :func:`score_cloud`."""
        moved = transform.points(self.predicted.points())
        return score_cloud(moved, self.truth.points(), icp_distance=icp_distance, distance=distance)
