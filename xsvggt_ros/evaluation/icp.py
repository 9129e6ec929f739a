# SPDX-License-Identifier: Apache-2.0
"""Iterative closest points, point to point, as Open3D runs it by default."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from xsvggt_ros.geometry.alignment import align
from xsvggt_ros.geometry.rigid import Matrix

Points = NDArray[np.float64]

ITERATIONS = 30
SETTLED = 1e-6
"""Once fitness and RMSE both change by less than this, the search is over."""


@dataclass(frozen=True)
class Registration:
    """Where ICP ended.

    Attributes:
        transform: rigid, float64 [4, 4], of the source onto the target.
        fitness: share of the source's points that have a target point within the distance.
        rmse: metres, over these.
        iterations: that were taken.

    """

    transform: Matrix
    fitness: float
    rmse: float
    iterations: int


def register(
    source: Points, target: Points, distance: float, iterations: int = ITERATIONS
) -> Registration:
    """Bring points [n, 3] onto target points [m, 3], beginning where they are.

    P. Besl, N. McKay, "A Method for Registration of 3-D Shapes", PAMI 14(2), 1992. Pairs further
    apart than ``distance``, in metres, do not count. Where fewer than three count, nothing moves.
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
            abs(before.fitness - pairs.fitness) < SETTLED
            and abs(before.rmse - pairs.rmse) < SETTLED
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
