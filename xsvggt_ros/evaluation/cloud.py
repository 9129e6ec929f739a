# SPDX-License-Identifier: Apache-2.0
"""Cloud errors against the true surface: accuracy, completeness, normals, F-score; and ICP.

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
from xsvggt_ros.evaluation.sources.base import FrameTruth
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import Matrix, align
from xsvggt_ros.metrics.trajectory import MeanMedian
from xsvggt_ros.stream.frame import FrameResult

Points = NDArray[np.float64]

ICP_DISTANCE = 0.1
"""Metres, of the reference."""

F_DISTANCE = 0.05
"""Metres within which a point counts as right, for the F-score."""

LEAST_POINTS = 3

ICP_ITERATIONS = 30
ICP_SETTLED = 1e-6
"""ICP ends once fitness and RMSE both change by less than this."""

NEIGHBORS = 30
"""Of a point whose normal is estimated, itself included; Open3D's default, and the reference's."""

_AT_ONCE = 20_000


@dataclass(frozen=True)
class Registration:
    """Where ICP ended.

    Attributes:
        target_from_source: rigid, float64 [4, 4].
        fitness: share of the source's points that have a target point within the distance.
        rmse: metres, over these.
        iterations: that were taken.

    """

    target_from_source: Matrix
    fitness: float
    rmse: float
    iterations: int


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
        """Return the score in types that JSON holds; names of errors end in their alignment.

        That is ``icp``, or ``given`` where the clouds were compared as they came.
        """
        plain = asdict(self)
        alignment = "given" if self.registration is None else "icp"
        if self.registration is not None:
            plain["registration"]["target_from_source"] = (
                self.registration.target_from_source.tolist()
            )
        return {
            f"{name}_{alignment}" if name in _ERRORS else name: value
            for name, value in plain.items()
        }


_ERRORS = (
    "accuracy", "completeness", "normal_accuracy", "normal_completeness", "normal_consistency",
    "precision", "recall", "f_score",
)  # fmt: skip


def score_cloud(
    predicted: Points,
    truth: Points,
    *,
    icp_distance: float | None = ICP_DISTANCE,
    distance: float = F_DISTANCE,
) -> CloudScore:
    """Score predicted points [n, 3] against true ones [m, 3], metres, in the same world.

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
        moved = registration.target_from_source
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


def register(
    source: Points, target: Points, distance: float, iterations: int = ICP_ITERATIONS
) -> Registration:
    """Bring points [n, 3] onto target points [m, 3], beginning where they are.

    P. Besl, N. McKay, "A Method for Registration of 3-D Shapes", PAMI 14(2), 1992. Where fewer
    than three pairs count, nothing moves.

    Args:
        source: float64 [n, 3], metres.
        target: float64 [m, 3], metres.
        distance: metres; pairs further apart do not count.
        iterations: the most.

    """
    tree = cKDTree(target)
    transform = np.eye(4)
    moved = source
    pairs = _Pairs.of(tree, moved, distance)
    for iteration in range(iterations):
        if len(pairs.indices) < 3:
            return Registration(transform, pairs.fitness, pairs.rmse, iteration)
        step = align(moved[pairs.inliers], target[pairs.indices], scale=False).matrix()
        transform = step @ transform
        moved = source @ transform[:3, :3].T + transform[:3, 3]
        before, pairs = pairs, _Pairs.of(tree, moved, distance)
        if (
            abs(before.fitness - pairs.fitness) < ICP_SETTLED
            and abs(before.rmse - pairs.rmse) < ICP_SETTLED
        ):
            return Registration(transform, pairs.fitness, pairs.rmse, iteration + 1)
    return Registration(transform, pairs.fitness, pairs.rmse, iterations)


@dataclass(frozen=True)
class _Pairs:
    """Which source points are near enough, and the target points nearest to them."""

    inliers: NDArray[np.bool_]
    indices: NDArray[np.intp]
    fitness: float
    rmse: float

    @classmethod
    def of(cls, tree: cKDTree, points: Points, distance: float) -> _Pairs:
        lengths, indices = tree.query(points, distance_upper_bound=distance)
        inliers = np.isfinite(lengths)
        near = lengths[inliers]
        rmse = float(np.sqrt(np.mean(near**2))) if len(near) else 0.0
        return cls(inliers, indices[inliers], len(near) / max(len(points), 1), rmse)


def estimate_normals(points: Points, neighbours: int = NEIGHBORS) -> Points:
    """Return unit normals [n, 3] of points [n, 3], of either sign.

    H. Hoppe et al., "Surface reconstruction from unorganized points", SIGGRAPH 1992: the
    eigenvector of least eigenvalue of the covariance of the nearest neighbours. With fewer than
    three points it is any direction.
    """
    tree = cKDTree(points)
    count = min(neighbours, len(points))
    normals = np.empty_like(points)
    for first in range(0, len(points), _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        _, nearest = tree.query(points[some], k=count)
        around = points[nearest.reshape(-1, count)]
        centred = around - around.mean(axis=1, keepdims=True)
        covariance = np.swapaxes(centred, 1, 2) @ centred
        normals[some] = np.linalg.eigh(covariance)[1][:, :, 0]
    return normals


def camera_at_truth(result: FrameResult, shape: tuple[int, ...]) -> Intrinsics:
    """Return the predicted camera for images of the size of the truth (height, width)."""
    height, width = shape
    source = result.mapping.intrinsics_to_source(result.intrinsics)
    return source.at_size(width, height)


@dataclass(frozen=True)
class Correspondences:
    """Points of the same pixels: estimated and true, float32 [n, 3] each, each in its own world."""

    estimated: NDArray[np.float32]
    true: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.true)


def correspondences(
    result: FrameResult,
    predicted: NDArray[np.float32],
    truth: FrameTruth,
    most: int,
    random: np.random.Generator,
) -> Correspondences:
    """Return points of up to ``most`` pixels that have both depths, chosen at random.

    Args:
        result: gives the estimated pose and camera.
        predicted: depth at the size of the truth, float32 [H, W].
        truth: with depth, pose and camera.
        most: pixels.
        random: chooses.

    """
    assert truth.depth is not None
    assert truth.camera_to_world is not None
    assert truth.intrinsics is not None
    known = np.isfinite(predicted) & np.isfinite(truth.depth) & (truth.depth > 0)
    places = np.flatnonzero(known)
    if len(places) > most:
        places = places[np.unique(random.integers(0, len(places), most))]
    camera = camera_at_truth(result, truth.depth.shape)
    return Correspondences(
        _points(predicted, places, camera, result.camera_to_world),
        _points(truth.depth, places, truth.intrinsics, truth.camera_to_world),
    )


def _points(
    depth: NDArray[np.float32], places: NDArray[np.int64], camera: Intrinsics, pose: Matrix
) -> NDArray[np.float32]:
    """Return the points of some pixels in the world of ``pose``, float32 [n, 3]."""
    v, u = np.divmod(places, depth.shape[1])
    z = depth.ravel()[places].astype(np.float64)
    seen = np.stack([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z], axis=1)
    return np.asarray(seen @ pose[:3, :3].T + pose[:3, 3], np.float32)


class CorrespondenceSample:
    """Corresponding points of a stream: a uniform sample of at most ``limit``.

    When it is full, it drops half of its points and halves its sampling rate.
    """

    PER_FRAME = 2_000

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._share = 1.0
        self._random = np.random.default_rng(0)
        self._estimated = np.empty((0, 3), np.float32)
        self._true = np.empty((0, 3), np.float32)

    def add(self, result: FrameResult, predicted: NDArray[np.float32], truth: FrameTruth) -> None:
        """Take points of a frame; ``predicted`` is its depth at the size of the truth."""
        most = max(1, round(self._share * self.PER_FRAME))
        points = correspondences(result, predicted, truth, most, self._random)
        self._estimated = np.concatenate([self._estimated, points.estimated])
        self._true = np.concatenate([self._true, points.true])
        while len(self._true) > self._limit:
            kept = self._random.random(len(self._true)) < 0.5
            self._estimated, self._true = self._estimated[kept], self._true[kept]
            self._share /= 2

    def points(self) -> Correspondences:
        """Return what is held."""
        return Correspondences(self._estimated, self._true)
