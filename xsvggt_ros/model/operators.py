# SPDX-License-Identifier: Apache-2.0
"""Operations of the network that take many launches in plain PyTorch, each as one.

Each has a definition in plain PyTorch, which training differentiates and which runs on CPUs, and a
Triton kernel for CUDA (`kernels.py`). ``_fused`` is the one place that decides between them. All
compute in float32 inside.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from xsvggt_ros.model.rotary import Rotation, rotate
from xsvggt_ros.triton_support import register_operation


def _fused(tokens: Tensor) -> bool:
    """Return whether this runs as one operation, as inference does off the CPU."""
    if torch.compiler.is_compiling():
        return False  # the compiler fuses the definition with what is around it
    return tokens.device.type != "cpu" and not torch.is_grad_enabled()


def layer_norm(
    tokens: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, dtype: torch.dtype
) -> Tensor:
    """Normalise the last axis of ``tokens`` in float32.

    Args:
        tokens: [..., dim], of any floating dtype.
        weight: [dim], None for a LayerNorm without gains.
        bias: likewise.
        eps: is added to the variance.
        dtype: of the result.

    """
    if _fused(tokens):
        result: Tensor = torch.ops.xsvggt.layer_norm(tokens, weight, bias, eps, dtype)
        return result
    return layer_norm_in_torch(tokens, weight, bias, eps, dtype)


def add_layer_norm(
    tokens: Tensor, update: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return ``tokens + update`` as float32, and the same normalised as ``dtype``.

    Args:
        tokens: float32 [..., dim].
        update: any floating dtype, of the same shape.
        weight: float32 [dim].
        bias: float32 [dim].
        eps: added to the variance.
        dtype: of the normalised result.

    """
    if _fused(tokens):
        both: tuple[Tensor, Tensor] = torch.ops.xsvggt.add_layer_norm(
            tokens, update, weight, bias, eps, dtype
        )
        return both
    return add_layer_norm_in_torch(tokens, update, weight, bias, eps, dtype)


class Projection(NamedTuple):
    """What ``normalize_and_rotate`` is given as one operation.

    Attributes:
        packed: queries, keys and values, [batch, tokens, 3 * heads * head_dim].
        heads: number of heads.
        query_weight: of the LayerNorm of queries, [head_dim].
        query_bias: likewise.
        key_weight: of the LayerNorm of keys, [head_dim].
        key_bias: likewise.
        eps: is added to the variance.
        cos: of the rotations, see :class:`Rotation`.
        sin: likewise.
        neighbours: whether neighbouring channels are a pair, instead of the two halves.

    """

    packed: Tensor
    heads: int
    query_weight: Tensor
    query_bias: Tensor
    key_weight: Tensor
    key_bias: Tensor
    eps: float
    cos: Tensor
    sin: Tensor
    neighbours: bool


def normalize_and_rotate(
    packed: Tensor,
    heads: int,
    query_norm: tuple[Tensor, Tensor],
    key_norm: tuple[Tensor, Tensor],
    eps: float,
    rotation: Rotation,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys, values [batch, heads, tokens, head_dim], of the dtype of ``packed``.

    Args:
        packed: what the linear layer made, [batch, tokens, 3 * dim]: query, key, value.
        heads: number of heads.
        query_norm: weight and bias of the LayerNorm of each head's query, [head_dim] each.
        key_norm: the same of the keys.
        eps: of both.
        rotation: of the tokens, or of the tokens of one frame where there are several frames.

    """
    cos, sin, neighbours = rotation
    given = Projection(packed, heads, *query_norm, *key_norm, eps, cos, sin, neighbours)
    if _fused(packed):
        three: tuple[Tensor, Tensor, Tensor] = torch.ops.xsvggt.normalize_and_rotate(*given)
        return three
    return _normalized_and_rotated(given)


def add_along(features: Tensor, along_x: Tensor, along_y: Tensor) -> Tensor:
    """Add a position embedding's two parts to [frames, channels, rows, columns], in place.

    Args:
        features: changed, and returned.
        along_x: for the first half of the channels, [channels / 2, columns].
        along_y: for the second half, [channels / 2, rows].

    """
    half = features.shape[1] // 2
    features[:, :half].add_(along_x[:, None, :])
    features[:, half:].add_(along_y[:, :, None])
    return features


def resize(
    features: Tensor,
    rows: int,
    columns: int,
    along_x: Tensor | None = None,
    along_y: Tensor | None = None,
) -> Tensor:
    """Resize [frames, channels, height, width] bilinearly, corners aligned, and add to the result.

    Args:
        features: any floating dtype.
        rows: of the result.
        columns: of the result.
        along_x: added to the first half of the channels, [channels / 2, columns], of the dtype of
            ``features``; None = nothing.
        along_y: added to the second half, [channels / 2, rows].

    """
    if _fused(features):
        result: Tensor = torch.ops.xsvggt.resize(features, rows, columns, along_x, along_y)
        return result
    return resize_in_torch(features, rows, columns, along_x, along_y)


def linear_gelu(tokens: Tensor, linear: nn.Linear) -> Tensor:
    """Return ``gelu(linear(tokens))`` [..., out] of tokens [..., in], in the dtype of the weights.

    In half types on CUDA the matrix product's own kernel ends with GELU, by the formula with tanh;
    it is off by at most 5e-4, less than a half type rounds where that is.
    """
    weight, bias = linear.weight, linear.bias
    half = weight.dtype in (torch.bfloat16, torch.float16)
    if tokens.device.type == "cuda" and half and type(weight) is nn.Parameter and _fused(tokens):
        rows = tokens.to(weight.dtype).flatten(0, -2)
        product = torch._addmm_activation(bias, rows, weight.t(), use_gelu=True)
        return product.view(*tokens.shape[:-1], -1)
    return functional.gelu(linear(tokens))


def split_heads(packed: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return views of ``packed`` [batch, tokens, 3 * dim]: [batch, heads, tokens, head_dim]."""
    batch, tokens, width = packed.shape
    parts = packed.view(batch, tokens, 3, heads, width // 3 // heads)
    query, key, value = parts.permute(2, 0, 3, 1, 4)
    return query, key, value


def layer_norm_in_torch(
    tokens: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, dtype: torch.dtype
) -> Tensor:
    """Define ``layer_norm``, which see."""
    normed = functional.layer_norm(tokens.float(), tokens.shape[-1:], weight, bias, eps)
    return normed.to(dtype)


def add_layer_norm_in_torch(
    tokens: Tensor, update: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Define ``add_layer_norm``, which see."""
    total = tokens + update
    return total, layer_norm_in_torch(total, weight, bias, eps, dtype)


def resize_in_torch(
    features: Tensor, rows: int, columns: int, along_x: Tensor | None, along_y: Tensor | None
) -> Tensor:
    """Define ``resize``, which see."""
    resized = functional.interpolate(
        features, size=(rows, columns), mode="bilinear", align_corners=True
    )
    if along_x is None or along_y is None:
        return resized
    return add_along(resized, along_x, along_y)


def _normalized_and_rotated(given: Projection) -> tuple[Tensor, Tensor, Tensor]:
    packed, kind = given.packed, torch.float32
    query, key, value = split_heads(packed, given.heads)
    rotation = Rotation(given.cos, given.sin, given.neighbours)
    rotation = rotation.repeated(packed.shape[1] // given.cos.shape[0])
    query = layer_norm_in_torch(query, given.query_weight, given.query_bias, given.eps, kind)
    query = rotate(query, rotation)
    key = layer_norm_in_torch(key, given.key_weight, given.key_bias, given.eps, kind)
    key = rotate(key, rotation)
    return query.to(packed.dtype), key.to(packed.dtype), value


def normalize_and_rotate_in_torch(given: Projection) -> tuple[Tensor, Tensor, Tensor]:
    """Return copies, since an operation must not return a view of what it is given."""
    query, key, value = _normalized_and_rotated(given)
    fresh = query.transpose(1, 2).contiguous().transpose(1, 2)
    return fresh, key.contiguous(), value.clone(memory_format=torch.contiguous_format)


def _sum_and_norm(
    tokens: Tensor, update: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    total = torch.empty(tokens.shape, dtype=torch.float32, device=tokens.device)
    return total, torch.empty_like(total, dtype=dtype)


def _projected(packed: Tensor, heads: int, *others: object) -> tuple[Tensor, Tensor, Tensor]:
    batch, tokens, width = packed.shape
    channels = width // 3 // heads
    query = packed.new_empty(batch, tokens, heads, channels).transpose(1, 2)
    key, value = (packed.new_empty(batch, heads, tokens, channels) for _ in range(2))
    return query, key, value


_KERNELS = "xsvggt_ros.model.kernels"
register_operation(
    layer_norm_in_torch,
    shapes=lambda tokens, weight, bias, eps, dtype: torch.empty(
        tokens.shape, dtype=dtype, device=tokens.device
    ),
    kernels=_KERNELS,
)
register_operation(add_layer_norm_in_torch, shapes=_sum_and_norm, kernels=_KERNELS)
register_operation(
    resize_in_torch,
    shapes=lambda features, rows, columns, *along: torch.empty(
        (*features.shape[:2], rows, columns),
        dtype=features.dtype,
        device=features.device,
        memory_format=torch.channels_last,
    ),
    kernels=_KERNELS,
)
register_operation(
    normalize_and_rotate_in_torch, takes=Projection, shapes=_projected, kernels=_KERNELS
)
