# SPDX-License-Identifier: Apache-2.0
"""Alternating attention: within each frame, then over all frames (VGGT, section 3)."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

import torch
from torch import Tensor, nn

from xsvggt_ros.model.config import NetworkConfig
from xsvggt_ros.model.encoder import Encoder
from xsvggt_ros.model.layers import Block
from xsvggt_ros.model.memory import Memory
from xsvggt_ros.model.rotary import grid_positions, rotation_for

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def normalize(images: Tensor) -> Tensor:
    """Normalise RGB in [0, 1], [..., 3, height, width], with ImageNet's statistics."""
    channels = [
        (images[..., c, :, :] - _MEAN[c]) / _STD[c] for c in range(3)
    ]  # scalars, not tensors: no copy to the device per frame
    return torch.stack(channels, dim=-3)


class Aggregator(nn.Module):
    """Encoder and the alternating blocks."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim

        def blocks() -> nn.ModuleList:
            return nn.ModuleList(
                Block(dim, config.num_heads, config.mlp_ratio, normalize_qk=True)
                for _ in range(config.depth)
            )

        self.patch_embed = Encoder(config)
        self.frame_blocks = blocks()
        self.global_blocks = blocks()
        # Index 0 on the second axis marks the first frame of a stream, index 1 every other one.
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, dim))
        self.register_token = nn.Parameter(torch.zeros(1, 2, config.num_registers, dim))

    def special_tokens(self, frames: int, first: bool) -> Tensor:
        """Return camera and register tokens, [frames, 1 + registers, dim]."""
        roles = [0 if first and frame == 0 else 1 for frame in range(frames)]
        both = torch.cat([self.camera_token, self.register_token], dim=2)[0]
        return torch.stack([both[role] for role in roles])

    def forward(self, images: Tensor, memory: Memory, layers: Collection[int]) -> dict[int, Tensor]:
        """Return the outputs of the asked ``layers``.

        Args:
            images: RGB in [0, 1], [batch, frames, 3, height, width], sides multiples of the patch.
            memory: attends for the global blocks.
            layers: indices whose output somebody reads; nothing else is kept.

        Returns:
            Layer index to float32 [batch, frames, tokens, 2 * dim]: frame-block output, then
            global-block output.

        """
        config = self.config
        batch, frames, _, height, width = images.shape
        patches = self.patch_embed(normalize(images.flatten(0, 1)))
        special = self.special_tokens(frames, memory.first_frame).repeat(batch, 1, 1)
        tokens = torch.cat([special, patches], dim=1)
        count, dim = tokens.shape[1:]
        positions = grid_positions(
            height // config.patch_size, width // config.patch_size, special.shape[1], images.device
        )
        rotation = rotation_for(positions, config.head_dim, config.rope_base)
        rotation_all = rotation.repeated(frames)

        outputs: dict[int, Tensor] = {}
        for index, (frame_block, global_block) in enumerate(
            zip(self.frame_blocks, self.global_blocks, strict=True)
        ):
            local = frame_block(tokens.view(batch * frames, count, dim), rotation=rotation)
            tokens = global_block(
                local.view(batch, frames * count, dim),
                partial(memory.attend, index),
                rotation_all,
                partial(memory.absorb, index),
            )
            if index in layers:
                both = torch.cat([local.view_as(tokens), tokens], dim=-1)
                outputs[index] = both.view(batch, frames, count, 2 * dim)
        return outputs
