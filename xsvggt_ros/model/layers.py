# SPDX-License-Identifier: Apache-2.0
"""The transformer block that every part of the network is made of.

Precision: linear layers compute in the dtype of their own weights; LayerNorm, rotary embedding,
LayerScale and the residual stream stay in float32 whatever that dtype is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from xsvggt_ros.model.rotary import Rotation, rotate

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of queries over keys and values, each [batch, heads, tokens, head_dim]."""
Absorb = Callable[[Tensor], None]
"""Is told what a block's MLP adds to its tokens, [batch, tokens, dim]."""


def attend_within(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend over the given tokens alone: no memory, no mask."""
    return functional.scaled_dot_product_attention(query, key, value)


class LayerNorm(nn.LayerNorm):
    """LayerNorm that always computes and answers in float32."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [..., dim] of any floating dtype."""
        return super().forward(input.float())


class Linear(nn.Linear):
    """Linear layer that computes in the dtype of its weights."""

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., in] of any floating dtype to [..., out] of the weights' dtype."""
        return super().forward(input.to(self.weight.dtype))


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, dim: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, out or dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map [..., dim] to [..., out]."""
        return self.fc2(functional.gelu(self.fc1(tokens)))


class LayerScale(nn.Module):
    """Learned gain per channel, float32."""

    def __init__(self, dim: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), initial))

    def forward(self, tokens: Tensor) -> Tensor:
        """Scale [..., dim]; the product is float32."""
        return tokens * self.gamma


class Attention(nn.Module):
    """Multi-head self-attention; who is attended to is decided by the caller's ``attend``."""

    def __init__(self, dim: int, num_heads: int, *, normalize_qk: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim)
        if normalize_qk:
            self.q_norm: nn.Module = LayerNorm(dim // num_heads)
            self.k_norm: nn.Module = LayerNorm(dim // num_heads)
        else:
            self.q_norm = self.k_norm = nn.Identity()
        self.proj = Linear(dim, dim)

    def forward(self, tokens: Tensor, attend: Attend, rotation: Rotation | None) -> Tensor:
        """Mix [batch, tokens, dim]; keys reach ``attend`` normalised and rotated."""
        batch, count, dim = tokens.shape
        packed = self.qkv(tokens).view(batch, count, 3, self.num_heads, dim // self.num_heads)
        query, key, value = packed.permute(2, 0, 3, 1, 4)
        query, key = self.q_norm(query), self.k_norm(key)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        mixed = attend(query.to(value.dtype), key.to(value.dtype), value)
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, dim))


class Block(nn.Module):
    """Pre-norm transformer block with LayerScale: attention, then MLP, both residual."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        *,
        normalize_qk: bool = False,
        layer_scale: float = 0.01,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, num_heads, normalize_qk=normalize_qk)
        self.ls1 = LayerScale(dim, layer_scale)
        self.norm2 = LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.ls2 = LayerScale(dim, layer_scale)

    def forward(
        self,
        tokens: Tensor,
        attend: Attend = attend_within,
        rotation: Rotation | None = None,
        absorb: Absorb | None = None,
    ) -> Tensor:
        """Map float32 [batch, tokens, dim] to the same."""
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens), attend, rotation))
        update = self.ls2(self.mlp(self.norm2(tokens)))
        if absorb is not None:
            absorb(update)
        return tokens + update
