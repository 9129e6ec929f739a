# SPDX-License-Identifier: Apache-2.0
"""The transformer block that every part of the network is made of.

Precision: linear layers compute in the dtype of their own weights; LayerNorm, rotary embedding and
LayerScale compute in float32 and the residual stream stays in it, whatever that dtype is. Norms
answer in the dtype of the layer that reads them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor, nn
from torch.nn import functional

from xsvggt_ros.model import operators
from xsvggt_ros.model.operators import Rotation

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of queries over keys and values, each [batch, heads, tokens, head_dim]."""
Absorb = Callable[[Tensor], None]
"""Is told what a block's MLP adds to its tokens, [batch, tokens, dim], of any floating dtype."""


def attend_within(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend over the given tokens alone: no memory, no mask.

    Args:
        query: [batch, heads, tokens, head_dim].
        key: of the same shape.
        value: likewise.

    """
    return functional.scaled_dot_product_attention(query, key, value)


class LayerNorm(nn.LayerNorm):
    """LayerNorm that computes in float32."""

    def forward(self, input: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Normalise [..., dim] of any floating dtype; the result is of ``dtype``."""
        return operators.layer_norm(input, self.weight, self.bias, self.eps, dtype)


class AddLayerNorm(nn.LayerNorm):
    """An addition to the residual stream, and the LayerNorm that follows it."""

    def forward(  # type: ignore[override] # a LayerNorm by its parameters alone
        self, input: Tensor, update: Tensor | None, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Return the sum of [..., dim], float32, and the same normalised, of ``dtype``.

        Where there is no ``update``, the sum is ``input``.

        Args:
            input: [..., dim].
            update: of the same shape, or None.
            dtype: of the normalised sum.

        """
        weight, bias, eps = self.weight, self.bias, self.eps
        if update is None:
            return input, operators.layer_norm(input, weight, bias, eps, dtype)
        return operators.add_layer_norm(input, update, weight, bias, eps, dtype)


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
        update: Tensor = self.fc2(operators.linear_gelu(tokens, self.fc1))
        return update


class LayerScale(nn.Module):
    """Learned gain per channel, float32.

    Attributes:
        folded: whether the linear layer before it has taken the gain over, and all gains are 1.

    """

    def __init__(self, dim: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), initial))
        self.folded = False

    def forward(self, tokens: Tensor) -> Tensor:
        """Scale [..., dim]; the product is float32, or where it is folded, ``tokens`` itself."""
        return tokens if self.folded else tokens * self.gamma


class Attention(nn.Module):
    """Multi-head self-attention; who is attended to is decided by the caller's ``attend``."""

    def __init__(self, dim: int, num_heads: int, *, normalize_qk: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim)
        self.q_norm = LayerNorm(dim // num_heads) if normalize_qk else None
        self.k_norm = LayerNorm(dim // num_heads) if normalize_qk else None
        self.proj = Linear(dim, dim)

    def forward(self, tokens: Tensor, attend: Attend, rotation: Rotation | None) -> Tensor:
        """Mix [batch, tokens, dim]; keys reach ``attend`` normalised and rotated.

        Args:
            tokens: [batch, tokens, dim].
            attend: takes queries, keys and values [batch, heads, tokens, head_dim]; gives the
                mixed values.
            rotation: of queries and keys; None where positions do not count.

        """
        packed = self.qkv(tokens)
        if self.q_norm is None or self.k_norm is None or rotation is None:
            query, key, value = operators.split_heads(packed, self.num_heads)
        else:
            given = operators.Projection(
                packed, self.num_heads, self.q_norm.weight, self.q_norm.bias,
                self.k_norm.weight, self.k_norm.bias, self.q_norm.eps,
                rotation.cos, rotation.sin, rotation.neighbours,
            )  # fmt: skip
            query, key, value = operators.normalize_and_rotate(given)
        mixed = attend(query, key, value)
        update: Tensor = self.proj(mixed.transpose(1, 2).reshape(tokens.shape))
        return update


class Block(nn.Module):
    """Pre-norm transformer block with LayerScale: attention, then MLP, both residual.

    What a block adds last is added by the next one, in one operation with its LayerNorm.
    """

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
        self.norm1 = AddLayerNorm(dim, eps=eps)
        self.attn = Attention(dim, num_heads, normalize_qk=normalize_qk)
        self.ls1 = LayerScale(dim, layer_scale)
        self.norm2 = AddLayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.ls2 = LayerScale(dim, layer_scale)

    def forward(
        self,
        tokens: Tensor,
        update: Tensor | None = None,
        attend: Attend = attend_within,
        rotation: Rotation | None = None,
        absorb: Absorb | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the block.

        Args:
            tokens: float32 [batch, tokens, dim].
            update: what is still to be added to them, of any floating dtype.
            attend: who is attended to.
            rotation: of the tokens.
            absorb: is told what the MLP adds.

        Returns:
            ``tokens + update``, with which the block began; and tokens and update after it, whose
            sum is the block's output.

        """
        entered, normed = self.norm1(tokens, update, self.attn.qkv.weight.dtype)
        mixed = self.ls1(self.attn(normed, attend, rotation))
        tokens, normed = self.norm2(entered, mixed, self.mlp.fc1.weight.dtype)
        update = self.ls2(self.mlp(normed))
        if absorb is not None:
            absorb(update)
        return entered, tokens, update


SIZES_KEPT = 4
"""Sizes whose constants are kept; a stream has one, a rig of different cameras one for each."""


class Constants:
    """What a module keeps for the sizes used last.

    A tensor stays where it is while it is kept, so that a CUDA graph may read it; whoever captures
    one holds on to :meth:`tensors`, since a fifth size drops the first.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, tuple[Tensor, ...]] = OrderedDict()

    def get(
        self, key: Hashable, build: Callable[[], tuple[Tensor, ...]], *, keep: bool = True
    ) -> tuple[Tensor, ...]:
        """Return what ``build`` makes for ``key``; it must not depend on anything else.

        Args:
            key: the size, and the device and dtype where these vary.
            build: makes the tensors.
            keep: False = build each time, with gradients: what depends on weights that change.

        """
        if not keep or torch.compiler.is_compiling():
            return build()
        if key not in self._kept:
            # Tensors made in inference mode could not take part in a training later.
            with torch.inference_mode(mode=False), torch.no_grad():
                self._kept[key] = build()
            if len(self._kept) > SIZES_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def tensors(self) -> list[Tensor]:
        """Return all that is kept."""
        return [tensor for kept in self._kept.values() for tensor in kept]

    def __deepcopy__(self, memo: object) -> Constants:
        return Constants()
