# SPDX-License-Identifier: Apache-2.0
"""Pinhole intrinsics and the calibration that travels with a camera."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """A pinhole camera without skew, all lengths in pixels of a ``width`` x ``height`` image.

    Pixel centres lie at integer coordinates and the network's principal point is
    ``(width / 2, height / 2)``, as in VGGT; a resize multiplies all four numbers.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def at_size(self, width: int, height: int) -> Intrinsics:
        """Return the camera of the same image resized to another size."""
        x, y = width / self.width, height / self.height
        return Intrinsics(self.fx * x, self.fy * y, self.cx * x, self.cy * y, width, height)

    def has_shape_of(self, width: int, height: int) -> bool:
        """Tell whether images of a size have the same proportions, to within two pixels."""
        return abs(width * self.height / self.width - height) <= 2.0

    @property
    def is_plausible(self) -> bool:
        """Whether the principal point lies in the middle half, as that of whole images does."""
        across, down = self.cx / self.width, self.cy / self.height
        return 0.25 <= across <= 0.75 and 0.25 <= down <= 0.75

    def matrix(self) -> NDArray[np.float64]:
        """Return K, float64 [3, 3]."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a ``sensor_msgs/CameraInfo`` says of a camera, without the message.

    ``k`` and ``r`` are row-major 3x3, ``p`` row-major 3x4, all for the sensor's whole image.
    ``k[0] == 0`` means uncalibrated (REP-104).

    Attributes:
        binning: sensor pixels per pixel of the image, along x and y; 0 means 1.
        region: x, y, width and height of what was read out, in sensor pixels; width 0 = all.
        frame_id: the camera that it speaks of; empty where it does not say.
        rectified: whether the images beside it have been rectified already.

    """

    width: int
    height: int
    distortion_model: str = ""
    d: tuple[float, ...] = ()
    k: tuple[float, ...] = (0.0,) * 9
    r: tuple[float, ...] = (0.0,) * 9
    p: tuple[float, ...] = (0.0,) * 12
    binning: tuple[int, int] = (0, 0)
    region: tuple[int, int, int, int] = (0, 0, 0, 0)
    frame_id: str = ""
    rectified: bool = False

    @property
    def known(self) -> bool:
        """Whether the camera was calibrated at all."""
        return self.k[0] != 0.0

    def speaks_of(self, frame_id: str) -> bool:
        """Return whether it belongs to the images of a frame; a missing name fits any."""
        return not self.frame_id or not frame_id or self.frame_id == frame_id


def without_distortion(calibration: Calibration) -> Calibration:
    """Return the calibration of the rectified images by themselves."""
    p = calibration.p
    if not p[0]:
        return replace(calibration, d=(0.0,) * len(calibration.d))
    return replace(
        calibration,
        d=(0.0,) * len(calibration.d),
        k=(*p[0:3], *p[4:7], *p[8:11]),
        r=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )


def is_rectified_topic(topic: str) -> bool:
    """Return whether images are rectified by the name of their topic, as image_proc gives it.

    One of its words, between ``/`` and ``_``, is then ``rect`` or ``rectified``. The
    ``camera_info`` beside ``image_raw`` and ``image_rect`` is the same, so it cannot tell.
    """
    return not {"rect", "rectified"}.isdisjoint(re.split("[/_]", topic))
