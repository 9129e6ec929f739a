# SPDX-License-Identifier: Apache-2.0
"""Triton kernels of the network; importing this needs Triton, so `operators.py` does it late."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from xsvggt_ros.cuda.early_start import (
    can_start_early,
    launch_options,
    start_next,
    wait_for_previous,
)
from xsvggt_ros.model.operators import Projection


@triton.jit
def _layer_norm(  # type: ignore[no-untyped-def]
    source, update, total, target, weight, bias, stride, dim, eps,
    ADD: tl.constexpr, AFFINE: tl.constexpr, BLOCK: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    if AHEAD:
        start_next()
        wait_for_previous()
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < dim
    values = tl.load(source + row * stride + columns, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        values += tl.load(update + row * dim + columns, mask=inside, other=0.0).to(tl.float32)
        tl.store(total + row * dim + columns, values, mask=inside)
    mean = tl.sum(values, axis=0) / dim
    centered = tl.where(inside, values - mean, 0.0)
    variance = tl.sum(centered * centered, axis=0) / dim
    normed = centered / tl.sqrt(variance + eps)
    if AFFINE:
        gain = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
        normed = normed * gain + tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(target + row * dim + columns, normed.to(target.dtype.element_ty), mask=inside)


def layer_norm(
    tokens: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, dtype: torch.dtype
) -> Tensor:
    """Launch one program for each row of tokens [..., dim]; see `operators.py`."""
    rows = _as_rows(tokens)
    target = torch.empty(tokens.shape, dtype=dtype, device=tokens.device)
    _launch(rows, None, None, target, weight, bias, eps)
    return target


def add_layer_norm(
    tokens: Tensor, update: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Launch one program for each row of tokens [..., dim]; see `operators.py`."""
    rows = _as_rows(tokens)
    total = torch.empty(tokens.shape, dtype=torch.float32, device=tokens.device)
    target = torch.empty(tokens.shape, dtype=dtype, device=tokens.device)
    _launch(rows, update.contiguous(), total, target, weight, bias, eps)
    return total, target


def _as_rows(tokens: Tensor) -> Tensor:
    """Return [rows, dim] whose rows are dense; a slice of a frame's tokens is not copied."""
    rows = tokens.flatten(0, -2)
    return rows if rows.stride(-1) == 1 else rows.contiguous()


def _launch(
    rows: Tensor,
    update: Tensor | None,
    total: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> None:
    dim = rows.shape[-1]
    block = triton.next_power_of_2(dim)
    ahead = len(rows) == 1 and can_start_early(rows.device)
    _layer_norm[(len(rows),)](
        rows, update, total, target, weight, bias, rows.stride(0), dim, eps,
        ADD=update is not None, AFFINE=weight is not None, BLOCK=block, AHEAD=ahead,
        num_warps=min(max(block // 256, 1), 8), **launch_options(ahead),
    )  # fmt: skip


@triton.jit
def _linear_row(  # type: ignore[no-untyped-def]
    row, weight, bias, out, outputs,
    INPUTS: tl.constexpr, BIAS: tl.constexpr, GELU: tl.constexpr, LINES: tl.constexpr,
    BLOCK: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """Compute ``LINES`` numbers of the result."""
    number = tl.program_id(0) * LINES + tl.arange(0, LINES)
    inside = number < outputs
    line = weight + number.to(tl.int64)[:, None] * INPUTS
    # Weights never change: the first ones are on their way before the row is computed.
    factor = _weights(line, inside, 0, INPUTS, BLOCK)
    if AHEAD:
        start_next()
        wait_for_previous()
    total = tl.zeros((LINES, BLOCK), tl.float32)
    for start in tl.static_range(0, INPUTS, BLOCK):
        if start > 0:
            factor = _weights(line, inside, start, INPUTS, BLOCK)
        column = start + tl.arange(0, BLOCK)
        came = tl.load(row + column, mask=column < INPUTS, other=0.0).to(out.dtype.element_ty)
        total += factor.to(tl.float32) * came.to(tl.float32)[None, :]
    result = tl.sum(total, axis=1)
    if BIAS:
        result += tl.load(bias + number, mask=inside, other=0.0).to(tl.float32)
    if GELU:
        result = 0.5 * result * (1.0 + tl.erf(result * 0.7071067811865476))
    tl.store(out + number, result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _weights(line, inside, start, INPUTS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    column = start + tl.arange(0, BLOCK)
    taken = inside[:, None] & (column < INPUTS)[None, :]
    return tl.load(line + column[None, :], mask=taken, other=0.0)


_LINES = 2
"""Numbers of a single row's result that one program computes."""
_ACROSS = 2048
"""Weights of each that it reads at a time."""


def linear_row(
    row: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, dtype: torch.dtype
) -> Tensor:
    """Launch programs for a row [..., in] times weights [out, in]; see `operators.py`."""
    outputs, inputs = weight.shape
    out = torch.empty((*row.shape[:-1], outputs), dtype=dtype, device=row.device)
    # What is copied here first is no constant, nor is what still learns.
    constant = weight.is_contiguous() and not weight.requires_grad
    ahead = constant and can_start_early(row.device)
    _linear_row[(triton.cdiv(outputs, _LINES),)](
        row.contiguous(), weight.contiguous(), bias, out, outputs,
        inputs, bias is not None, gelu, _LINES, min(_ACROSS, triton.next_power_of_2(inputs)),
        ahead, num_warps=4, **launch_options(ahead),
    )  # fmt: skip
    return out


_NUMBERS = 2048
"""Numbers of the result that one program writes."""


@triton.jit
def _resize(  # type: ignore[no-untyped-def]
    source, target, along_x, along_y, height, width, rows, columns, step_y, step_x,
    CHANNELS: tl.constexpr, WIDE: tl.constexpr, COLUMNS: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    """Write ``COLUMNS`` places of one row of one frame, all channels."""
    y = tl.program_id(1)
    x = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    frame = tl.program_id(2).to(tl.int64)
    channel = tl.arange(0, WIDE)
    inside = (x < columns)[:, None] & (channel < CHANNELS)[None, :]
    at_y = y.to(tl.float32) * step_y
    at_x = x.to(tl.float32) * step_x
    above = at_y.to(tl.int32)
    left = at_x.to(tl.int32)
    below = tl.minimum(above + 1, height - 1)
    right = tl.minimum(left + 1, width - 1)
    down = at_y - above.to(tl.float32)
    over = (at_x - left.to(tl.float32))[:, None]
    image = source + frame * height * width * CHANNELS + channel[None, :]
    one = tl.load(image + (above * width + left)[:, None] * CHANNELS, mask=inside, other=0.0)
    two = tl.load(image + (above * width + right)[:, None] * CHANNELS, mask=inside, other=0.0)
    upper = one.to(tl.float32) * (1.0 - over) + two.to(tl.float32) * over
    three = tl.load(image + (below * width + left)[:, None] * CHANNELS, mask=inside, other=0.0)
    four = tl.load(image + (below * width + right)[:, None] * CHANNELS, mask=inside, other=0.0)
    lower = three.to(tl.float32) * (1.0 - over) + four.to(tl.float32) * over
    mixed = upper * (1.0 - down) + lower * down
    if ADD:
        HALF: tl.constexpr = CHANNELS // 2
        first = (channel < HALF)[None, :]
        here = along_x + channel[None, :] * columns + x[:, None]
        mixed += tl.load(here, mask=inside & first, other=0.0).to(tl.float32)
        there = along_y + (channel - HALF) * rows + y
        second = (channel >= HALF) & (channel < CHANNELS)
        mixed += tl.load(there, mask=second, other=0.0).to(tl.float32)[None, :]
    place = ((frame * rows + y) * columns + x)[:, None] * CHANNELS + channel[None, :]
    tl.store(target + place, mixed.to(target.dtype.element_ty), mask=inside)


def resize(
    features: Tensor, rows: int, columns: int, along_x: Tensor | None, along_y: Tensor | None
) -> Tensor:
    """Launch programs for features [frames, channels, height, width]; see `operators.py`."""
    frames, channels, height, width = features.shape
    source = features.contiguous(memory_format=torch.channels_last)
    target = torch.empty(
        (frames, channels, rows, columns), dtype=features.dtype, device=features.device,
        memory_format=torch.channels_last,
    )  # fmt: skip
    wide = triton.next_power_of_2(channels)
    places = max(1, _NUMBERS // wide)
    _resize[triton.cdiv(columns, places), rows, frames](
        source, target,
        None if along_x is None else along_x.contiguous(),
        None if along_y is None else along_y.contiguous(),
        height, width, rows, columns,
        (height - 1) / (rows - 1) if rows > 1 else 0.0,
        (width - 1) / (columns - 1) if columns > 1 else 0.0,
        channels, wide, places, along_x is not None and along_y is not None,
    )  # fmt: skip
    return target


@triton.jit
def _normalize_and_rotate(  # type: ignore[no-untyped-def]
    packed, query, key, value, query_weight, query_bias, key_weight, key_bias, cos, sin,
    tokens, turned_tokens, heads, eps,
    QUARTER: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr, NEIGHBOURS: tl.constexpr,
):  # fmt: skip
    """Take one token: all heads of its query, its key or its value.

    Channels of a head are [axis, part, j], or [j, part] where neighbours turn together; a turn
    mixes the two parts, so these are loaded apart, as [heads, axis and j].
    """
    row = tl.program_id(0).to(tl.int64)
    which = tl.program_id(1)
    token = row % tokens
    channels = 4 * QUARTER
    head = tl.arange(0, HEADS)[:, None]
    turn = tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (turn < 2 * QUARTER)
    if NEIGHBOURS:
        first = 2 * turn
        second = first + 1
    else:
        first = (turn // QUARTER) * (2 * QUARTER) + turn % QUARTER
        second = first + QUARTER
    source = packed + (row * 3 + which) * heads * channels + head * channels
    # Queries stay token by token, which is how what is mixed for them is read; keys and values go
    # head by head, which is how they are stored.
    asked = (row * heads + head) * channels
    target = ((row // tokens * heads + head) * tokens + token) * channels

    came_one = tl.load(source + first, mask=inside, other=0.0)
    came_two = tl.load(source + second, mask=inside, other=0.0)
    if which == 2:
        tl.store(value + target + first, came_one, mask=inside)
        tl.store(value + target + second, came_two, mask=inside)
    else:
        one = came_one.to(tl.float32)
        two = came_two.to(tl.float32)
        mean = (tl.sum(one, axis=1) + tl.sum(two, axis=1))[:, None] / channels
        one = tl.where(inside, one - mean, 0.0)
        two = tl.where(inside, two - mean, 0.0)
        squares = (tl.sum(one * one, axis=1) + tl.sum(two * two, axis=1))[:, None]
        deviation = tl.sqrt(squares / channels + eps)
        known = turn < 2 * QUARTER
        weight, bias, result = query_weight, query_bias, query + asked
        if which == 1:
            weight, bias, result = key_weight, key_bias, key + target
        one = one / deviation * tl.load(weight + first, mask=known, other=0.0).to(tl.float32)
        two = two / deviation * tl.load(weight + second, mask=known, other=0.0).to(tl.float32)
        one += tl.load(bias + first, mask=known, other=0.0).to(tl.float32)
        two += tl.load(bias + second, mask=known, other=0.0).to(tl.float32)
        place = token % turned_tokens * (2 * QUARTER) + turn
        cosine = tl.load(cos + place, mask=known, other=0.0)
        sine = tl.load(sin + place, mask=known, other=0.0)
        kind = query.dtype.element_ty
        tl.store(result + first, (one * cosine - two * sine).to(kind), mask=inside)
        tl.store(result + second, (two * cosine + one * sine).to(kind), mask=inside)


def normalize_and_rotate(given: Projection) -> tuple[Tensor, Tensor, Tensor]:
    """Launch a program for each token's query, key and value, [batch, heads, tokens, head_dim]."""
    packed, heads = given.packed, given.heads
    batch, tokens, width = packed.shape
    channels = width // 3 // heads
    query = packed.new_empty(batch, tokens, heads, channels).transpose(1, 2)
    key, value = packed.new_empty(2, batch, heads, tokens, channels).unbind()
    _normalize_and_rotate[(batch * tokens, 3)](
        packed.contiguous(), query, key, value,
        given.query_weight, given.query_bias, given.key_weight, given.key_bias,
        given.cos, given.sin,
        tokens, given.cos.shape[0], heads, given.eps,
        QUARTER=channels // 4,
        HEADS=triton.next_power_of_2(heads),
        HALF=triton.next_power_of_2(channels // 2),
        NEIGHBOURS=given.neighbours,
        num_warps=4,
    )  # fmt: skip
    return query, key, value
