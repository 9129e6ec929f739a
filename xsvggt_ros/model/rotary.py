# SPDX-License-Identifier: Apache-2.0
"""Rotary position embedding (RoPE) over the patch grid, and over time, in float32."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """Cosines and sines of the angles by which the channels of a head turn in pairs.

    Attributes:
        cos: float32 [tokens, 2, head_dim / 4] (axes y then x), or [tokens, head_dim / 2] where
            neighbours pair up.
        sin: the same.
        neighbours: whether channels 2 i and 2 i + 1 turn together; else the two halves of an
            axis's channels do.

    """

    cos: Tensor
    sin: Tensor
    neighbours: bool = False

    def repeated(self, frames: int) -> Rotation:
        """Return the same rotation for ``frames`` frames in a row."""
        if frames == 1:
            return self
        times = (frames, *(1,) * (self.cos.dim() - 1))
        return Rotation(self.cos.repeat(times), self.sin.repeat(times), self.neighbours)


def grid_positions(rows: int, columns: int, special: int, device: torch.device) -> Tensor:
    """Return (y, x) of each token of a frame, int64 [special + rows * columns, 2].

    Special tokens sit at (0, 0) and patches from (1, 1) on, so that the two never meet.

    Args:
        rows: of patches.
        columns: of patches.
        special: special tokens, which come first.
        device: of the result.

    """
    patches = torch.cartesian_prod(
        torch.arange(1, rows + 1, device=device), torch.arange(1, columns + 1, device=device)
    )
    return torch.cat([patches.new_zeros(special, 2), patches])


def diagonal_positions(rows: int, columns: int, special: int, device: torch.device) -> Tensor:
    """Return (y, x) of each token of a frame, int64 [special + rows * columns, 2].

    Special token ``i`` sits at (i, i) and patches from (special, special) on (LingBot-Map).

    Args:
        rows: of patches.
        columns: of patches.
        special: special tokens, which come first.
        device: of the result.

    """
    patches = torch.cartesian_prod(
        torch.arange(special, special + rows, device=device),
        torch.arange(special, special + columns, device=device),
    )
    diagonal = torch.arange(special, device=device)[:, None].expand(-1, 2)
    return torch.cat([diagonal, patches])


def rotation_for(positions: Tensor, head_dim: int, base: float) -> Rotation:
    """Return the rotation of tokens at ``positions`` [tokens, 2].

    Each half of the head (``head_dim / 2`` channels) turns with one axis, at frequencies
    ``base ** (-2 j / (head_dim / 2))``.

    Args:
        positions: (y, x) of each token, [tokens, 2].
        head_dim: channels of a head.
        base: of the frequencies.

    """
    angles = positions.float()[:, :, None] * frequencies(head_dim // 2, base, positions.device)
    return Rotation(angles.cos(), angles.sin())


def frequencies(channels: int, base: float, device: torch.device) -> Tensor:
    """Return ``base ** (-2 j / channels)`` for each pair of channels, float32 [channels / 2].

    Args:
        channels: that turn, two by two.
        base: ratio of the first frequency to one past the last.
        device: of the result.

    """
    exponents = torch.arange(0, channels, 2, device=device, dtype=torch.float32) / channels
    return 1.0 / base**exponents


def rotation_over_time(
    times: Tensor, time_frequencies: Tensor, grid_cos: Tensor, grid_sin: Tensor
) -> Rotation:
    """Return the rotation of the tokens of some frames, time before row and column.

    Args:
        times: place in time of each frame, float32 [frames].
        time_frequencies: of the channels that turn with time, float32 [pairs].
        grid_cos: of the channels that turn with row and column, float32 [tokens, other pairs].
        grid_sin: the same.

    Returns:
        [frames * tokens, head_dim / 2]; neighbours turn together.

    """
    angles = times[:, None, None] * time_frequencies
    tokens = len(grid_cos)
    cos, sin = (
        torch.cat([turn.expand(-1, tokens, -1), grid.expand(len(times), -1, -1)], dim=-1)
        for turn, grid in ((angles.cos(), grid_cos), (angles.sin(), grid_sin))
    )
    return Rotation(cos.flatten(0, 1), sin.flatten(0, 1), neighbours=True)


def rotate(tokens: Tensor, rotation: Rotation) -> Tensor:
    """Rotate [batch, heads, tokens, head_dim] by the tokens' positions; computes in float32."""
    cos, sin, neighbours = rotation
    shape = (-1, 2) if neighbours else (2, 2, tokens.shape[-1] // 4)
    axis = -1 if neighbours else -2
    first, second = tokens.float().unflatten(-1, shape).unbind(axis)
    turned = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=axis)
    return turned.reshape(tokens.shape)
