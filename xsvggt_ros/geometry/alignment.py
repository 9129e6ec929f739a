# SPDX-License-Identifier: Apache-2.0
"""The motion that brings one set of points closest to another."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.rigid import Matrix

Array = NDArray[np.float64]

LEAST_SPREAD = 1e-12
"""Squared lengths; points closer together than this have no size that could be compared."""


@dataclass(frozen=True)
class Similarity:
    """``x -> scale * rotation @ x + translation``.

    Attributes:
        scale: never negative; 1 of a rigid motion.
        rotation: float64 [3, 3].
        translation: float64 [3], in the unit of the target.

    """

    scale: float = 1.0
    rotation: Array = field(default_factory=lambda: np.eye(3))
    translation: Array = field(default_factory=lambda: np.zeros(3))

    def __matmul__(self, other: Similarity) -> Similarity:
        """Return the similarity that applies ``other`` first."""
        return Similarity(
            self.scale * other.scale, self.rotation @ other.rotation, self.points(other.translation)
        )

    def points(self, points: NDArray[np.floating]) -> Array:
        """Move points [..., 3]."""
        return np.asarray(self.scale * points @ self.rotation.T + self.translation, np.float64)

    def poses(self, poses: Array) -> Array:
        """Move camera-to-world poses [..., 4, 4]; they stay rigid, only their places scale."""
        moved = np.array(poses, np.float64)
        moved[..., :3, :3] = self.rotation @ poses[..., :3, :3]
        moved[..., :3, 3] = self.points(poses[..., :3, 3])
        return moved

    def matrix(self) -> Matrix:
        """Return the motion as a matrix [4, 4]."""
        whole = np.eye(4)
        whole[:3, :3] = self.scale * self.rotation
        whole[:3, 3] = self.translation
        return whole


def align(points: NDArray[np.floating], target: NDArray[np.floating], *, scale: bool) -> Similarity:
    """Return the least-squares motion of points [n, 3] onto ``target`` [n, 3].

    Closed form of Umeyama, "Least-squares estimation of transformation parameters between two point
    patterns", PAMI 13(4), 1991. Where the points determine no rotation (all on a line, or all in
    one place) one of the best ones is returned; where they have no size, the scale is 1.

    Args:
        points: what is to be moved.
        target: where each of them belongs.
        scale: whether sizes may change (Sim(3)) or not (SE(3)).

    Raises:
        ValueError: other shapes, no points, or numbers that are not finite.

    """
    if points.shape != target.shape or points.ndim != 2 or points.shape[1] != 3 or not len(points):
        raise ValueError(f"points {points.shape} and target {target.shape} must both be (n, 3)")
    middle, aim = points.mean(axis=0, dtype=np.float64), target.mean(axis=0, dtype=np.float64)
    a, b = points - middle, target - aim
    covariance = b.T @ a
    if not np.isfinite(covariance).all():
        raise ValueError("points and target must be finite")
    left, sizes, right = np.linalg.svd(covariance)
    signs = np.array([1.0, 1.0, -1.0 if np.linalg.det(left @ right) < 0 else 1.0])
    rotation = left * signs @ right
    spread = float((a * a).sum())
    factor = float((sizes * signs).sum()) / spread if scale and spread > LEAST_SPREAD else 1.0
    return Similarity(factor, rotation, aim - factor * rotation @ middle)


def mean_rotation(rotations: Array) -> Array:
    """Return the rotation [3, 3] of least squares to rotations [n, 3, 3].

    The chordal mean of Hartley, Trumpf, Dai, Li, "Rotation averaging", IJCV 103, 2013.
    """
    left, _, right = np.linalg.svd(rotations.sum(axis=0))
    sign = 1.0 if np.linalg.det(left @ right) > 0 else -1.0
    return np.asarray(left * np.array([1.0, 1.0, sign]) @ right, np.float64)
