# SPDX-License-Identifier: Apache-2.0
"""What is true about streams of images, in the form in which a network predicts it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xsvggt_ros.geometry.cameras import Intrinsics, encode
from xsvggt_ros.geometry.rigid import invert
from xsvggt_ros.synthetic.cameras import pixel_rays


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
