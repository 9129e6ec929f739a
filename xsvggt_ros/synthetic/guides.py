# SPDX-License-Identifier: Apache-2.0
"""Linear readings of the aggregator's tokens, taught beside the heads and thrown away afterwards.

A head tells the aggregator what it wants through many layers of its own that know nothing at first.
A linear reading tells it at once, so that a network learns to see before its heads learn to speak.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from xsvggt_ros.model.camera_head import POSE_SIZE
from xsvggt_ros.model.config import NetworkConfig
from xsvggt_ros.synthetic.batches import Batch
from xsvggt_ros.synthetic.losses import Truth, nearer_sign

_BETA = 0.1
"""Error from which on a reading's loss grows linearly."""

_ROOM_UNIT = 2.0
"""Metres that make 1 in the room's frame, so that targets are about as large as tokens."""


class Guides(nn.Module):
    """Readings of some layers.

    In rooms whose colours tell a place: where in the room each patch is (first layer), and the
    camera (an early one). Last layer: camera, points and logarithm of depth, as the heads say them.
    """

    def __init__(self, config: NetworkConfig, *, room: bool) -> None:
        super().__init__()
        dim = 2 * config.embed_dim
        self._special = config.special_tokens
        self._early, self._last = config.depth // 3, config.depth - 1
        self._patch = config.patch_size
        self.room_camera = nn.Linear(dim, 9) if room else None
        self.room_points = nn.Linear(dim, 3) if room else None
        self.camera = nn.Linear(dim, POSE_SIZE)
        self.patches = nn.Linear(dim, 4)

    @property
    def layers(self) -> set[int]:
        """Layers that are read."""
        return {0, self._early, self._last}

    def forward(self, outputs: dict[int, Tensor], batch: Batch, normal: Truth) -> Tensor:
        """Return the loss of all readings.

        Args:
            outputs: of the :attr:`layers`, [B, F, tokens, 2 * dim].
            batch: what went in.
            normal: its truth, normalised.

        """
        last = outputs[self._last]
        depth = self._per_patch(normal.depth.unsqueeze(-1)).log()
        points = self._per_patch(normal.points)
        camera = self.camera(last[:, :, 0])
        loss = _distance(camera, nearer_sign(normal.encodings, camera))
        loss = loss + _distance(
            self.patches(last[:, :, self._special :]), torch.cat([points, depth], dim=-1)
        )
        if self.room_camera is None or self.room_points is None:
            return loss
        places = self._per_patch(_in_room(batch)) / _ROOM_UNIT - 1
        cameras = torch.cat(
            [batch.poses[..., :3, 3] / _ROOM_UNIT - 1, batch.poses[..., :2, :3].flatten(-2)], dim=-1
        )
        loss = loss + _distance(self.room_camera(outputs[self._early][:, :, 0]), cameras)
        return loss + _distance(self.room_points(outputs[0][:, :, self._special :]), places)

    def _per_patch(self, values: Tensor) -> Tensor:
        """Return the mean of [B, F, H, W, C] over each patch, [B, F, patches, C]."""
        side = self._patch
        return (
            values.unflatten(3, (-1, side)).unflatten(2, (-1, side)).mean(dim=(3, 5)).flatten(2, 3)
        )


def _in_room(batch: Batch) -> Tensor:
    """Return the points of each pixel in the room's frame, [B, F, H, W, 3]."""
    first = batch.poses[:, 0, None, None, None]
    turned = (first[..., :3, :3] @ batch.truth.points.unsqueeze(-1)).squeeze(-1)
    return turned + first[..., :3, 3]


def _distance(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the smooth L1 distance, summed over the last side, averaged over the others."""
    each = functional.smooth_l1_loss(found, wanted, reduction="none", beta=_BETA)
    return each.sum(dim=-1).mean()
