# SPDX-License-Identifier: Apache-2.0
"""Which points of a frame stand where earlier frames saw empty space: people, doors, vehicles.

A few depth images of the last seconds are kept for each camera. What stays in its new place longer
than they reach back is furniture, and no longer held against it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.depth_view import DepthView
from xsvggt_ros.geometry.rigid import Matrix

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
