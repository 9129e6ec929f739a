# SPDX-License-Identifier: Apache-2.0
"""Triton: attention of few queries over many keys, the keys split over the whole GPU."""

import torch
import triton
import triton.language as tl
from torch import Tensor

_KEYS = 64
"""Keys that one program takes at a time."""
_PROGRAMS = 256
"""Programs in all, about: twice as many as a large GPU has multiprocessors."""
_LOG2_E = 1.4426950408889634


@triton.jit
def _attend_split(  # type: ignore[no-untyped-def]
    query, keys, values, mixed, highest, total, rows, tokens, run, scale,
    query_head, query_token, keys_head, keys_token, values_head, values_token,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Attend over one run of keys of one head; leave the sums, not divided by their weights."""
    split, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row = tl.arange(0, ROWS)
    channel = tl.arange(0, WIDTH)
    known = channel < CHANNELS
    asked = (row < rows)[:, None] & known[None, :]
    where = query + head * query_head + row[:, None] * query_token + channel[None, :]
    asking = tl.load(where, mask=asked, other=0.0)
    most = tl.full((ROWS,), float("-inf"), tl.float32)
    weight = tl.zeros((ROWS,), tl.float32)
    summed = tl.zeros((ROWS, WIDTH), tl.float32)
    for start in range(split * run, min((split + 1) * run, tokens), KEYS):
        place = start + tl.arange(0, KEYS)
        inside = (place < tokens)[:, None] & known[None, :]
        here = keys + head * keys_head + place[:, None] * keys_token + channel[None, :]
        key = tl.load(here, mask=inside, other=0.0)
        logit = tl.dot(asking, tl.trans(key)) * scale
        logit = tl.where((place < tokens)[None, :], logit, float("-inf"))
        higher = tl.maximum(most, tl.max(logit, axis=1))
        fading = tl.exp2(most - higher)
        share = tl.exp2(logit - higher[:, None])
        here = values + head * values_head + place[:, None] * values_token + channel[None, :]
        value = tl.load(here, mask=inside, other=0.0)
        summed = summed * fading[:, None] + tl.dot(share.to(value.dtype), value)
        weight = weight * fading + tl.sum(share, axis=1)
        most = higher
    part = (head * tl.num_programs(0) + split) * ROWS + row
    tl.store(mixed + part[:, None] * WIDTH + channel[None, :], summed)
    tl.store(highest + part, most)
    tl.store(total + part, weight)


@triton.jit
def _join_splits(  # type: ignore[no-untyped-def]
    mixed, highest, total, out, splits, out_head, out_token,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Bring the splits of one query of one head together."""
    row, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    split = tl.arange(0, SPLITS)
    channel = tl.arange(0, WIDTH)
    part = (head * splits + split) * ROWS + row
    inside = split < splits
    most = tl.load(highest + part, mask=inside, other=float("-inf"))
    scale = tl.exp2(most - tl.max(most, axis=0))
    weight = tl.sum(tl.load(total + part, mask=inside, other=0.0) * scale, axis=0)
    where = mixed + part[:, None] * WIDTH + channel[None, :]
    summed = tl.load(where, mask=inside[:, None], other=0.0) * scale[:, None]
    result = tl.sum(summed, axis=0) / weight
    here = out + head * out_head + row * out_token + channel
    tl.store(here, result.to(out.dtype.element_ty), mask=channel < CHANNELS)


def attend_few(query: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
    """Attend with queries [heads, rows, head_dim]; see ``attend_few`` in `ops.py`."""
    heads, rows, channels = query.shape
    tokens = keys.shape[1]
    height = max(16, triton.next_power_of_2(rows))
    width = max(16, triton.next_power_of_2(channels))
    wanted = max(1, min(_PROGRAMS // heads, triton.cdiv(tokens, _KEYS)))
    run = triton.cdiv(triton.cdiv(tokens, wanted), _KEYS) * _KEYS
    splits = triton.cdiv(tokens, run)
    mixed = torch.empty(heads, splits, height, width, dtype=torch.float32, device=query.device)
    highest, total = torch.empty(2, heads, splits, height, dtype=torch.float32, device=query.device)
    _attend_split[splits, heads](
        query, keys, values, mixed, highest, total, rows, tokens, run, channels**-0.5 * _LOG2_E,
        query.stride(0), query.stride(1), keys.stride(0), keys.stride(1),
        values.stride(0), values.stride(1), channels, width, height, _KEYS,
    )  # fmt: skip
    _join_splits[rows, heads](
        mixed, highest, total, out, splits, out.stride(0), out.stride(1),
        channels, width, height, triton.next_power_of_2(splits),
    )  # fmt: skip
