# SPDX-License-Identifier: Apache-2.0
"""The map of a session, frame by frame, at a price that does not grow, and without what moves.

What moves are points that stand where earlier frames saw empty space: people, doors, vehicles. A
few depth images of the last seconds are kept for each camera. What stays in its new place longer
than they reach back is furniture, and no longer held against it.
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.cameras import coordinates
from xsvggt_ros.geometry.depth_view import DepthView
from xsvggt_ros.geometry.rigid import Matrix
from xsvggt_ros.geometry.voxel_map import VoxelMap, VoxelSettings
from xsvggt_ros.geometry.voxel_table import REACH
from xsvggt_ros.stream.frame import FrameResult

VIEWS = 8
"""Depth images that are kept for each camera."""

_MOST_FRAMES_APART = 30
"""Frames after which one is kept whatever their stamps say."""

_LEAST_NEIGHBOURS = 3
"""Cells of nine that must stand in empty space: fewer are noise."""

_SAME_OBJECT = 0.1
"""Share of depth by which the surface of an object goes on from one cell to the next."""

_NINE = np.ones((3, 3), np.uint8)


@dataclass(slots=True)
class _Memory:
    """Views of one camera, the oldest first, and when the newest of them was kept."""

    views: deque[DepthView] = field(default_factory=lambda: deque(maxlen=VIEWS))
    stamp: int = 0
    frames: int = 0


class MoverFilter:
    """Finds what has appeared in space that was seen empty. Not thread-safe."""

    def __init__(self) -> None:
        self._memories: dict[str, _Memory] = defaultdict(_Memory)

    @property
    def nbytes(self) -> int:
        """Bytes of all views that are kept."""
        return sum(view.nbytes for each in self._memories.values() for view in each.views)

    def clear(self) -> None:
        """Forget all views."""
        self._memories.clear()

    def appeared(
        self, view: DepthView, map_from_camera: Matrix, camera: str = ""
    ) -> NDArray[np.bool_] | None:
        """Return which cells of a view stand in empty space, bool [rows, columns].

        None stands for none of them.
        """
        points = view.points(map_from_camera)
        empty = np.zeros(view.depth.size, bool)
        for earlier in self._memories[camera].views:
            comparison = earlier.compare(points)
            empty[comparison.which[comparison.free]] = True
        empty &= view.depth.ravel() > 0
        if not empty.any():
            return None
        cells = empty.reshape(view.depth.shape)
        crowd = cv2.boxFilter(
            cells.astype(np.float32), -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT
        )
        cells &= crowd > _LEAST_NEIGHBOURS - 0.5
        return cells if cells.any() else None

    def remember(self, view: DepthView, stamp: int, delay: float, camera: str = "") -> None:
        """Keep a view if it is time; together they reach back ``delay`` seconds, or so."""
        memory = self._memories[camera]
        memory.frames += 1
        waited = abs(stamp - memory.stamp) >= 1e9 * delay / VIEWS
        if not memory.views or waited or memory.frames >= _MOST_FRAMES_APART:
            memory.views.append(view)
            memory.stamp, memory.frames = stamp, 0


def pixels_of(
    cells: NDArray[np.bool_], view: DepthView, depth: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Return the pixels of the objects that ``cells`` are on, bool [h, w].

    Objects go on into neighbouring cells of about the same depth: between an edge and what lies
    close behind it, no view is sure that space was empty.
    """
    far = cv2.dilate(np.where(cells, view.depth, np.float32(0)), _NINE)
    height, width = depth.shape
    whole = far.repeat(view.cell, axis=0).repeat(view.cell, axis=1)
    if whole.shape[0] < height or whole.shape[1] < width:
        missing = (0, max(0, height - whole.shape[0])), (0, max(0, width - whole.shape[1]))
        whole = np.pad(whole, missing, mode="edge")
    whole = whole[:height, :width]
    # NaN depth is near nothing.
    near: NDArray[np.bool_] = np.abs(depth - whole) < np.float32(_SAME_OBJECT) * whole
    return near


logger = logging.getLogger(__name__)

_POINTS_AN_EDGE = 1.5
"""So a surface at 48 degrees still has a point for each voxel from one image alone."""

_STEPS = (1, 2, 4, 8)

MOST_VISITED = 1 << 17
"""Voxels that a frame looks at to see whether they are still there; larger maps take turns."""


@dataclass(frozen=True, slots=True)
class MapSettings:
    """What goes into a map.

    Attributes:
        voxels: how it is bounded.
        min_confidence: points below this one are left out.
        stride: every how many pixels a point is taken, along both axes.
        clear_after: frames in a row that must see through a voxel for it to be removed; 0 = never.
        movers_delay: seconds for which what appears in empty space stays out; 0 = none.

    """

    voxels: VoxelSettings
    min_confidence: float = 1.0
    stride: int = 1
    clear_after: int = 0
    movers_delay: float = 0.0


def chosen_pixels(result: FrameResult, settings: MapSettings) -> NDArray[np.int64]:
    """Return the pixels whose points go into the map, as places in the flattened image.

    Where a surface is so near that a voxel spans many pixels, every second, fourth or eighth of
    them is enough: one and a half to three are left along each edge of a voxel.
    """
    depth, focal = result.depth, min(result.intrinsics.fx, result.intrinsics.fy)
    # Up to where every pixel gives enough points; with every second pixel it is half of that.
    enough = settings.voxels.voxel_size * focal / _POINTS_AN_EDGE
    chosen = np.zeros(depth.shape, bool)
    for step in (settings.stride * each for each in _STEPS):
        grid = slice(None, None, step)
        chosen[grid, grid] |= np.abs(depth[grid, grid]) > enough / (2 * step)
    chosen[grid, grid] = True
    chosen &= result.confidence >= settings.min_confidence
    chosen &= np.isfinite(depth)
    return np.flatnonzero(chosen)


def points_of(
    result: FrameResult, pixels: NDArray[np.int64], map_from_camera: Matrix
) -> NDArray[np.float32]:
    """Return the points of ``pixels`` in the map, float32 [3, n]."""
    points = np.empty((3, len(pixels)), np.float32)
    for axis, coordinate in enumerate(coordinates(result.depth, result.intrinsics)):
        coordinate.take(pixels, out=points[axis], mode="clip")
    moved = map_from_camera[:3, :3].astype(np.float32) @ points
    moved += map_from_camera[:3, 3:].astype(np.float32)
    return moved


class MapBuilder:
    """Puts the points of each result into a voxel map. Not thread-safe.

    Attributes:
        map: what has been seen in this session; None before the first frame.
        changes: counts whatever changed the map.
        held_back: points of the session that stayed out because they appeared in empty space.
        cleared: voxels of the session that were removed because frames saw through them.

    """

    def __init__(self) -> None:
        self.map: VoxelMap | None = None
        self.changes = 0
        self.held_back = 0
        self.cleared = 0
        self._movers = MoverFilter()
        self._warned_of: VoxelMap | None = None

    @property
    def nbytes(self) -> int:
        """Bytes allocated for the map and for finding what moves."""
        return (0 if self.map is None else self.map.nbytes) + self._movers.nbytes

    def add(self, result: FrameResult, map_from_camera: Matrix, settings: MapSettings) -> None:
        """Take in one result, but none with a held pose.

        The first of a session begins again, and so do other voxels.
        """
        if result.index == 0:
            self.clear()
        held = self._resized(settings.voxels)
        if result.pose_source == "held":
            # Its neighbours see nearly the same, and what is put in wrongly stays.
            return
        pixels = chosen_pixels(result, settings)
        if settings.clear_after or settings.movers_delay:
            pixels = self._still(held, result, pixels, map_from_camera, settings)
        held.add(
            points_of(result, pixels, map_from_camera).T,
            result.color.reshape(-1, 3).take(pixels, axis=0),
            result.confidence.ravel().take(pixels),
        )
        self.changes += 1
        self._warn_of_outside(held)

    def _still(
        self,
        held: VoxelMap,
        result: FrameResult,
        pixels: NDArray[np.int64],
        map_from_camera: Matrix,
        settings: MapSettings,
    ) -> NDArray[np.int64]:
        """Remove what the frame sees through, and return those of ``pixels`` that do not move."""
        known = result.confidence >= settings.min_confidence
        known &= np.isfinite(result.depth)
        view = DepthView(result.depth, known, result.intrinsics, map_from_camera)
        if settings.clear_after:
            self._clear_rays(held, view, settings)
        if not settings.movers_delay:
            self._movers.clear()
            return pixels
        cells = self._movers.appeared(view, map_from_camera, result.camera)
        self._movers.remember(view, result.stamp, settings.movers_delay, result.camera)
        if cells is None:
            return pixels
        moving = pixels_of(cells, view, result.depth).ravel().take(pixels)
        self.held_back += int(np.count_nonzero(moving))
        return pixels[~moving]

    def _clear_rays(self, held: VoxelMap, view: DepthView, settings: MapSettings) -> None:
        for part in held.visit(MOST_VISITED):
            seen = view.compare(held.positions(part), settings.voxels.voxel_size / 2)
            free, met = seen.which[seen.free], seen.which[seen.met]
            self.cleared += held.vote(part, free, met, settings.clear_after)

    def clear(self) -> None:
        """Forget every point."""
        self._movers.clear()
        self.held_back = self.cleared = 0
        if self.map is not None and len(self.map):
            self.map.clear()
            self.changes += 1

    def _warn_of_outside(self, held: VoxelMap) -> None:
        if held.outside and held is not self._warned_of:
            self._warned_of = held
            logger.warning(
                "%d points lie more than %g from the origin and stay out of the map, as all like "
                "them will; raise map.voxel_size, or correct the scale",
                held.outside, REACH * held.settings.voxel_size,
            )  # fmt: skip

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
