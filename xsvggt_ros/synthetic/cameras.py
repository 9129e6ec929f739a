# SPDX-License-Identifier: Apache-2.0
"""The synthetic camera: rays, tone curve, poses that look somewhere, and its streams' truth."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xsvggt_ros.geometry.cameras import Intrinsics, encode
from xsvggt_ros.geometry.rigid import invert

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


@dataclass(frozen=True)
class Truth:
    """What is true about a batch of streams, float32, in the frame of each stream's first camera.

    Attributes:
        depth: [B, F, H, W], along the optical axis.
        points: [B, F, H, W, 3].
        encodings: [B, F, 9], the cameras as the network spells them.

    """

    depth: Tensor
    points: Tensor
    encodings: Tensor

    def normalized(self) -> Truth:
        """Return it in units of what the first camera of each stream sees: mean distance 1.

        Only the first frame counts, because a stream does not know its future.
        """
        scale = self.points[:, 0].norm(dim=-1).mean(dim=(1, 2)).clamp(min=1e-6)
        encodings = self.encodings.clone()
        encodings[..., :3] /= scale[:, None, None]
        return replace(
            self,
            depth=self.depth / scale[:, None, None, None],
            points=self.points / scale[:, None, None, None, None],
            encodings=encodings,
        )


def truth_of(depth: Tensor, poses: NDArray[np.float64], intrinsics: Intrinsics) -> Truth:
    """Return the truth about streams in the frames of their first cameras.

    Args:
        depth: [B, F, H, W].
        poses: of the cameras in any common frame, [B, F, 4, 4].
        intrinsics: of all of them.

    """
    relative = np.stack([[invert(stream[0]) @ pose for pose in stream] for stream in poses])
    encodings = np.array(
        [[encode(invert(pose), intrinsics) for pose in stream] for stream in relative]
    )
    moves = torch.from_numpy(relative).float().to(depth.device)
    rays = pixel_rays(intrinsics).to(depth.device)
    own = depth.unsqueeze(-1) * rays
    points = own @ moves[:, :, None, :3, :3].transpose(-1, -2)
    points = points + moves[:, :, None, None, :3, 3]
    return Truth(depth, points, torch.from_numpy(encodings).float().to(depth.device))
