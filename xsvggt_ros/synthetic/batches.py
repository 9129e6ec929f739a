# SPDX-License-Identifier: Apache-2.0
"""Batches of streams for training: cut from the album, exposed again, with the truth about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.pose_encoding import encode
from xsvggt_ros.geometry.rigid import invert
from xsvggt_ros.synthetic.album import Album, cut
from xsvggt_ros.synthetic.cameras import pixel_rays
from xsvggt_ros.synthetic.losses import Truth

_GAIN = 0.1
"""Stops by which the brightness of streams differs."""

_NOISE = 0.01
"""Standard deviation of pixels, of full scale."""


@dataclass(frozen=True)
class Batch:
    """Streams and what is true about them.

    Attributes:
        images: float32 [B, F, 3, H, W] in [0, 1].
        truth: in the frame of each stream's first camera, metres.
        poses: float32 [B, F, 4, 4], camera to room.

    """

    images: Tensor
    truth: Truth
    poses: Tensor

    @property
    def frames(self) -> int:
        """Number of images."""
        return self.images.shape[0] * self.images.shape[1]


def draw_batch(
    album: Album,
    rolls: int,
    streams: int,
    frames: int,
    intrinsics: Intrinsics,
    seed: tuple[int, int],
    device: torch.device,
) -> Batch:
    """Cut streams from the first ``rolls`` rolls of an album; equal seeds give equal batches."""
    rng = np.random.default_rng([*seed, 0x57E9])
    images, depth, poses = [], [], []
    for _ in range(streams):
        roll = album.draw(rolls, rng)
        chosen = cut(len(roll), frames, rng)
        images.append(roll.images[chosen])
        depth.append(roll.depth[chosen])
        poses.append(roll.poses[chosen])
    gains = 2.0 ** rng.uniform(-_GAIN, _GAIN, streams)
    normalized = torch.from_numpy(np.stack(images)).to(device).float() / 255
    normalized = normalized * torch.from_numpy(gains).float().to(device)[:, None, None, None, None]
    generator = torch.Generator(device).manual_seed(int(rng.integers(0, 2**31)))
    noise = torch.randn(normalized.shape, generator=generator, device=device)
    places = np.stack(poses)
    return Batch(
        (normalized + _NOISE * noise).clamp(0, 1),
        truth_of(torch.from_numpy(np.stack(depth)).to(device).float(), places, intrinsics),
        torch.from_numpy(places).float().to(device),
    )


def truth_of(depth: Tensor, poses: NDArray[np.float64], intrinsics: Intrinsics) -> Truth:
    """Return the truth about streams in the frames of their first cameras.

    ``depth`` is [B, F, H, W], ``poses`` are [B, F, 4, 4] into any common frame.
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
