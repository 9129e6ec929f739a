# SPDX-License-Identifier: Apache-2.0
"""The encoder (DINOv2), and attention within each frame, then over all (VGGT, section 3)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from xsvggt_ros.model.config import NetworkConfig
from xsvggt_ros.model.layers import Block, Constants, LayerNorm, Memory
from xsvggt_ros.model.operators import (
    Rotation,
    diagonal_positions,
    frequencies,
    grid_positions,
    rotation_for,
    rotation_over_time,
)

_EPS = 1e-6


class PatchEmbedding(nn.Module):
    """Cuts an image into patches and projects each to a token."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """Map [frames, 3, height, width] to row-major tokens [frames, patches, dim].

        Patches do not overlap, so the convolution is a matrix product of their pixels.
        """
        size, weight = self.proj.kernel_size[0], self.proj.weight
        pixels = images.to(weight.dtype).unflatten(3, (-1, size)).unflatten(2, (-1, size))
        patches = pixels.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return functional.linear(patches, weight.flatten(1), self.proj.bias)


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
        patches = positions + self.patch_embed(images)
        tokens = torch.cat([special.expand(len(patches), -1, -1), patches], dim=1)
        update: Tensor | None = None
        for block in self.blocks:
            _, tokens, update = block(tokens, update)
        if update is not None:
            tokens = tokens + update
        normed: Tensor = self.norm(tokens[:, special.shape[1] :])
        return normed

    def _special_and_positions(self, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Return class and register tokens as they enter, and the patches' part of the embedding.

        Float32 [1, 1 + registers, dim] and [1, rows * columns, dim].
        """
        positions = self.position_embedding(rows, columns)
        special = torch.cat([self.cls_token + positions[:, :1], self.register_tokens], dim=1)
        return special, positions[:, 1:]


_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def image_statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return offset and gain, [3, 1, 1], that normalise RGB in [0, 1] by ImageNet's statistics."""
    mean, std = (torch.tensor(each, device=device).view(3, 1, 1) for each in (_MEAN, _STD))
    return -mean / std, 1 / std


def normalize(images: Tensor, offset: Tensor, gain: Tensor) -> Tensor:
    """Normalise [..., 3, height, width].

    Args:
        images: [..., 3, height, width] in [0, 1].
        offset: minus mean over deviation of each channel, [3, 1, 1].
        gain: one over the deviation, [3, 1, 1].

    """
    return torch.addcmul(offset, images, gain)


class Aggregator(nn.Module):
    """Encoder and the alternating blocks.

    Attributes:
        constants: what it keeps per image size.
        special: its special tokens as they enter.
        frozen: whether the weights never change again, so that what follows from them is kept, too.

    """

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
        if config.scale_token:
            # Here index 0 marks every frame of the first pass.
            self.scale_token = nn.Parameter(torch.zeros(1, 2, 1, dim))
        self.constants = Constants()
        self.special = Constants()
        self.frozen = False

    def special_tokens(self, frames: int, anchors: int) -> Tensor:
        """Return camera, register and scale tokens, [frames, special tokens, dim].

        Args:
            frames: that enter together.
            anchors: how many of them, in front, belong to the first pass of their stream.

        """
        both = torch.cat([self.camera_token, self.register_token], dim=2)[0]
        tokens = torch.stack([both[0 if anchors and not k else 1] for k in range(frames)])
        if not self.config.scale_token:
            return tokens
        scale = torch.stack([self.scale_token[0, 0 if k < anchors else 1] for k in range(frames)])
        return torch.cat([tokens, scale], dim=1)

    def forward(self, images: Tensor, memory: Memory, layers: Collection[int]) -> dict[int, Tensor]:
        """Return the outputs of the asked ``layers`` by their index; see :meth:`outputs`."""
        return dict(self.outputs(images, memory, layers))

    def outputs(
        self, images: Tensor, memory: Memory, layers: Collection[int]
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield index and output of each of the asked ``layers`` as soon as it is computed.

        An output is float32 [batch, frames, tokens, 2 * dim]: frame-block output, then
        global-block output.

        Args:
            images: RGB in [0, 1], [batch, frames, 3, height, width], sides multiples of the patch.
            memory: attends for the global blocks.
            layers: indices whose output somebody reads; nothing else is kept.

        """
        batch, frames = images.shape[:2]
        offset, gain, *turns = self.constants.get(
            (*images.shape[3:], images.device), partial(self._of_size, *images.shape[3:])
        )
        rotation = Rotation(turns[0], turns[1])
        global_rotation = rotation
        if self.config.rope_time:
            global_rotation = rotation_over_time(memory.times(frames, images.device), *turns[2:])
        patches = self.patch_embed(normalize(images.flatten(0, 1), offset, gain))
        anchors = memory.begin_pass(frames)
        tokens = torch.cat([self._entering(batch, frames, anchors), patches], dim=1)
        count, dim = tokens.shape[1:]

        update: Tensor | None = None
        within, over = (batch * frames, count, dim), (batch, frames * count, dim)
        for index, (frame_block, global_block) in enumerate(
            zip(self.frame_blocks, self.global_blocks, strict=True)
        ):
            pending = None if update is None else update.view(within)
            _, tokens, update = frame_block(tokens.view(within), pending, rotation=rotation)
            local, tokens, update = global_block(
                tokens.view(over),
                update.view(over),
                partial(memory.attend, index),
                global_rotation,
                partial(memory.absorb, index),
            )
            if index in layers:
                tokens, update = tokens + update, None
                both = torch.cat([local, tokens], dim=-1)
                yield index, both.view(batch, frames, count, 2 * dim)

    def _of_size(self, height: int, width: int) -> tuple[Tensor, ...]:
        """Return offset and gain of the images, cosines and sines of a frame's tokens.

        Where the global blocks know time, its frequencies follow, and the cosines and sines of
        their other channels.
        """
        config, device = self.config, self.camera_token.device
        rows, columns = height // config.patch_size, width // config.patch_size
        positions = grid_positions(rows, columns, config.special_tokens, device)
        rotation = rotation_for(positions, config.head_dim, config.rope_base)
        constant = (*image_statistics(device), rotation.cos, rotation.sin)
        if not config.rope_time:
            return constant
        time, *grid = (frequencies(n, config.rope_time_base, device) for n in config.rope_time)
        places = diagonal_positions(rows, columns, config.special_tokens, device).float()
        angles = torch.cat([places[:, :1] * grid[0], places[:, 1:] * grid[1]], dim=1)
        return (*constant, time, angles.cos(), angles.sin())

    def _entering(self, batch: int, frames: int, anchors: int) -> Tensor:
        """Return the special tokens, [batch * frames, special tokens, dim]."""
        (special,) = self.special.get(
            (batch, frames, anchors, self.camera_token.device),
            lambda: (self.special_tokens(frames, anchors).repeat(batch, 1, 1),),
            keep=self.frozen,
        )
        return special
