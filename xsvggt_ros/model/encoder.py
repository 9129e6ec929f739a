# SPDX-License-Identifier: Apache-2.0
"""DINOv2 vision transformer with registers: images to patch tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from xsvggt_ros.model.config import NetworkConfig
from xsvggt_ros.model.constants import Constants
from xsvggt_ros.model.layers import Block, LayerNorm

_EPS = 1e-6


class PatchEmbedding(nn.Module):
    """Cuts an image into patches and projects each to a token."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """Map [frames, 3, height, width] to row-major tokens [frames, patches, dim]."""
        return self.proj(images.to(self.proj.weight.dtype)).flatten(2).transpose(1, 2)


class Encoder(nn.Module):
    """The ViT of DINOv2; only its normalised patch tokens leave it.

    Attributes:
        constants: what it keeps per image size.
        frozen: whether the weights never change again, so that what follows from them is kept, too.

    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dim, encoder = config.embed_dim, config.encoder
        self.grid = config.image_size // config.patch_size
        self.patch_size = config.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.grid**2, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, encoder.num_registers, dim))
        # Only masked-image training used it, but the official file has it and loading is strict.
        self.mask_token = nn.Parameter(torch.zeros(1, dim), requires_grad=False)
        self.patch_embed = PatchEmbedding(config.patch_size, dim)
        self.blocks = nn.ModuleList(
            Block(dim, encoder.num_heads, encoder.mlp_ratio, layer_scale=1.0, eps=_EPS)
            for _ in range(encoder.depth)
        )
        self.norm = LayerNorm(dim, eps=_EPS)
        self.constants = Constants()
        self.frozen = False

    def position_embedding(self, rows: int, columns: int) -> Tensor:
        """Return the embedding for a grid of patches, float32 [1, 1 + rows * columns, dim].

        Stored for a square grid; any other is reached by antialiased bicubic resizing.
        """
        if rows == columns == self.grid:
            return self.pos_embed
        stored = self.pos_embed[:, 1:].view(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        resized = functional.interpolate(
            stored.float(), size=(rows, columns), mode="bicubic", antialias=True
        )
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2)], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [frames, 3, height, width] to float32 [frames, patches, dim]."""
        rows, columns = (side // self.patch_size for side in images.shape[-2:])
        special, positions = self.constants.get(
            (rows, columns, self.pos_embed.device),
            lambda: self._special_and_positions(rows, columns),
            keep=self.frozen,
        )
        patches = positions + self.patch_embed(images)  # in the layout of the first of them
        tokens = torch.cat([special.expand(len(patches), -1, -1), patches], dim=1)
        update: Tensor | None = None
        for block in self.blocks:
            _, tokens, update = block(tokens, update)
        if update is not None:
            tokens = tokens + update
        return self.norm(tokens[:, special.shape[1] :])

    def _special_and_positions(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Return class and register tokens as they enter, and the patches' part of the embedding.

        Float32 [1, 1 + registers, dim] and [1, rows * columns, dim].
        """
        positions = self.position_embedding(rows, columns)
        special = torch.cat([self.cls_token + positions[:, :1], self.register_tokens], dim=1)
        return special, positions[:, 1:]
