# SPDX-License-Identifier: Apache-2.0
"""Attention in Triton, and what is tried before one relies on Triton, or on this attention.

Importing this needs Triton, so `attention.py` does it late.
"""

from __future__ import annotations

import sys
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

_LOG2_E = 1.4426950408889634
_ROWS = 64
"""Queries that one program takes. A large GPU holds two or three programs a multiprocessor."""
_MANY_KEYS = 4096
"""From here on, queries that fill no program share their keys among several ones."""
_SHARERS = 16
"""So many; 16 heads of so many programs are about two for each multiprocessor of a large GPU."""
_TRIED_HEADS = 16
"""As many as the official network has: a single one would be compiled into the kernel."""
_TOLERANCE = 0.02
"""Attention of normal numbers in a half type is off by less than half of it."""
_BLOCKS = ((128, 3), (64, 3), (64, 2), (32, 2))
"""Keys that a program takes at a time, and how many times that many are on their way; the first
that fits is best, but for the largest where keys are few."""


def blocks_for(width: int, tokens: int, shared_memory: int) -> tuple[int, int]:
    """Return how many keys a program takes at a time, and how many times as many are on their way.

    What a block takes is counted as on Hopper; other cards need less, or 32 bytes more.

    Args:
        width: channels of a head.
        tokens: keys of a head.
        shared_memory: most bytes of it that a program may have.

    """
    choices = _BLOCKS if tokens >= _MANY_KEYS else _BLOCKS[1:]
    fitting = (
        (keys, stages)
        for keys, stages in choices
        if 2 * width * (_ROWS + 2 * keys * stages) <= shared_memory
    )
    return next(fitting, choices[-1])


@cache
def shared_memory(device: torch.device) -> int:
    """Return the most bytes of it that a program may have on ``device``; boundless off CUDA."""
    if device.type != "cuda":
        return sys.maxsize
    # Older PyTorch does not tell, and this is what Triton itself compares a kernel's needs with.
    utilities = triton.runtime.driver.active.utils
    return int(utilities.get_device_properties(device.index or 0)["max_shared_mem"])


@triton.jit
def _attend(  # type: ignore[no-untyped-def]
    query, keys, values, out, mixed, highest, total,
    lanes, heads, count, tokens, run, scale,
    query_frame, query_head, query_token, keys_frame, keys_head, keys_token,
    values_frame, values_head, values_token, out_frame, out_head, out_token,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, REST: tl.constexpr,
    SPLITS: tl.constexpr, KEYS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Attend with ``ROWS`` queries of one head of one frame, or share those left at the end.

    A lane is a head of a frame. Programs of one place in all lanes come before those of the next
    one; those that share come last and fill the gaps.
    """
    number = tl.program_id(0)
    lane = number % lanes
    frame, head = (lane // heads).to(tl.int64), (lane % heads).to(tl.int64)
    query += frame * query_frame + head * query_head
    keys += frame * keys_frame + head * keys_head
    values += frame * values_frame + head * values_head
    out += frame * out_frame + head * out_head
    if SPLITS == 1:
        # A second way would take registers that a third program on a multiprocessor needs.
        _attend_alone(
            query, keys, values, out, number // lanes * ROWS, count, tokens, scale,
            query_token, keys_token, values_token, out_token, CHANNELS, WIDTH, ROWS, KEYS, STAGES,
        )  # fmt: skip
    else:
        whole = count // ROWS
        if number < whole * lanes:
            _attend_alone(
                query, keys, values, out, number // lanes * ROWS, count, tokens, scale,
                query_token, keys_token, values_token, out_token,
                CHANNELS, WIDTH, ROWS, KEYS, STAGES,
            )  # fmt: skip
        else:
            _attend_shared(
                query, keys, values, mixed, highest, total, lane, number // lanes - whole,
                whole * ROWS, count, tokens, run, scale, query_token, keys_token, values_token,
                CHANNELS, WIDTH, REST, SPLITS, KEYS, STAGES,
            )  # fmt: skip


@triton.jit
def _attend_alone(  # type: ignore[no-untyped-def]
    query, keys, values, out, first, count, tokens, scale,
    query_token, keys_token, values_token, out_token,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Attend with ``ROWS`` queries of one lane, from ``first`` on, over all keys."""
    row = (first + tl.arange(0, ROWS))[:, None]
    channel = tl.arange(0, WIDTH)[None, :]
    inside = (row < count) & (channel < CHANNELS)
    asking = tl.load(query + row * query_token + channel, mask=inside, other=0.0)
    summed, _most, weight = _over(
        asking, keys, values, 0, tokens, keys_token, values_token, scale,
        CHANNELS, WIDTH, ROWS, KEYS, STAGES,
    )  # fmt: skip
    result = (summed / weight[:, None]).to(out.dtype.element_ty)
    tl.store(out + row * out_token + channel, result, mask=inside)


@triton.jit
def _attend_shared(  # type: ignore[no-untyped-def]
    query, keys, values, mixed, highest, total, lane, split, first, count, tokens, run, scale,
    query_token, keys_token, values_token,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, REST: tl.constexpr, SPLITS: tl.constexpr,
    KEYS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Attend with the queries from ``first`` on over one run of keys; leave sums, not divided."""
    place = tl.arange(0, REST)
    row = (first + place)[:, None]
    channel = tl.arange(0, WIDTH)[None, :]
    inside = (row < count) & (channel < CHANNELS)
    asking = tl.load(query + row * query_token + channel, mask=inside, other=0.0)
    summed, most, weight = _over(
        asking, keys, values, split * run, tl.minimum((split + 1) * run, tokens),
        keys_token, values_token, scale, CHANNELS, WIDTH, REST, KEYS, STAGES,
    )  # fmt: skip
    part = (lane * SPLITS + split) * REST + place
    tl.store(mixed + part[:, None] * WIDTH + channel, summed)
    tl.store(highest + part, most)
    tl.store(total + part, weight)


@triton.jit
def _over(  # type: ignore[no-untyped-def]
    asking, keys, values, first, last, keys_token, values_token, scale,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """Return sums over the keys from ``first`` to ``last``, and by what they are to be divided."""
    most = tl.full((ROWS,), float("-inf"), tl.float32)
    weight = tl.zeros((ROWS,), tl.float32)
    summed = tl.zeros((ROWS, WIDTH), tl.float32)
    whole = first + (last - first) // KEYS * KEYS
    for start in tl.range(first, whole, KEYS, num_stages=STAGES):
        summed, most, weight = _over_block(
            asking, keys, values, start, last, summed, most, weight, keys_token, values_token,
            scale, CHANNELS, WIDTH, KEYS, False,
        )  # fmt: skip
    if whole < last:
        summed, most, weight = _over_block(
            asking, keys, values, whole, last, summed, most, weight, keys_token, values_token,
            scale, CHANNELS, WIDTH, KEYS, True,
        )  # fmt: skip
    return summed, most, weight


@triton.jit
def _over_block(  # type: ignore[no-untyped-def]
    asking, keys, values, start, last, summed, most, weight, keys_token, values_token, scale,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, KEYS: tl.constexpr, CUT: tl.constexpr,
):  # fmt: skip
    """Take one block of keys in; some of them are beyond ``last`` where it is ``CUT``."""
    place = start + tl.arange(0, KEYS)
    channel = tl.arange(0, WIDTH)
    here = keys + place[:, None] * keys_token + channel[None, :]
    there = values + place[:, None] * values_token + channel[None, :]
    if CUT:
        inside = (place < last)[:, None] & (channel < CHANNELS)[None, :]
        key = tl.load(here, mask=inside, other=0.0)
        value = tl.load(there, mask=inside, other=0.0)
    elif CHANNELS < WIDTH:
        inside = (channel < CHANNELS)[None, :]
        key = tl.load(here, mask=inside, other=0.0)
        value = tl.load(there, mask=inside, other=0.0)
    else:
        key = tl.load(here)
        value = tl.load(there)
    logit = tl.dot(asking, tl.trans(key))
    if CUT:
        logit = tl.where((place < last)[None, :], logit, float("-inf"))
    higher = tl.maximum(most, tl.max(logit, axis=1) * scale)
    share = tl.exp2(logit * scale - higher[:, None])
    fading = tl.exp2(most - higher)
    weight = weight * fading + tl.sum(share, axis=1)
    summed = tl.dot(share.to(value.dtype), value, summed * fading[:, None])
    return summed, higher, weight


@triton.jit
def _join_splits(  # type: ignore[no-untyped-def]
    mixed, highest, total, out, heads, first, out_frame, out_head, out_token,
    CHANNELS: tl.constexpr, WIDTH: tl.constexpr, REST: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Bring the splits of one query of one head of one frame together."""
    row, lane = tl.program_id(0), tl.program_id(1)
    split = tl.arange(0, SPLITS)
    channel = tl.arange(0, WIDTH)
    part = (lane * SPLITS + split) * REST + row
    most = tl.load(highest + part)
    scale = tl.exp2(most - tl.max(most, axis=0))
    weight = tl.sum(tl.load(total + part) * scale, axis=0)
    summed = tl.load(mixed + part[:, None] * WIDTH + channel[None, :]) * scale[:, None]
    result = tl.sum(summed, axis=0) / weight
    frame, head = (lane // heads).to(tl.int64), (lane % heads).to(tl.int64)
    here = out + frame * out_frame + head * out_head + (first + row) * out_token + channel
    tl.store(here, result.to(out.dtype.element_ty), mask=channel < CHANNELS)


def attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Launch a program for each 64 queries of a head; see ``attend`` in `attention.py`."""
    batch, heads, count, channels = query.shape
    tokens = keys.shape[2]
    query, keys, values = (
        each if each.stride(-1) == 1 else each.contiguous() for each in (query, keys, values)
    )
    out = query.new_empty(batch, count, heads, channels).transpose(1, 2)
    lanes, rest = batch * heads, count % _ROWS
    height = max(16, triton.next_power_of_2(rest))
    width = max(16, triton.next_power_of_2(channels))
    block, stages = blocks_for(width, tokens, shared_memory(query.device))
    splits = _SHARERS if tokens >= _MANY_KEYS and rest and count > _ROWS else 1
    run = max(1, triton.cdiv(triton.cdiv(tokens, splits), block)) * block
    # Where runs are rounded up, the last ones may be empty.
    splits = triton.next_power_of_2(triton.cdiv(tokens, run))
    room = (lanes, splits, height) if splits > 1 else (0, 0, 0)
    mixed = torch.empty(*room, width, dtype=torch.float32, device=query.device)
    highest, total = torch.empty(2, *room, dtype=torch.float32, device=query.device)
    programs = lanes * (count // _ROWS + splits if splits > 1 else triton.cdiv(count, _ROWS))
    _attend[(programs,)](
        query, keys, values, out, mixed, highest, total,
        lanes, heads, count, tokens, run, channels**-0.5 * _LOG2_E,
        *query.stride()[:3], *keys.stride()[:3], *values.stride()[:3], *out.stride()[:3],
        channels, width, _ROWS, height, splits, block, stages, num_warps=4,
    )  # fmt: skip
    if splits > 1:
        _join_splits[rest, lanes](
            mixed, highest, total, out, heads, count - rest, *out.stride()[:3],
            channels, width, height, splits,
        )  # fmt: skip
    return out


@triton.jit
def _double(source, target, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    offsets = tl.arange(0, BLOCK)
    inside = offsets < count
    tl.store(target + offsets, 2 * tl.load(source + offsets, mask=inside), mask=inside)


def doubled(values: Tensor) -> Tensor:
    """Return twice the values of a small vector."""
    result = torch.empty_like(values)
    _double[(1,)](values, result, values.numel(), BLOCK=triton.next_power_of_2(values.numel()))
    return result


def attends_like_pytorch(device: torch.device, dtype: torch.dtype, channels: int) -> bool:
    """Return whether attention over few keys and over many is what PyTorch says it is.

    Args:
        device: a GPU.
        dtype: a half type.
        channels: of a head.

    """
    generator = torch.Generator().manual_seed(0)
    right = True
    for count, tokens in ((81, 90), (81, 4200)):
        query, keys, values = (
            torch.randn(1, _TRIED_HEADS, each, channels, generator=generator).to(device, dtype)
            for each in (count, tokens, tokens)
        )
        expected = functional.scaled_dot_product_attention(query, keys, values)
        right &= bool((attend(query, keys, values) - expected).abs().max() < _TOLERANCE)
    return right
