# SPDX-License-Identifier: Apache-2.0
"""The synthetic camera: its rays, its tone curve, and poses that look somewhere."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xsvggt_ros.geometry.cameras import Intrinsics

_STEEPNESS = 1.9
_GAMMA = 2.2


def intrinsics_for(width: int, height: int, horizontal_degrees: float) -> Intrinsics:
    """Return a camera with square pixels.

    Args:
        width: pixels.
        height: pixels.
        horizontal_degrees: field of view.

    """
    focal = width / 2 / math.tan(math.radians(horizontal_degrees) / 2)
    return Intrinsics(focal, focal, width / 2, height / 2, width, height)


def pixel_rays(intrinsics: Intrinsics, offset: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """Return rays [height, width, 3] in the optical frame, of length 1 along the optical axis.

    Pixel centres lie at integer coordinates; ``offset`` shifts them, in pixels right and down. A
    distance measured in lengths of such a ray *is* the depth.
    """
    u = (torch.arange(intrinsics.width) + (offset[0] - intrinsics.cx)) / intrinsics.fx
    v = (torch.arange(intrinsics.height) + (offset[1] - intrinsics.cy)) / intrinsics.fy
    x, y = torch.meshgrid(u.float(), v.float(), indexing="xy")
    return torch.stack([x, y, torch.ones_like(x)], dim=-1)


def poses_looking_along(
    positions: NDArray[np.float64],
    heading: NDArray[np.float64],
    pitch: NDArray[np.float64],
    roll: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return camera-to-world poses [n, 4, 4] in a world with z up.

    Args:
        positions: [n, 3], metres.
        heading: [n], radians from x towards y that the optical axis points to.
        pitch: [n], radians upwards.
        roll: [n], radians clockwise as seen by the camera.

    """
    sh, ch, sp, cp = np.sin(heading), np.cos(heading), np.sin(pitch), np.cos(pitch)
    forward = np.stack([ch * cp, sh * cp, sp], axis=-1)
    level = np.stack([sh, -ch, np.zeros_like(sh)], axis=-1)
    down = np.cross(forward, level)
    cr, sr = np.cos(roll)[:, None], np.sin(roll)[:, None]
    poses = np.tile(np.eye(4), (len(positions), 1, 1))
    poses[:, :3, 0] = cr * level + sr * down
    poses[:, :3, 1] = cr * down - sr * level
    poses[:, :3, 2] = forward
    poses[:, :3, 3] = positions
    return poses


def tone_map(light: Tensor, exposure: Tensor | float = 1.0) -> Tensor:
    """Turn linear light [..., 3] into RGB in [0, 1], as a camera does: shoulder, then gamma."""
    return (1 - torch.exp(-_STEEPNESS * exposure * light)).clamp(0, 1) ** (1 / _GAMMA)


def inverse_tone_map(image: Tensor) -> Tensor:
    """Return the linear light [..., 3] that :func:`tone_map` turns into RGB in [0, 1)."""
    return -torch.log1p(-(image**_GAMMA)) / _STEEPNESS
