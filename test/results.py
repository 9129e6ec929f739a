# SPDX-License-Identifier: Apache-2.0
"""A result as the engine gives it, without an engine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.cache.layout import CacheStatistics
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.stream.frame import Frame, FrameResult, FrameUpdate, ImageMapping, Timings

SIDE = 32
WIDTH, HEIGHT = 40, 30


def result_of(index: int = 0, stamp: int = 0, side: int = SIDE) -> FrameResult:
    """Return the view of a slope, one to two units away, with a confidence of 3."""
    return result_with(slope(side, side), index=index, stamp=stamp)


def slope(height: int, width: int) -> NDArray[np.float32]:
    """Return depth from one unit at the left to two at the right."""
    return np.linspace(1.0, 2.0, width, dtype=np.float32) * np.ones((height, 1), np.float32)


def result_with(depth: NDArray[np.float32], **changes: Any) -> FrameResult:
    """Return a black view of this depth, with a confidence of 3, unless told otherwise."""
    height, width = depth.shape
    usual: dict[str, Any] = {
        "index": 0,
        "stamp": 0,
        "frame_id": "camera_optical",
        "camera_to_world": np.eye(4),
        "intrinsics": Intrinsics(float(width), float(width), width / 2, height / 2, width, height),
        "intrinsics_source": "predicted",
        "depth": depth,
        "confidence": np.full((height, width), 3.0, np.float32),
        "color": np.zeros((height, width, 3), np.uint8),
        "mapping": ImageMapping(width, height, width, height, height, 0),
        "cache": CacheStatistics("none", 0, 0, 16, 16, 0, 0, 0, 0, 0, 0, ()),
        "timings": Timings(),
    }
    return FrameResult(**usual | changes)


def update_of(result: FrameResult, **changes: Any) -> FrameUpdate:
    """Return a result as the pipeline hands it on, at the origin of the map."""
    frame = Frame(result.stamp, result.frame_id, lambda: result.color, camera=result.camera)
    return FrameUpdate(frame, result, **changes)


def wall(
    index: int = 1,
    *,
    depth: float = 2.0,
    confidence: float = 3.0,
    pose: NDArray[np.float64] | None = None,
) -> FrameResult:
    """Return the view of a wall ahead whose colours number its pixels, in red and green."""
    pixels = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    return result_with(
        np.full((HEIGHT, WIDTH), depth, np.float32),
        index=index,
        stamp=1 + index,
        camera_to_world=np.eye(4) if pose is None else pose,
        intrinsics=Intrinsics(50.0, 50.0, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT),
        confidence=np.full((HEIGHT, WIDTH), confidence, np.float32),
        color=np.stack([pixels % 256, pixels // 256, 0 * pixels], axis=-1).astype(np.uint8),
    )
