# SPDX-License-Identifier: Apache-2.0
"""Launches of the Triton kernels, in the signatures of the operations in `ops.py`."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from xsvggt_ros.cache.kernels import measuring, packing
from xsvggt_ros.cache.kernels.measuring import attend_few
from xsvggt_ros.cache.quantization import UNQUANTIZED
from xsvggt_ros.cache.token_storage import SKIPPED, TENSORS, put, take

__all__ = [
    "attend_camera",
    "attend_few",
    "decode_layer",
    "key_similarity",
    "unit_range",
    "write_tokens",
]

_TOKENS = 64
"""Tokens that one program of a kernel handles at a time."""
_BESIDE = 256
"""The same, where a token is only a few numbers."""
_PARTS = 32
"""Programs that add up the directions of one head; a power of two."""


def decode_layer(
    key_tensors: list[Tensor],
    key_bits: list[int],
    value_tensors: list[Tensor],
    value_bits: list[int],
    lengths: list[int],
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    held_keys: Tensor,
    held_values: Tensor,
) -> None:
    """Launch one kernel for each segment that holds tokens, and one for the newest frame."""
    heads, _, channels = keys.shape
    start = 0
    for index, length in enumerate(lengths):
        bits = key_bits[index], value_bits[index]
        if length and bits != (SKIPPED, SKIPPED):
            own = slice(index * TENSORS, (index + 1) * TENSORS)
            codes, scale, minimum, rows = key_tensors[own]
            value_codes, value_scale, value_minimum, _ = value_tensors[own]
            out, value_out = keys[:, start:], values[:, start:]
            packing.decode_segment[triton.cdiv(length, _TOKENS), heads](
                codes, scale, minimum, rows, out,
                value_codes, value_scale, value_minimum, value_out,
                length, heads // rows.shape[0] if rows.numel() else 1,
                codes.stride(0), _lane(scale), _lane(rows), out.stride(0),
                value_codes.stride(0), _lane(value_scale), value_out.stride(0),
                channels, *bits, _TOKENS,
            )  # fmt: skip
        start += length
    frame = key.shape[1]
    out, value_out = keys[:, start:], values[:, start:]
    packing.copy_newest[triton.cdiv(frame, _TOKENS), heads](
        key, value, out, value_out, held_keys, held_values, frame,
        key.stride(0), key.stride(1), value.stride(0), value.stride(1),
        out.stride(0), value_out.stride(0),
        channels, held_keys.numel() > 0, held_values.numel() > 0, _TOKENS,
    )  # fmt: skip


def write_tokens(
    keys: Tensor,
    values: Tensor,
    numbers: Tensor,
    scores: Tensor,
    insertions: Tensor,
    order: Tensor,
    slots: Tensor,
    rows: Tensor,
    group_size: int,
    key_bits: int,
    key_codes: Tensor,
    key_scale: Tensor,
    key_minimum: Tensor,
    row_of_slot: Tensor,
    value_bits: int,
    value_codes: Tensor,
    value_scale: Tensor,
    value_minimum: Tensor,
    number_of_slot: Tensor,
    score_of_slot: Tensor,
    insertion_of_slot: Tensor,
) -> None:
    """Launch one kernel for keys, one for values, and one for what stands beside them."""
    lanes, _, channels = keys.shape
    sets, count = slots.shape
    packing.write_beside[triton.cdiv(count, _BESIDE), sets](
        numbers, scores, insertions, order, slots, number_of_slot, score_of_slot, insertion_of_slot,
        count, numbers.stride(0), scores.stride(0), insertions.stride(0), insertions.stride(1),
        order.stride(0), slots.stride(0), number_of_slot.stride(0), _BESIDE,
    )  # fmt: skip
    if key_bits == UNQUANTIZED:
        put(key_codes, slots, take(keys, order))
    elif key_bits != SKIPPED:
        block = triton.next_power_of_2(group_size)
        packing.write_keys[triton.cdiv(count, group_size), lanes](
            keys, order, slots, rows, key_codes, key_scale, key_minimum, row_of_slot,
            count, lanes // sets, keys.stride(0), keys.stride(1),
            order.stride(0), slots.stride(0), rows.stride(0),
            key_codes.stride(0), key_scale.stride(0), row_of_slot.stride(0),
            group_size, channels, key_bits, block,
        )  # fmt: skip
    if value_bits == UNQUANTIZED:
        put(value_codes, slots, take(values, order))
    elif value_bits != SKIPPED:
        packing.write_values[triton.cdiv(count, _TOKENS), lanes](
            values, order, slots, value_codes, value_scale, value_minimum,
            count, lanes // sets, values.stride(0), values.stride(1),
            order.stride(0), slots.stride(0), value_codes.stride(0), value_scale.stride(0),
            channels, value_bits, _TOKENS,
        )  # fmt: skip


def key_similarity(keys: Tensor, anchor: int) -> Tensor:
    """Launch kernels for the mean direction of keys [lanes, tokens, channels] and for products."""
    heads, tokens, channels = keys.shape
    left_out = anchor if anchor < tokens else 0
    sums = torch.empty(heads, _PARTS, channels, dtype=torch.float32, device=keys.device)
    out = torch.empty(heads, tokens, dtype=torch.float32, device=keys.device)
    run = triton.cdiv(triton.cdiv(tokens, _PARTS), _TOKENS) * _TOKENS
    measuring.sum_directions[_PARTS, heads](
        keys, sums, tokens, left_out, run, keys.stride(0), channels, _PARTS, _TOKENS
    )
    measuring.similarities[triton.cdiv(tokens, _TOKENS), heads](
        keys, sums, out, tokens, tokens - left_out, keys.stride(0), channels, _PARTS, _TOKENS
    )
    return out


def unit_range(values: Tensor) -> Tensor:
    """Launch one program for each row of values [rows, count]."""
    rows, count = values.shape
    values = values.contiguous()
    out = torch.empty_like(values)
    measuring.unit_range[(rows,)](values, out, count, 1024)
    return out


def attend_camera(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    place: Tensor,
    held: Tensor,
    keys: Tensor,
    values: Tensor,
    attention: Tensor,
) -> Tensor:
    """Launch one program for each head, then average over the heads.

    Args:
        query: [1, heads, 1, head_dim].
        key: of the newest token, of the same shape.
        value: likewise.
        place: where the newest token is stored, int64 [1].
        held: tokens held, the newest included, int64 [].
        keys: [heads, room, head_dim], changed.
        values: likewise.
        attention: takes the mean attention over heads, float32 [room].

    """
    heads, room, channels = keys.shape
    weights = torch.empty(heads, room, dtype=torch.float32, device=keys.device)
    out = torch.empty(query.shape, dtype=value.dtype, device=keys.device)
    measuring.attend_camera[(heads,)](
        query.contiguous(), key.contiguous(), value.contiguous(), place, held, keys, values,
        weights, out, room, channels**-0.5, keys.stride(0), values.stride(0), channels,
        min(256, triton.next_power_of_2(room)), num_warps=8,
    )  # fmt: skip
    torch.mean(weights, dim=0, out=attention)
    return out


def _lane(tensor: Tensor) -> int:
    return tensor.stride(0) if tensor.numel() else 0
