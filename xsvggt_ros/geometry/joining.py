# SPDX-License-Identifier: Apache-2.0
"""Two gauges of one stream become one: how the later lies in the earlier, from frames seen in both.

A gauge is the world and the unit of length that a network measures in, fixed by its first frame.
The scale comes from depth, which both gauges predict for the same pixels; rotation and offset from
poses, which are more precise than points whose errors are alike over half the image. Points only
check the result. All thresholds are relative, so units are of no consequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import Matrix, Similarity, is_pose, log_so3, mean_rotation

Array = NDArray[np.float64]

LARGEST_DISTANCE = 0.1
"""Median distance between the points of both gauges, as a share of depth, of a join to believe."""
LEAST_FRAMES = 2
LEAST_PIXELS = 30
"""Of a frame, with a depth in both gauges."""

_PIXELS = 4000
"""Pixels of an image that are looked at, about."""
_FAR = 3.0
"""Times the usual deviation beyond which a frame does not count."""
_MEDIAN_TO_SIGMA = 1.4826
_SMALLEST_DEVIATION = 1e-9


@dataclass(frozen=True, slots=True)
class OverlapFrame:
    """One frame as two gauges have it.

    Attributes:
        earlier: camera-to-world pose in the earlier gauge, [4, 4].
        later: the same in the later gauge.
        rays: float64 [n, 2], x and y at depth 1 of some pixels.
        earlier_depth: float64 [n] of these, in the earlier gauge's unit.
        later_depth: float64 [n], in the later gauge's.

    """

    earlier: Matrix
    later: Matrix
    rays: Array
    earlier_depth: Array
    later_depth: Array

    def distances(self, earlier_from_later: Similarity) -> Array:
        """Return how far the points of both gauges lie apart [n], as shares of depth."""
        ahead = np.column_stack([self.rays, np.ones(len(self.rays))])
        earlier = (ahead * self.earlier_depth[:, None]) @ self.earlier[:3, :3].T
        later = (ahead * self.later_depth[:, None]) @ self.later[:3, :3].T + self.later[:3, 3]
        apart = earlier + self.earlier[:3, 3] - earlier_from_later.points(later)
        return np.asarray(np.linalg.norm(apart, axis=1) / self.earlier_depth, np.float64)


@dataclass(frozen=True, slots=True)
class Join:
    """How a later gauge lies in an earlier one.

    Attributes:
        earlier_from_later: the similarity.
        covariance: float64 [7, 7], of the cameras' mean position (in the earlier unit), rotation
            (radians, both about the earlier axes) and the logarithm of the scale, from how much the
            frames differ.
        frames: how many count.
        distance: median distance between the points of both gauges, as a share of depth.
        objection: why it should not be believed; empty where it may.

    """

    earlier_from_later: Similarity
    covariance: Array
    frames: int
    distance: float
    objection: str = ""

    @property
    def scale_spread(self) -> float:
        """Standard deviation of the scale, as a share."""
        return float(np.sqrt(self.covariance[6, 6]))


def overlap_frame(
    earlier: tuple[Matrix, NDArray[np.float32], NDArray[np.float32]],
    later: tuple[Matrix, NDArray[np.float32], NDArray[np.float32]],
    intrinsics: Intrinsics,
) -> OverlapFrame:
    """Return what a join needs of a frame: the more confident half of a grid of its pixels.

    Args:
        earlier: camera-to-world pose [4, 4], depth [h, w] and confidence [h, w] in one gauge.
        later: the same in the other.
        intrinsics: of the image of that size.

    """
    stride = max(1, int(np.sqrt(earlier[1].size / _PIXELS)))
    grid = np.s_[stride // 2 :: stride, stride // 2 :: stride]
    depths = [depth[grid].astype(np.float64) for _, depth, _ in (earlier, later)]
    confidence = earlier[2][grid] * later[2][grid]
    known = (depths[0] > 0) & (depths[1] > 0) & np.isfinite(depths[0] + depths[1])
    if known.any():
        known &= confidence >= np.median(confidence[known])
    rows, columns = np.nonzero(known)
    x = (columns * stride + stride // 2 - intrinsics.cx) / intrinsics.fx
    y = (rows * stride + stride // 2 - intrinsics.cy) / intrinsics.fy
    return OverlapFrame(
        earlier[0], later[0], np.column_stack([x, y]), depths[0][known], depths[1][known]
    )


def join(frames: Sequence[OverlapFrame]) -> Join:
    """Return how the later gauge lies in the earlier one.

    The scale is the median over frames of the median ratio of depths; the rotation the chordal mean
    of what the poses say (Hartley, Trumpf, Dai, Li, "Rotation averaging", IJCV 103, 2013); the
    offset their mean. Frames that differ much from the others do not count.

    Args:
        frames: that both gauges have.

    """
    usable = [
        frame
        for frame in frames
        if len(frame.rays) >= LEAST_PIXELS and is_pose(frame.earlier) and is_pose(frame.later)
    ]
    if len(usable) < LEAST_FRAMES:
        return Join(
            Similarity(), np.full((7, 7), np.nan), len(usable), np.inf,
            f"only {len(usable)} of {len(frames)} frames have poses and depth in both gauges",
        )  # fmt: skip
    logs = np.array([np.median(np.log(f.earlier_depth / f.later_depth)) for f in usable])
    scale = float(np.exp(np.median(logs)))
    turns = np.array([f.earlier[:3, :3] @ f.later[:3, :3].T for f in usable])
    rotation = turns[_central(_angles(turns))]
    counted = _near(np.linalg.norm([log_so3(rotation.T @ turn) for turn in turns], axis=1))
    rotation = mean_rotation(turns[counted])
    offsets = np.array([f.earlier[:3, 3] - scale * rotation @ f.later[:3, 3] for f in usable])
    middle = offsets[_central(np.linalg.norm(offsets[:, None] - offsets, axis=2))]
    counted = counted & _near(np.linalg.norm(offsets - middle, axis=1))
    if not counted.any():
        counted = np.ones(len(usable), bool)
    found = Similarity(scale, rotation, offsets[counted].mean(axis=0))
    distance = float(np.median(np.concatenate([frame.distances(found) for frame in usable])))
    deviations = np.column_stack(
        [
            offsets[counted] - found.translation,
            [rotation @ log_so3(rotation.T @ turn) for turn in turns[counted]],
        ]
    )
    objection = ""
    if not distance <= LARGEST_DISTANCE:
        objection = (
            f"the points of both lie {distance:.0%} of their depth apart, and more than "
            f"{LARGEST_DISTANCE:.0%} is not believed"
        )
    return Join(
        found, _covariance(deviations, logs), int(counted.sum()), distance, objection
    )  # fmt: skip


def _angles(turns: Array) -> Array:
    """Return the angles between rotations [n, 3, 3], as a matrix [n, n]."""
    traces = np.einsum("aij,bij->ab", turns, turns)
    return np.asarray(np.arccos(np.clip((traces - 1.0) / 2.0, -1.0, 1.0)), np.float64)


def _central(distances: Array) -> int:
    """Return which of n things is nearest to all others, by their distances [n, n]."""
    return int(distances.sum(axis=1).argmin())


def _near(deviations: Array) -> NDArray[np.bool_]:
    """Return which of n deviations from the central one are usual."""
    usual = _MEDIAN_TO_SIGMA * float(np.median(deviations))
    return np.asarray(deviations <= max(_FAR * usual, _SMALLEST_DEVIATION))


def _covariance(deviations: Array, logs: Array) -> Array:
    """Return the covariance [7, 7] of a mean: deviations [n, 6] in two parts, isotropic each.

    So few frames do not tell directions apart, and how far they scatter they tell badly: the error
    over it is Student's t, whose variance is what counts.
    """
    count = len(deviations)
    diagonal = np.empty(7)
    for part in (slice(0, 3), slice(3, 6)):
        spread = float((deviations[:, part] ** 2).sum()) / 3
        few = _variance_of_t(3 * (count - 1))
        diagonal[part] = few * spread / (max(count - 1, 1) * count)
    usual = _MEDIAN_TO_SIGMA * float(np.median(np.abs(logs - np.median(logs))))
    diagonal[6] = _variance_of_t(len(logs) - 1) * usual**2 * (np.pi / 2) / len(logs)
    return np.diag(diagonal)


def _variance_of_t(freedom: int) -> float:
    return freedom / max(freedom - 2, 1)
