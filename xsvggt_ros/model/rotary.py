# SPDX-License-Identifier: Apache-2.0
"""Two-dimensional rotary position embedding (RoPE) over the patch grid, in float32."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """Cosines and sines for each token: float32 [tokens, 2, head_dim / 4], axes y then x."""

    cos: Tensor
    sin: Tensor

    def repeated(self, frames: int) -> Rotation:
        """Return the same rotation for ``frames`` frames in a row."""
        if frames == 1:
            return self
        return Rotation(self.cos.repeat(frames, 1, 1), self.sin.repeat(frames, 1, 1))


def grid_positions(rows: int, columns: int, special: int, device: torch.device) -> Tensor:
    """Return (y, x) of each token of a frame, int64 [special + rows * columns, 2].

    Special tokens sit at (0, 0) and patches from (1, 1) on, so that the two never meet.
    """
    patches = torch.cartesian_prod(
        torch.arange(1, rows + 1, device=device), torch.arange(1, columns + 1, device=device)
    )
    return torch.cat([patches.new_zeros(special, 2), patches])


def rotation_for(positions: Tensor, head_dim: int, base: float) -> Rotation:
    """Return the rotation of tokens at ``positions`` [tokens, 2].

    Each half of the head (``head_dim / 2`` channels) turns with one axis, at frequencies
    ``base ** (-2 j / (head_dim / 2))``.
    """
    half = head_dim // 2
    exponents = torch.arange(0, half, 2, device=positions.device, dtype=torch.float32) / half
    angles = positions.float()[:, :, None] * (1.0 / base**exponents)
    return Rotation(angles.cos(), angles.sin())


def rotate(tokens: Tensor, rotation: Rotation) -> Tensor:
    """Rotate [batch, heads, tokens, head_dim] by the tokens' positions; computes in float32.

    Channels pair up across a half ("half-split"), not with their neighbour.
    """
    pairs = tokens.float().reshape(*tokens.shape[:-1], 2, 2, -1)
    first, second = pairs[..., 0, :], pairs[..., 1, :]
    turned = torch.stack(
        [
            first * rotation.cos - second * rotation.sin,
            second * rotation.cos + first * rotation.sin,
        ],
        dim=-2,
    )
    return turned.flatten(-3)
