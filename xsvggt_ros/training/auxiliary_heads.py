# SPDX-License-Identifier: Apache-2.0
"""Auxiliary heads: linear readings of the aggregator's tokens, thrown away after the training.

A head tells the aggregator what it wants through many layers of its own that know nothing at first.
A linear reading tells it at once. And each hop from frame to frame costs a layer, so a pose that is
found in a late layer is found by fewer frames: what is known should be known as early as possible.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from xsvggt_ros.model.config import NetworkConfig
from xsvggt_ros.model.heads import POSE_SIZE
from xsvggt_ros.synthetic.cameras import Truth
from xsvggt_ros.synthetic.scenes import Streams
from xsvggt_ros.training.batches import Batch
from xsvggt_ros.training.learning import AuxiliaryHeads, nearer_sign

ROOM_BETA, SCENE_BETA = 0.1, 0.05
"""Error from which on a reading's loss grows linearly."""

_ROOM_UNIT = 2.0
"""Metres that make 1 in the room's frame, so that targets are about as large as tokens."""


class RoomHeads(AuxiliaryHeads):
    """Readings of three layers, for streams that are cut from clips of rooms.

    In rooms whose colours tell a position: where in the room each patch is (first layer), and the
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
        depth = patch_means(normal.depth.unsqueeze(-1), self._patch).log()
        points = patch_means(normal.points, self._patch)
        camera = self.camera(last[:, :, 0])
        loss = _room_distance(camera, nearer_sign(normal.encodings, camera))
        loss = loss + _room_distance(
            self.patches(last[:, :, self._special :]), torch.cat([points, depth], dim=-1)
        )
        if self.room_camera is None or self.room_points is None:
            return loss
        positions = patch_means(_in_room(batch), self._patch) / _ROOM_UNIT - 1
        cameras = torch.cat(
            [batch.poses[..., :3, 3] / _ROOM_UNIT - 1, batch.poses[..., :2, :3].flatten(-2)], dim=-1
        )
        loss = loss + _room_distance(self.room_camera(outputs[self._early][:, :, 0]), cameras)
        return loss + _room_distance(self.room_points(outputs[0][:, :, self._special :]), positions)


class SceneHeads(AuxiliaryHeads):
    """A camera reading of each layer, and one of points and depth of every third one."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dim = 2 * config.embed_dim
        self._special, self._patch = config.special_tokens, config.patch_size
        first = max(0, min(2, config.depth - 1))
        self.camera_layers = tuple(range(first, config.depth))
        self.patch_layers = tuple(range(config.depth - 1, -1, -3))
        self.norms = nn.ModuleDict({str(k): nn.LayerNorm(dim) for k in sorted(self.layers)})
        self.cameras = nn.ModuleDict(
            {str(k): nn.Linear(dim, POSE_SIZE) for k in self.camera_layers}
        )
        self.patches = nn.ModuleDict({str(k): nn.Linear(dim, 4) for k in self.patch_layers})

    @property
    def layers(self) -> set[int]:
        """Layers that are read."""
        return {*self.camera_layers, *self.patch_layers}

    def forward(self, outputs: dict[int, Tensor], streams: Streams) -> Tensor:
        """Return the loss of all readings, a mean over layers.

        Args:
            outputs: of the :attr:`layers`, [worlds, frames, tokens, 2 * dim].
            streams: what went in.

        """
        truth, seen = streams.truth, streams.seen
        weight = patch_means(seen.float().unsqueeze(-1), self._patch)
        # As the heads say them: a far point must not outweigh all near ones.
        points = truth.points.sign() * truth.points.abs().log1p()
        wanted = torch.cat([points, truth.depth.clamp(min=1e-3).log().unsqueeze(-1)], dim=-1)
        wanted = patch_means(wanted * seen.unsqueeze(-1), self._patch) / weight.clamp(min=1e-6)
        weight = (weight > 0.25).float()
        losses = []
        for layer in self.camera_layers:
            token = self.norms[str(layer)](outputs[layer][:, :, 0])
            found = self.cameras[str(layer)](token).float()
            losses.append(distance(found, nearer_sign(truth.encodings, found), SCENE_BETA).mean())
        loss = torch.stack(losses).mean()
        losses = []
        for layer in self.patch_layers:
            tokens = self.norms[str(layer)](outputs[layer][:, :, self._special :])
            error = distance(self.patches[str(layer)](tokens).float(), wanted, SCENE_BETA)
            losses.append((error * weight[..., 0]).sum() / weight.sum().clamp(min=1))
        return loss + torch.stack(losses).mean()


def patch_means(values: Tensor, side: int) -> Tensor:
    """Return the mean of [B, F, H, W, C] over patches of ``side`` pixels, [B, F, patches, C]."""
    tiles: Tensor = values.unflatten(3, (-1, side)).unflatten(2, (-1, side))
    return tiles.mean(dim=(3, 5)).flatten(2, 3)


def distance(found: Tensor, wanted: Tensor, beta: float) -> Tensor:
    """Return the smooth L1 distance of [..., C], summed over C, [...].

    Args:
        found: [..., C].
        wanted: of the same shape.
        beta: below it the distance is a square.

    """
    return functional.smooth_l1_loss(found, wanted, reduction="none", beta=beta).sum(dim=-1)


def _room_distance(found: Tensor, wanted: Tensor) -> Tensor:
    return distance(found, wanted, ROOM_BETA).mean()


def _in_room(batch: Batch) -> Tensor:
    """Return the points of each pixel in the room's frame, [B, F, H, W, 3]."""
    first = batch.poses[:, 0, None, None, None]
    turned = (first[..., :3, :3] @ batch.truth.points.unsqueeze(-1)).squeeze(-1)
    return turned + first[..., :3, 3]
