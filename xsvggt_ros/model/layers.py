# SPDX-License-Identifier: Apache-2.0
"""The transformer block that every part of the network is made of, and the memory that it asks.

Precision: linear layers compute in the dtype of their own weights; LayerNorm, rotary embedding and
LayerScale compute in float32 and the residual stream stays in it, whatever that dtype is. Norms
answer in the dtype of the layer that reads them.

Memory: what the network asks of the memory of a stream, and the memory-free full sequence.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from xsvggt_ros.cuda import attention
from xsvggt_ros.model import operators
from xsvggt_ros.model.operators import Rotation

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of queries over keys and values, each [batch, heads, tokens, head_dim]."""
Absorb = Callable[[Tensor], None]
"""Is told what a block's MLP adds to its tokens, [batch, tokens, dim], of any floating dtype."""


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


_TF32_ROUNDING = 2.0**-11
"""Most that a number loses of itself when it is rounded to the mantissa of TF32."""


class Linear(nn.Linear):
    """Linear layer that computes in the dtype of its bias; its weights may be stored narrower."""

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in, and answers."""
        bias = self.bias
        return self.weight.dtype if bias is None else bias.dtype

    def store_in_float16(self) -> None:
        """Store float32 weights in float16, and go on computing in float32.

        Within its range float16 has the mantissa of TF32. Weights of which it loses more, because
        they are very large or nearly all very small, stay as they are.
        """
        if self.weight.dtype != torch.float32 or self.bias is None:
            return
        whole = self.weight.detach()
        narrow = whole.half()
        # Without values, on the meta device, none is lost.
        if whole.is_meta or (narrow - whole).norm() <= _TF32_ROUNDING * whole.norm():
            self.weight.data = narrow

    def forward(self, input: Tensor) -> Tensor:
        """Map [..., in] of any floating dtype to [..., out] of :attr:`dtype`."""
        return operators.linear(input, self.weight, self.bias)


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, dim: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, out or dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map [..., dim] to [..., out]."""
        hidden = operators.linear_gelu(tokens, self.fc1.weight, self.fc1.bias)
        update: Tensor = self.fc2(hidden)
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
        attend: Attend = attention.attend,
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
        entered, normed = self.norm1(tokens, update, self.attn.qkv.dtype)
        mixed = self.ls1(self.attn(normed, attend, rotation))
        tokens, normed = self.norm2(entered, mixed, self.mlp.fc1.dtype)
        update = self.ls2(self.mlp(normed))
        if absorb is not None:
            absorb(update)
        return entered, tokens, update


SIZES_KEPT = 8
"""Sizes whose constants are kept; a stream has one, a rig of different cameras one for each."""


class Constants:
    """What a module keeps for the sizes used last.

    A tensor stays where it is while it is kept, so that a CUDA graph may read it; whoever captures
    one holds on to :meth:`tensors`, since one size more drops the first.
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


class Memory(Protocol):
    """Attends for the network, and remembers what later frames may attend to.

    All tensors are [batch, heads, tokens, head_dim]; keys come normalised and rotated. The network
    neither knows nor cares whether what is remembered is whole, pruned or packed.
    """

    def begin_pass(self, frames: int) -> int:
        """Take note that ``frames`` come together; return how many of them are anchors.

        Anchors are the frames of a stream's first pass.
        """
        ...

    def times(self, frames: int, device: torch.device) -> Tensor:
        """Return the place in time of the frames of this pass, float32 [frames] on ``device``.

        Time counts the frames that are stored: one that leaves nothing behind does not move it.
        Asked for only by a network whose rotary embedding knows time.
        """
        ...

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend in global block ``layer`` over the past and the given tokens.

        Args:
            layer: number of the global block.
            query: [batch, heads, tokens, head_dim].
            key: of the same shape.
            value: likewise.

        """
        ...

    def absorb(self, layer: int, update: Tensor) -> None:
        """Take note that global block ``layer`` is done with the tokens just attended.

        Args:
            layer: index of the block.
            update: what the block's MLP added to the tokens, [batch, tokens, dim], float32 or of
                the weights' dtype; how much it is tells how much the network made of a token.

        """
        ...

    def attend_camera(
        self, iteration: int, block: int, query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """Attend in the camera head over the camera tokens of past frames and the given ones.

        Args:
            iteration: number of the refinement.
            block: of the camera head.
            query: [batch, heads, frames, head_dim].
            key: of the same shape.
            value: likewise.

        """
        ...


class CausalSequence:
    """A whole sequence at once: each frame attends to itself and to earlier frames.

    The function that StreamVGGT was trained as (its masked forward), and LingBot-Map with its first
    pass. Frame by frame instead of a mask over all pairs, so that memory grows linearly and
    FlashAttention stays applicable.
    """

    def __init__(self, frames: int, anchors: int = 1) -> None:
        """Take a sequence of ``frames`` in; the first ``anchors`` attend to one another."""
        self._frames = frames
        self._anchors = min(anchors, frames)

    def begin_pass(self, frames: int) -> int:
        """Return how many frames the first pass has."""
        return self._anchors

    def times(self, frames: int, device: torch.device) -> Tensor:
        """Return 0, 1, .. : every frame is stored."""
        return torch.arange(frames, device=device, dtype=torch.float32)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend over the first pass at once, then frame by frame over the frames up to it.

        All are [batch, heads, tokens, head_dim].
        """
        return self._attend_in_order(query, key, value)

    def _attend_in_order(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        step = query.shape[2] // self._frames
        ends = range(self._anchors * step, query.shape[2] + 1, step)
        starts = (0, *ends[:-1])
        return torch.cat(
            [
                functional.scaled_dot_product_attention(
                    query[:, :, start:end], key[:, :, :end], value[:, :, :end]
                )
                for start, end in zip(starts, ends, strict=True)
            ],
            dim=2,
        )

    def absorb(self, layer: int, update: Tensor) -> None:
        """Forget an update [batch, tokens, dim]: there is no later frame."""

    def attend_camera(
        self, iteration: int, block: int, query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """Attend as in the global blocks over camera tokens, [batch, heads, frames, head_dim]."""
        if self._anchors > 1:
            return self._attend_in_order(query, key, value)
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True)
