# SPDX-License-Identifier: Apache-2.0
"""Depth maps to points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.cameras import Intrinsics


def unproject(depth: NDArray[np.float32], intrinsics: Intrinsics) -> NDArray[np.float32]:
    """Return the points of a depth map, float32 [h, w, 3], in the optical frame.

    Pixel centres lie at integer coordinates (VGGT's convention). NaN depth gives NaN points.
    """
    height, width = depth.shape
    rays_x = (np.arange(width, dtype=np.float32) - np.float32(intrinsics.cx)) / np.float32(
        intrinsics.fx
    )
    rays_y = (np.arange(height, dtype=np.float32) - np.float32(intrinsics.cy)) / np.float32(
        intrinsics.fy
    )
    points = np.empty((height, width, 3), np.float32)
    np.multiply(depth, rays_x, out=points[..., 0])
    np.multiply(depth, rays_y[:, None], out=points[..., 1])
    points[..., 2] = depth
    return points
