# SPDX-License-Identifier: Apache-2.0
"""Metres per unit of the model, from measured depth or from a measured way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.rigid import Matrix, invert, rotation_angle
from xsvggt_ros.stream.frame import FrameResult

LEAST_SHARE = 0.01
"""Of the pixels that must have both depths."""
NEAREST, FARTHEST = 0.1, 20.0
"""Metres between which depth cameras are trusted."""
_STRIDE = 4

SHORTEST_WAY = 0.2
"""Metres of a chord between two poses, much longer than an odometry's noise."""
LARGEST_TURN = 0.1
"""Radians within a chord: a camera off the axis moves by turning, which an odometry leaves out."""


def scale_from_depth(result: FrameResult, measured: NDArray[np.float32]) -> float | None:
    """Return the median of measured over predicted depth, None where too little is known.

    Args:
        result: in the model's unit.
        measured: [H, W] in metres, NaN or 0 where unknown; of the same camera and field of view as
            the source image, in any size.

    """
    rows, columns = _places(result, measured.shape)
    metres = measured[np.ix_(rows, columns)]
    predicted = result.depth[::_STRIDE, ::_STRIDE]
    confidence = result.confidence[::_STRIDE, ::_STRIDE]
    usable = (metres >= NEAREST) & (metres <= FARTHEST) & (predicted > 0)
    if np.count_nonzero(usable) < max(1.0, LEAST_SHARE * usable.size):
        return None
    usable &= confidence >= np.median(confidence[usable])
    return float(np.median(metres[usable] / predicted[usable]))


def _places(
    result: FrameResult, measured: tuple[int, ...]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows and columns of the measured image that the network's pixels lie in."""
    mapping = result.mapping
    height, width = result.depth.shape
    rows = (np.arange(0, height, _STRIDE) + 0.5 + mapping.crop_top) / mapping.resized_height
    columns = (np.arange(0, width, _STRIDE) + 0.5) / mapping.width
    return (rows * measured[0]).astype(np.intp), (columns * measured[1]).astype(np.intp)


class WayScale:
    """Compares chords of the camera's way in the model's unit with those of a metric odometry."""

    def __init__(self) -> None:
        self._start: tuple[Matrix, Matrix] | None = None

    def estimate(
        self, world_from_camera: Matrix, odom_from_camera: Matrix | None, *, first: bool
    ) -> float | None:
        """Return metres per unit at the end of a straight enough chord, else None.

        Args:
            world_from_camera: in the model's unit, [4, 4].
            odom_from_camera: in metres, at the same time; None where it is not known.
            first: whether a session begins.

        """
        if first:
            self._start = None
        if odom_from_camera is None:
            return None
        if self._start is None:
            self._start = world_from_camera, odom_from_camera
            return None
        model = invert(self._start[0]) @ world_from_camera
        metric = invert(self._start[1]) @ odom_from_camera
        way = float(np.linalg.norm(metric[:3, 3]))
        turned = max(rotation_angle(model), rotation_angle(metric)) > LARGEST_TURN
        if way < SHORTEST_WAY and not turned:
            return None
        self._start = world_from_camera, odom_from_camera
        units = float(np.linalg.norm(model[:3, 3]))
        return None if turned or units == 0.0 else way / units
