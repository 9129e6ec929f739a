# SPDX-License-Identifier: Apache-2.0
"""Linear readings of every layer's tokens: what is known should be known as early as possible.

Each hop from frame to frame costs a layer, so a pose that is found late is found by fewer frames.
Readings tell every layer to find it as soon as it can; they are thrown away afterwards.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from xsvggt_ros.model.camera_head import POSE_SIZE
from xsvggt_ros.model.config import NetworkConfig
from xsvggt_ros.synthetic.losses import nearer_sign
from xsvggt_ros.synthetic.scenes.streams import Streams

_BETA = 0.05


class Readings(nn.Module):
    """A camera reading of each layer, and one of points and depth of every other one."""

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
        weight = self._mean(seen.float().unsqueeze(-1))
        # As the heads say them: a far point must not outweigh all near ones.
        points = truth.points.sign() * truth.points.abs().log1p()
        wanted = torch.cat([points, truth.depth.clamp(min=1e-3).log().unsqueeze(-1)], dim=-1)
        wanted = self._mean(wanted * seen.unsqueeze(-1)) / weight.clamp(min=1e-6)
        weight = (weight > 0.25).float()
        losses = []
        for layer in self.camera_layers:
            token = self.norms[str(layer)](outputs[layer][:, :, 0])
            found = self.cameras[str(layer)](token).float()
            losses.append(_distance(found, nearer_sign(truth.encodings, found)).mean())
        loss = torch.stack(losses).mean()
        losses = []
        for layer in self.patch_layers:
            tokens = self.norms[str(layer)](outputs[layer][:, :, self._special :])
            error = _distance(self.patches[str(layer)](tokens).float(), wanted)
            losses.append((error * weight[..., 0]).sum() / weight.sum().clamp(min=1))
        return loss + torch.stack(losses).mean()

    def _mean(self, values: Tensor) -> Tensor:
        """Return the mean of [B, F, H, W, C] over each patch, [B, F, patches, C]."""
        side = self._patch
        return (
            values.unflatten(3, (-1, side)).unflatten(2, (-1, side)).mean(dim=(3, 5)).flatten(2, 3)
        )


def _distance(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the smooth L1 distance, summed over the last side."""
    return functional.smooth_l1_loss(found, wanted, reduction="none", beta=_BETA).sum(dim=-1)
