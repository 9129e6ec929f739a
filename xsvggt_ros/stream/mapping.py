# SPDX-License-Identifier: Apache-2.0
"""The map of a session, frame by frame, at a price that does not grow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.rigid import Matrix, transform_points
from xsvggt_ros.geometry.unprojection import unproject
from xsvggt_ros.geometry.voxel_map import VoxelMap, VoxelSettings
from xsvggt_ros.stream.frame import FrameResult


@dataclass(frozen=True, slots=True)
class MapSettings:
    """What goes into a map.

    Attributes:
        voxels: how it is bounded.
        min_confidence: points below this one are left out.
        stride: every how many pixels a point is taken, along both axes.

    """

    voxels: VoxelSettings
    min_confidence: float = 1.0
    stride: int = 1


class MapBuilder:
    """Puts the points of each result into a voxel map. Not thread-safe.

    Attributes:
        map: what has been seen in this session; None before the first frame.
        changes: counts whatever changed the map.

    """

    def __init__(self) -> None:
        self.map: VoxelMap | None = None
        self.changes = 0

    def add(self, result: FrameResult, map_from_camera: Matrix, settings: MapSettings) -> None:
        """Take in one result; the first of a session begins anew, and so do other voxels."""
        if result.index == 0:
            self.clear()
        held = self._resized(settings.voxels)
        every = slice(None, None, settings.stride)
        chosen = np.zeros(result.depth.shape, bool)
        chosen[every, every] = True
        chosen &= (result.confidence >= settings.min_confidence) & np.isfinite(result.depth)
        places = np.flatnonzero(chosen)
        points = unproject(result.depth, result.intrinsics).reshape(-1, 3).take(places, axis=0)
        held.add(
            transform_points(map_from_camera, points),
            result.color.reshape(-1, 3).take(places, axis=0),
            result.confidence.ravel().take(places),
        )
        self.changes += 1

    def clear(self) -> None:
        """Forget every point."""
        if self.map is not None and len(self.map):
            self.map.clear()
            self.changes += 1

    def drop(self) -> None:
        """Forget every point and give the memory back."""
        self.clear()
        self.map = None

    def snapshot(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
        """Return a copy: points float32 [n, 3], RGB uint8 [n, 3], confidence float32 [n]."""
        parts = list(self.map.means()) if self.map is not None else []
        if not parts:
            return np.empty((0, 3), np.float32), np.empty((0, 3), np.uint8), np.empty(0, np.float32)
        points, colors, confidence = zip(*parts, strict=True)
        return np.concatenate(points), np.concatenate(colors), np.concatenate(confidence)

    def _resized(self, voxels: VoxelSettings) -> VoxelMap:
        """Return the map with these settings; points of one with others count once each."""
        before = self.map
        if before is None or before.settings != voxels:
            self.map = VoxelMap(voxels)
            for part in before.means() if before is not None else ():
                self.map.add(*part)
        assert self.map is not None
        return self.map
