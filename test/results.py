# SPDX-License-Identifier: Apache-2.0
"""A result as the engine gives it, without an engine."""

from __future__ import annotations

import numpy as np

from xsvggt_ros.cache.statistics import CacheStatistics
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.stream.frame import FrameResult, Timings
from xsvggt_ros.stream.image_mapping import ImageMapping

SIDE = 32


def result_of(index: int = 0, stamp: int = 0, side: int = SIDE) -> FrameResult:
    """Return the view of a slope, one to two units away, with a confidence of 3."""
    slope = np.linspace(1.0, 2.0, side, dtype=np.float32) * np.ones((side, 1), np.float32)
    return FrameResult(
        index=index,
        stamp=stamp,
        frame_id="camera_optical",
        camera_to_world=np.eye(4),
        intrinsics=Intrinsics(float(side), float(side), side / 2, side / 2, side, side),
        intrinsics_source="predicted",
        depth=slope,
        confidence=np.full((side, side), 3.0, np.float32),
        color=np.zeros((side, side, 3), np.uint8),
        mapping=ImageMapping(side, side, side, side, side, 0),
        cache=CacheStatistics("none", 0, 0, 16, 16, 0, 0, 0, 0, 0, 0, ()),
        timings=Timings(),
    )
