# SPDX-License-Identifier: Apache-2.0
"""Which points a depth image looks through: space between a camera and what it sees is empty.

Everything is relative to depth, and how far two views of the same surface differ is measured where
they meet, so that errors of pose, depth and scale widen the margin on their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import Matrix, invert

_CELLS_ACROSS = 130
"""Cells along a row at least, where the image has as many pixels."""

LEAST_MARGIN = 0.04
"""Share of depth that a point must lie nearer than all that is measured around it."""

_MOST_MARGIN = 0.2
"""Beyond, depth and pose agree too little to say that anything is empty."""

_SPREADS = 3.0
"""Standard deviations in a margin."""

_TAIL, _TAILS = 0.9, 2.0
"""This quantile so many times is in a margin, too: errors of a network have heavy tails."""

_COMPARABLE = 0.25
"""Logarithmic ratio of depths beyond which two points are not of the same surface."""

_LEAST_COMPARED = 16
_TO_DEVIATION = 1.4826
"""Standard deviation over median absolute deviation, of a normal distribution."""

_NEAREST = 1e-6

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Points of the map beside the depth that a view has measured there.

    Attributes:
        which: int64 [m], the points that the view covers, as places in those compared.
        free: bool [m], whether the view looks through the point.
        met: bool [m], whether it sees a surface there.

    """

    which: NDArray[np.int64]
    free: NDArray[np.bool_]
    met: NDArray[np.bool_]


class DepthView:
    """One depth image in cells of a few pixels, with the pose that it was taken from.

    Attributes:
        cell: edge of a cell, in pixels.
        depth: float32 [rows, columns], at the middle of each cell; 0 where unknown.

    """

    def __init__(
        self,
        depth: Floats,
        known: NDArray[np.bool_],
        intrinsics: Intrinsics,
        map_from_camera: Matrix,
    ) -> None:
        """Look at a depth image.

        Args:
            depth: float32 [h, w] along the optical axis.
            known: bool [h, w], where it is to be believed.
            intrinsics: of the image.
            map_from_camera: pose [4, 4] of the optical frame.

        """
        self.cell = max(1, depth.shape[1] // _CELLS_ACROSS)
        self._intrinsics = intrinsics
        self._camera_from_map = invert(map_from_camera).astype(np.float32)
        # What is unknown may be as near as can be, so nothing is empty around it.
        whole = np.where(known & (depth > 0), depth, np.float32(0))
        # A surface ends between pixels, and poses are not exact: a cell and its neighbours.
        around = np.ones((3 * self.cell, 3 * self.cell), np.uint8)
        middle = slice(self.cell // 2, None, self.cell)
        self.depth: Floats = np.ascontiguousarray(whole[middle, middle])
        self._nearest: Floats = np.ascontiguousarray(cv2.erode(whole, around)[middle, middle])

    @property
    def nbytes(self) -> int:
        """Bytes of its images."""
        return self.depth.nbytes + self._nearest.nbytes

    def points(self, map_from_camera: Matrix) -> Floats:
        """Return the points at the middle of all cells in the map, float32 [3, rows * columns]."""
        rows, columns = self.depth.shape
        given = self._intrinsics
        u = np.arange(columns, dtype=np.float32) * self.cell + self.cell // 2
        v = np.arange(rows, dtype=np.float32) * self.cell + self.cell // 2
        points = np.empty((3, rows, columns), np.float32)
        np.multiply(self.depth, (u - np.float32(given.cx)) / np.float32(given.fx), out=points[0])
        np.multiply(
            self.depth, ((v - np.float32(given.cy)) / np.float32(given.fy))[:, None], out=points[1]
        )
        points[2] = self.depth
        moved: Floats = map_from_camera[:3, :3].astype(np.float32) @ points.reshape(3, -1)
        moved += map_from_camera[:3, 3:].astype(np.float32)
        return moved

    def compare(self, points: Floats, slack: float = 0.0) -> Comparison:
        """Compare ``points`` [3, n] of the map with what was measured where they lie.

        ``slack`` is a length by which they may lie elsewhere, such as the edge of their voxel.
        """
        which, cells, depth = self._project(points)
        measured = self.depth.ravel().take(cells)
        seen = measured > 0
        which, cells, depth, measured = which[seen], cells[seen], depth[seen], measured[seen]
        ratio = np.abs(np.log(depth / measured))
        margin = _margin(ratio[ratio < _COMPARABLE])
        if margin > _MOST_MARGIN:
            nothing = np.zeros(len(which), bool)
            return Comparison(which, nothing, nothing)
        nearest = self._nearest.ravel().take(cells)
        free = depth + np.float32(slack) < nearest * (1 - margin)
        return Comparison(which, free, ratio <= margin)

    def _project(self, points: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
        """Return the points that the view covers, the cell of each, and its depth."""
        turn, shift = self._camera_from_map[:3, :3], self._camera_from_map[:3, 3]
        depth = turn[2] @ points
        depth += shift[2]
        ahead = np.flatnonzero(depth > _NEAREST * max(float(self.depth.max(initial=0)), 1e-30))
        if len(ahead) < len(depth):
            points, depth = points.take(ahead, axis=1), depth.take(ahead)
        rows, columns = self.depth.shape
        given = self._intrinsics
        column = _cells(turn[0] @ points + shift[0], depth, given.fx, given.cx, self.cell)
        row = _cells(turn[1] @ points + shift[1], depth, given.fy, given.cy, self.cell)
        inside = np.flatnonzero((column >= 0) & (column < columns) & (row >= 0) & (row < rows))
        cells = row.take(inside).astype(np.int64) * columns + column.take(inside).astype(np.int64)
        return ahead.take(inside), cells, depth.take(inside)


def _cells(lengths: Floats, depth: Floats, focal: float, centre: float, cell: int) -> Floats:
    """Return rows or columns of cells, as whole float32, of lengths along that axis."""
    lengths *= np.float32(focal / cell)
    lengths /= depth
    lengths += np.float32((centre + 0.5) / cell)
    return np.floor(lengths, out=lengths)


def _margin(ratios: Floats) -> np.float32:
    """Return the share of depth by which views of one surface may differ; infinity if unknown."""
    margin = np.inf
    if len(ratios) >= _LEAST_COMPARED:
        middle, tail = np.quantile(ratios, [0.5, _TAIL])
        margin = max(LEAST_MARGIN, _SPREADS * _TO_DEVIATION * middle, _TAILS * tail)
    rounded: np.float32 = np.float32(margin)
    return rounded
