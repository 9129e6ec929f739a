# SPDX-License-Identifier: Apache-2.0
"""Pinhole cameras: what they are, as the network encodes them, and the points that they see."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.rigid import Matrix, matrix_from_quaternion, quaternion_from_matrix


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


def world_to_camera(encoding: NDArray[np.floating]) -> Matrix:
    """Return the extrinsics [4, 4] of an encoding [9], whose quaternion may have any length."""
    extrinsics = np.eye(4)
    extrinsics[:3, :3] = matrix_from_quaternion(encoding[3:7])
    extrinsics[:3, 3] = encoding[:3]
    return extrinsics


def inverted(encoding: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the encoding [9] of the inverse motion; the quaternion keeps its length.

    Turns camera-to-world, as LingBot-Map says poses, into world-to-camera and back. An encoding
    without a rotation, or that is not finite, is returned as it is.
    """
    if not np.isfinite(encoding).all() or not encoding[3:7].any():
        return encoding
    x, y, z, w = encoding[3:7]
    inverse = np.array([-x, -y, -z, w])
    translation = -matrix_from_quaternion(inverse) @ encoding[:3]
    return np.concatenate([translation, inverse, encoding[7:]]).astype(encoding.dtype)


def intrinsics_from_encoding(encoding: NDArray[np.floating], width: int, height: int) -> Intrinsics:
    """Return the pinhole camera of an encoding [9] whose fields of view lie within (0, pi).

    Args:
        encoding: translation, quaternion, vertical and horizontal field of view in radians,
            [9].
        width: of the image, pixels.
        height: likewise.

    """
    fov_vertical, fov_horizontal = float(encoding[7]), float(encoding[8])
    return Intrinsics(
        fx=width / 2 / math.tan(fov_horizontal / 2),
        fy=height / 2 / math.tan(fov_vertical / 2),
        cx=width / 2,
        cy=height / 2,
        width=width,
        height=height,
    )


def encode(extrinsics: Matrix, intrinsics: Intrinsics) -> NDArray[np.float64]:
    """Return the encoding [9] of world-to-camera ``extrinsics`` [4, 4]; inverse of the above."""
    return np.array(
        [
            *extrinsics[:3, 3],
            *quaternion_from_matrix(extrinsics[:3, :3]),
            2 * math.atan(intrinsics.height / 2 / intrinsics.fy),
            2 * math.atan(intrinsics.width / 2 / intrinsics.fx),
        ]
    )


Depth = NDArray[np.float32]


def unproject(depth: Depth, intrinsics: Intrinsics) -> NDArray[np.float32]:
    """Return the points of a depth map, float32 [h, w, 3], in the optical frame.

    Pixel centres lie at integer coordinates (VGGT's convention). NaN depth gives NaN points.
    """
    height, width = depth.shape
    points = np.empty((height, width, 3), np.float32)
    rays_x, rays_y = _rays(depth, intrinsics)
    np.multiply(depth, rays_x, out=points[..., 0])
    np.multiply(depth, rays_y, out=points[..., 1])
    points[..., 2] = depth
    return points


def coordinates(depth: Depth, intrinsics: Intrinsics) -> tuple[Depth, Depth, Depth]:
    """Return the same points as three images, x, y and z, float32 [h, w] each."""
    rays_x, rays_y = _rays(depth, intrinsics)
    return depth * rays_x, depth * rays_y, depth


def _rays(depth: Depth, intrinsics: Intrinsics) -> tuple[Depth, Depth]:
    """Return x of each column [w] and y of each row [h, 1], at depth 1."""
    height, width = depth.shape
    rays_x = (np.arange(width, dtype=np.float32) - np.float32(intrinsics.cx)) / np.float32(
        intrinsics.fx
    )
    rays_y = (np.arange(height, dtype=np.float32) - np.float32(intrinsics.cy)) / np.float32(
        intrinsics.fy
    )
    return rays_x, rays_y[:, None]
