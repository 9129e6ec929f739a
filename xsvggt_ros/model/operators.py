# SPDX-License-Identifier: Apache-2.0
"""Operations of the network that take many launches in plain PyTorch, each as one.

Each has a definition in plain PyTorch, which training differentiates and which runs on CPUs, and a
Triton kernel for CUDA (`kernels.py`). ``_fused`` is the one place that decides between them. All
compute in float32 inside. First of all, the rotary position embeddings that one of them applies.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from xsvggt_ros.cuda import operation


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
    Args as for :func:`grid_positions`.
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


def _fused(tokens: Tensor) -> bool:
    """Return whether this runs as one operation, as inference does off the CPU."""
    if torch.compiler.is_compiling():
        return False  # the compiler fuses the definition with what is around it
    return tokens.device.type != "cpu" and not torch.is_grad_enabled()


_KERNELS = "xsvggt_ros.model.kernels"


@operation(
    where=_fused,
    shapes=lambda tokens, weight, bias, eps, dtype: torch.empty(
        tokens.shape, dtype=dtype, device=tokens.device
    ),
    kernels=_KERNELS,
)
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
    return _normed(tokens, weight, bias, eps, dtype)


def _normed(
    tokens: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, dtype: torch.dtype
) -> Tensor:
    normed = functional.layer_norm(tokens.float(), tokens.shape[-1:], weight, bias, eps)
    return normed.to(dtype)


def _sum_and_norm(
    tokens: Tensor, update: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    total = torch.empty(tokens.shape, dtype=torch.float32, device=tokens.device)
    return total, torch.empty_like(total, dtype=dtype)


@operation(where=_fused, shapes=_sum_and_norm, kernels=_KERNELS)
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
    total = tokens + update
    return total, _normed(total, weight, bias, eps, dtype)


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


def _projected(packed: Tensor, heads: int, *others: object) -> tuple[Tensor, Tensor, Tensor]:
    batch, tokens, width = packed.shape
    channels = width // 3 // heads
    query = packed.new_empty(batch, tokens, heads, channels).transpose(1, 2)
    key, value = (packed.new_empty(batch, heads, tokens, channels) for _ in range(2))
    return query, key, value


def _fresh(given: Projection) -> tuple[Tensor, Tensor, Tensor]:
    """Return copies, since an operation must not return a view of what it is given."""
    query, key, value = _normalized_and_rotated(given)
    fresh = query.transpose(1, 2).contiguous().transpose(1, 2)
    return fresh, key.contiguous(), value.clone(memory_format=torch.contiguous_format)


@operation(where=_fused, shapes=_projected, in_torch=_fresh, kernels=_KERNELS)
def normalize_and_rotate(given: Projection) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys, values [batch, heads, tokens, head_dim], of the dtype of ``packed``.

    The rotation is of the tokens, or of the tokens of one frame where there are several frames.
    """
    return _normalized_and_rotated(given)


def _normalized_and_rotated(given: Projection) -> tuple[Tensor, Tensor, Tensor]:
    packed, kind = given.packed, torch.float32
    query, key, value = split_heads(packed, given.heads)
    rotation = Rotation(given.cos, given.sin, given.neighbours)
    rotation = rotation.repeated(packed.shape[1] // given.cos.shape[0])
    query = _normed(query, given.query_weight, given.query_bias, given.eps, kind)
    query = rotate(query, rotation)
    key = _normed(key, given.key_weight, given.key_bias, given.eps, kind)
    key = rotate(key, rotation)
    return query.to(packed.dtype), key.to(packed.dtype), value


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


@operation(
    where=_fused,
    shapes=lambda features, rows, columns, *along: torch.empty(
        (*features.shape[:2], rows, columns),
        dtype=features.dtype,
        device=features.device,
        memory_format=torch.channels_last,
    ),
    kernels=_KERNELS,
)
def resize(
    features: Tensor,
    rows: int,
    columns: int,
    along_x: Tensor | None,
    along_y: Tensor | None,
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
    resized = functional.interpolate(
        features, size=(rows, columns), mode="bilinear", align_corners=True
    )
    if along_x is None or along_y is None:
        return resized
    return add_along(resized, along_x, along_y)


def linear(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return tokens [..., in] times weights, [..., out], computed in the dtype of the bias.

    Args:
        tokens: of any floating dtype.
        weight: [out, in], of the dtype of ``bias`` or narrower.
        bias: [out]; None = nothing is added, and the dtype is that of ``weight``.

    """
    dtype = weight.dtype if bias is None else bias.dtype
    if _is_row_of(tokens, weight):
        return linear_row(tokens, weight, bias, False, dtype)
    whole = weight if weight.dtype == dtype else weight.to(dtype)
    return functional.linear(tokens.to(dtype), whole, bias)


def linear_gelu(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return :func:`linear`, and GELU after it; args likewise.

    In half types on CUDA the matrix product's own kernel ends with GELU, by the formula with tanh;
    it is off by at most 5e-4, less than a half type rounds where that is.
    """
    if _is_row_of(tokens, weight):
        return linear_row(tokens, weight, bias, True, bias.dtype)
    half = bias.dtype in (torch.bfloat16, torch.float16)
    if tokens.device.type == "cuda" and half and type(weight) is nn.Parameter and _fused(tokens):
        rows = tokens.to(bias.dtype).flatten(0, -2)
        product = torch._addmm_activation(bias, rows, weight.t(), use_gelu=True)
        return product.view(*tokens.shape[:-1], -1)
    return functional.gelu(linear(tokens, weight, bias))


def _is_row_of(tokens: Tensor, weight: Tensor) -> bool:
    """Return whether this is a single row, and weights as they are stored, not packed."""
    single = _fused(tokens) and tokens.numel() == weight.shape[1]
    return single and type(weight) is nn.Parameter


@operation(
    shapes=lambda row, weight, bias, gelu, dtype: torch.empty(
        (*row.shape[:-1], weight.shape[0]), dtype=dtype, device=row.device
    ),
    kernels=_KERNELS,
)
def linear_row(
    row: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, dtype: torch.dtype
) -> Tensor:
    """Return a single row times weights: all time goes into reading these.

    Args:
        row: [..., in], of any floating dtype, with a single row.
        weight: [out, in], of ``dtype`` or narrower.
        bias: [out].
        gelu: whether the exact GELU follows.
        dtype: that it is computed in, and of the result.

    Returns:
        [..., out].

    """
    wide = None if bias is None else bias.to(dtype)
    product = functional.linear(row.to(dtype), weight.to(dtype), wide)
    return functional.gelu(product) if gelu else product


def split_heads(packed: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return views of ``packed`` [batch, tokens, 3 * dim]: [batch, heads, tokens, head_dim]."""
    batch, tokens, width = packed.shape
    parts = packed.view(batch, tokens, 3, heads, width // 3 // heads)
    query, key, value = parts.permute(2, 0, 3, 1, 4)
    return query, key, value
