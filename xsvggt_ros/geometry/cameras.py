# SPDX-License-Identifier: Apache-2.0
"""Pinhole intrinsics and the calibration that travels with a camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """A pinhole camera without skew, all lengths in pixels of a ``width`` x ``height`` picture.

    Pixel centres lie at integer coordinates and the network's principal point is
    ``(width / 2, height / 2)``, as in VGGT; a resize multiplies all four numbers.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def matrix(self) -> NDArray[np.float64]:
        """Return K, float64 [3, 3]."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a ``sensor_msgs/CameraInfo`` says of a camera, without the message.

    ``k`` and ``r`` are row-major 3x3, ``p`` row-major 3x4. ``k[0] == 0`` means uncalibrated
    (REP-104).
    """

    width: int
    height: int
    distortion_model: str = ""
    d: tuple[float, ...] = ()
    k: tuple[float, ...] = (0.0,) * 9
    r: tuple[float, ...] = (0.0,) * 9
    p: tuple[float, ...] = (0.0,) * 12
