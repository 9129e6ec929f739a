# SPDX-License-Identifier: Apache-2.0
"""Normals of clouds that have none: the thinnest direction of each point's neighbourhood."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Points = NDArray[np.float64]

NEIGHBOURS = 30
"""The point itself included; Open3D's default, and so the reference's."""

_AT_ONCE = 20_000


def estimate_normals(points: Points, neighbours: int = NEIGHBOURS) -> Points:
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
