# SPDX-License-Identifier: Apache-2.0
"""The heads: poses from the camera tokens, dense maps from the patch tokens.

The camera head refines a pose and a field of view iteratively. A dense head is a DPT: four layers
of patch tokens to a map of depth or points, with confidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from xsvggt_ros.model import operators
from xsvggt_ros.model.config import NetworkConfig
from xsvggt_ros.model.layers import AddLayerNorm, Block, Constants, LayerNorm, Linear, Memory, Mlp

_LARGE = 2**14
"""Weights from which on it matters how many bytes they are."""

POSE_SIZE = 9
"""Translation (3), quaternion x y z w (4), vertical and horizontal field of view (2)."""


def activate(encoding: Tensor) -> Tensor:
    """Make the fields of view of encodings [..., 9] non-negative; the rest stays as it is."""
    return torch.cat([encoding[..., :7], functional.relu(encoding[..., 7:])], dim=-1)


def inverse_encoding(encodings: Tensor) -> Tensor:
    """Return the encodings [..., 9] of the inverse motions; quaternions keep their lengths.

    Turns world-to-camera into camera-to-world and back; quaternions must not be zero.
    """
    translation, turn, views = encodings.split([3, 4, 2], dim=-1)
    axis, real = -turn[..., :3], turn[..., 3:]
    twice = 2 / (turn * turn).sum(dim=-1, keepdim=True)
    across = torch.linalg.cross(axis, translation)
    turned = translation + twice * (real * across + torch.linalg.cross(axis, across))
    return torch.cat([-turned, axis, real, views], dim=-1)


class CameraHead(nn.Module):
    """Refines a pose encoding by adaptive normalisation and attention over the stream's cameras.

    Attributes:
        beginning: the first iteration's modulation, kept once the weights are frozen.
        frozen: whether the weights never change again.

    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dim, camera = 2 * config.embed_dim, config.camera
        self.iterations = camera.iterations
        self.token_norm = LayerNorm(dim)
        self.trunk = nn.ModuleList(
            Block(dim, camera.num_heads, camera.mlp_ratio) for _ in range(camera.depth)
        )
        self.trunk_norm = AddLayerNorm(dim)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, POSE_SIZE))
        self.embed_pose = Linear(POSE_SIZE, dim)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), Linear(dim, 3 * dim))
        self.adaln_norm = LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.pose_branch = Mlp(dim, dim // 2, POSE_SIZE)
        self.beginning = Constants()
        self.frozen = False

    def store_in_float16(self) -> None:
        """Store float32 weights in float16, which has the mantissa of TF32.

        A frame has one camera token, so most of the head's time goes into reading its weights.
        """
        for module in self.modules():
            if isinstance(module, Linear) and module.weight.numel() >= _LARGE:
                module.store_in_float16()

    def forward(self, camera_tokens: Tensor, memory: Memory) -> Tensor:
        """Map camera tokens [batch, frames, dim] to encodings [batch, frames, iterations, 9].

        Each iteration attends to the tokens of its own iteration of earlier frames, unless
        ``memory`` mixes them.
        """
        tokens = self.token_norm(camera_tokens)
        normed = self.adaln_norm(tokens)
        encoding: Tensor | None = None
        encodings = []
        for iteration in range(self.iterations):
            update = self._refine(tokens, normed, encoding, iteration, memory)
            encoding = update if encoding is None else encoding + update
            encodings.append(encoding)
        return activate(torch.stack(encodings, dim=2))

    def _refine(
        self, tokens: Tensor, normed: Tensor, encoding: Tensor | None, step: int, memory: Memory
    ) -> Tensor:
        shift, gain, gate = self._modulation(encoding)
        hidden = torch.addcmul(tokens, gate, torch.addcmul(shift, normed, gain))
        pending: Tensor | None = None
        for index, block in enumerate(self.trunk):
            attend = partial(memory.attend_camera, step, index)
            _, hidden, pending = block(hidden, pending, attend)
        _, normed = self.trunk_norm(hidden, pending, self.pose_branch.fc1.dtype)
        update: Tensor = self.pose_branch(normed)
        return update.float()

    def _modulation(self, encoding: Tensor | None) -> tuple[Tensor, ...]:
        """Return shift, gain and gate for what is known so far, float32 [batch, frames, dim]."""
        if encoding is not None:
            return self._modulated(encoding)
        return self.beginning.get(
            (self.empty_pose_tokens.device, self.embed_pose.dtype),
            lambda: self._modulated(self.empty_pose_tokens),
            keep=self.frozen,
        )

    def _modulated(self, encoding: Tensor) -> tuple[Tensor, ...]:
        numbers = self.poseLN_modulation(self.embed_pose(encoding)).float()
        shift, scale, gate = numbers.chunk(3, dim=-1)
        return shift, 1 + scale, gate


_HIDDEN = 32
_COARSEST = 3
"""Level that nothing coarser is joined with."""


def _sin_cos(positions: Tensor, channels: int) -> Tensor:
    frequencies = 100.0 ** (
        -torch.arange(channels // 2, dtype=torch.float64, device=positions.device) / (channels / 2)
    )
    angles = positions[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def uv_embedding(
    channels: int, rows: int, columns: int, aspect: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the position embedding of a map as a part along x and a part along y.

    The first half of the channels depends on the column alone, the second on the row alone, hence
    two small tables: [channels / 2, columns] and [channels / 2, rows]. Positions are normalised by
    the diagonal of the image.

    Args:
        channels: of the map.
        rows: of the map.
        columns: of the map.
        aspect: width / height of the image.
        device: of the tables.

    """
    diagonal = math.hypot(aspect, 1.0)
    span_x = aspect / diagonal * (columns - 1) / columns
    span_y = 1.0 / diagonal * (rows - 1) / rows
    x = torch.linspace(-span_x, span_x, columns, dtype=torch.float32, device=device).double()
    y = torch.linspace(-span_y, span_y, rows, dtype=torch.float32, device=device).double()
    return _sin_cos(x, channels // 2).T, _sin_cos(y, channels // 2).T


class ResidualConvUnit(nn.Module):
    """Two convolutions around a residual.

    The residual carries ``relu(x)``, not ``x``: the published unit rectifies its input in place,
    and the weights were trained so.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Map [frames, features, rows, columns] to the same."""
        rectified = functional.relu(features)
        # In place where nobody else holds the tensor: on a CPU, memory that is new costs most.
        inner = functional.relu(self.conv1(rectified), inplace=True)
        added: Tensor = self.conv2(inner).add_(rectified)
        return added


class FusionBlock(nn.Module):
    """Joins a coarse map with the next finer one."""

    def __init__(self, features: int, *, coarsest: bool) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(features, features, 1)
        if not coarsest:
            self.resConfUnit1 = ResidualConvUnit(features)
        self.resConfUnit2 = ResidualConvUnit(features)

    def forward(self, coarse: Tensor, fine: Tensor | None, rows: int, columns: int) -> Tensor:
        """Return the joined map, [frames, channels, rows, columns].

        A convolution of single pixels and a bilinear resize may change places, since the weights
        of the resize sum to one; before it there are a quarter of the pixels.

        Args:
            coarse: map of the level above, [frames, channels, h, w].
            fine: map of this level, which has passed ``resConfUnit1``, of the same shape; None at
                the first one.
            rows: of the result.
            columns: of the result.

        """
        joined = coarse if fine is None else coarse + fine
        return operators.resize(self.out_conv(self.resConfUnit2(joined)), rows, columns, None, None)


class DenseHead(nn.Module):
    """DPT over four aggregator layers; answers raw channels at the image's full size.

    Attributes:
        constants: what it keeps per image size.

    """

    def __init__(self, config: NetworkConfig, out_channels: int) -> None:
        super().__init__()
        dense, dim = config.dense, 2 * config.embed_dim
        widths, features = dense.out_channels, dense.features
        self.layers = dense.layers
        self.channels, self.features = widths, features
        self.patch_size = config.patch_size
        self.special_tokens = config.special_tokens
        self.norm = LayerNorm(dim)
        self.projects = nn.ModuleList(nn.Conv2d(dim, width, 1) for width in widths)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4),
                nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(widths[3], widths[3], 3, stride=2, padding=1),
            ]
        )
        scratch = nn.Module()
        for level, width in enumerate(widths, start=1):
            conv = nn.Conv2d(width, features, 3, padding=1, bias=False)
            scratch.add_module(f"layer{level}_rn", conv)
            scratch.add_module(f"refinenet{level}", FusionBlock(features, coarsest=level == 4))
        scratch.add_module("output_conv1", nn.Conv2d(features, features // 2, 3, padding=1))
        scratch.add_module(
            "output_conv2",
            nn.Sequential(
                nn.Conv2d(features // 2, _HIDDEN, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.Conv2d(_HIDDEN, out_channels, 1),
            ),
        )
        self.scratch = scratch
        self.constants = Constants()

    def forward(self, outputs: Mapping[int, Tensor], height: int, width: int) -> Tensor:
        """Map layer outputs [batch, frames, tokens, dim] to [batch, frames, channels, H, W].

        Args:
            outputs: of the layers that the head reads, by number.
            height: of the images, pixels.
            width: likewise.

        """
        levels: dict[int, Tensor] = {}
        for layer in set(self.layers):
            levels |= self.levels(layer, outputs[layer], height, width)
        dense = self.joined(levels, height, width)
        whole: Tensor = dense.unflatten(0, outputs[self.layers[0]].shape[:2])
        return whole

    def levels(self, layer: int, tokens: Tensor, height: int, width: int) -> dict[int, Tensor]:
        """Make the maps that depend on the output of one layer alone.

        Args:
            layer: of the aggregator.
            tokens: its output, [batch, frames, tokens, dim].
            height: of the images, pixels.
            width: likewise.

        Returns:
            By level, 0 = the finest, [batch * frames, features, rows, columns], one for each time
            that the head reads this layer; rows and columns differ from level to level.

        """
        read = (k for k, each in enumerate(self.layers) if each == layer)
        return {k: self._level(k, tokens, height, width) for k in read}

    def joined(self, levels: Mapping[int, Tensor], height: int, width: int) -> Tensor:
        """Map all four levels to float32 [batch * frames, channels, H, W].

        Args:
            levels: what :meth:`levels` made of all layers.
            height: of the images, pixels.
            width: likewise.

        """
        along = self._along(height, width)[-2:]
        resized = operators.resize(self._fuse(levels), height, width, *along)
        dense: Tensor = self.scratch.get_submodule("output_conv2")(resized)
        return dense.float()

    def _along(self, height: int, width: int) -> tuple[Tensor, ...]:
        return self.constants.get(
            (height, width, self.norm.weight.device, self.dtype),
            lambda: self._position_embeddings(height, width),
        )

    @property
    def fusion_blocks(self) -> list[nn.Module]:
        """The blocks that join the levels, finest first."""
        return [self.scratch.get_submodule(f"refinenet{level}") for level in range(1, 5)]

    @property
    def fine_units(self) -> list[nn.Module]:
        """What each level but the coarsest passes before it is joined, finest first."""
        blocks = self.fusion_blocks[:_COARSEST]
        return [block.get_submodule("resConfUnit1") for block in blocks]

    @property
    def dtype(self) -> torch.dtype:
        """What the convolutions compute in."""
        return next(self.projects.parameters()).dtype

    def _position_embeddings(self, height: int, width: int) -> tuple[Tensor, ...]:
        """Return a tenth of the embeddings along x and y, of each level and of the full size."""
        rows, columns = height // self.patch_size, width // self.patch_size
        maps = [(channels, rows, columns) for channels in self.channels]
        maps.append((self.features // 2, height, width))
        return tuple(
            (0.1 * part).to(self.dtype)
            for sizes in maps
            for part in uv_embedding(*sizes, width / height, self.norm.weight.device)
        )

    def _level(self, k: int, tokens: Tensor, height: int, width: int) -> Tensor:
        grid = (height // self.patch_size, width // self.patch_size)
        along_x, along_y = self._along(height, width)[2 * k : 2 * k + 2]
        patches = self.norm(tokens[:, :, self.special_tokens :].flatten(0, 1), self.dtype)
        # A convolution of single pixels is a matrix product of tokens, which needs no other layout.
        weight = self.projects.get_parameter(f"{k}.weight").flatten(1)
        projected = functional.linear(patches, weight, self.projects.get_parameter(f"{k}.bias"))
        features = projected.transpose(1, 2).unflatten(2, grid)
        features = operators.add_along(features, along_x, along_y)
        features = self.scratch.get_submodule(f"layer{k + 1}_rn")(self.resize_layers[k](features))
        level: Tensor = features if k == _COARSEST else self.fine_units[k](features)
        return level

    def _fuse(self, pyramid: Mapping[int, Tensor]) -> Tensor:
        joined: Tensor | None = None
        for k in (3, 2, 1, 0):
            rows, columns = (
                pyramid[k - 1].shape[-2:] if k else (2 * s for s in pyramid[0].shape[-2:])
            )
            joined = self.fusion_blocks[k](
                pyramid[k] if joined is None else joined,
                None if joined is None else pyramid[k],
                rows,
                columns,
            )
        fused: Tensor = self.scratch.get_submodule("output_conv1")(joined)
        return fused


def activate_depth(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Split [..., 2, H, W] into depth ``exp(y)`` and confidence ``1 + exp(y)``, [..., H, W]."""
    depth, confidence = raw.exp().unbind(-3)
    return depth, 1 + confidence


def activate_points(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Split [..., 4, H, W] into points [..., H, W, 3] (inverse log) and confidence [..., H, W]."""
    coordinates = raw[..., :3, :, :].movedim(-3, -1)
    return coordinates.sign() * coordinates.abs().expm1(), 1 + raw[..., 3, :, :].exp()
