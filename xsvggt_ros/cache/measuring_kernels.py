# SPDX-License-Identifier: Apache-2.0
"""Launches in Triton: policies' measures, the camera head's attention, that of few queries."""

import torch
import triton
import triton.language as tl
from torch import Tensor

_LEAST_NORM = tl.constexpr(1e-12)


@triton.jit
def _sum_directions(  # type: ignore[no-untyped-def]
    keys, sums, tokens, anchor, run, keys_lane,
    CHANNELS: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add up the normalised keys of one run of one head, those of the anchor left out."""
    part, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    total = tl.zeros((triton.next_power_of_2(CHANNELS),), tl.float32)
    for start in range(0, run, BLOCK):
        places = part * run + start + tl.arange(0, BLOCK)
        direction, channels = _directions(keys + head * keys_lane, places, tokens, CHANNELS)
        # One key that is no number must not make all of them alike.
        counted = ((places >= anchor) & (places < tokens))[:, None] & (direction == direction)
        total += tl.sum(tl.where(counted, direction, 0.0), axis=0)
    channels = tl.arange(0, triton.next_power_of_2(CHANNELS))
    place = (head * PARTS + part) * CHANNELS + channels
    tl.store(sums + place, total, mask=channels < CHANNELS)


@triton.jit
def _similarities(  # type: ignore[no-untyped-def]
    keys, sums, out, tokens, counted, keys_lane,
    CHANNELS: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Multiply the normalised keys of one block of one head with their mean direction."""
    head = tl.program_id(1).to(tl.int64)
    places = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    direction, channels = _directions(keys + head * keys_lane, places, tokens, CHANNELS)
    parts = tl.arange(0, PARTS)[:, None]
    known = (parts < PARTS) & (channels < CHANNELS)[None, :]
    where = sums + (head * PARTS + parts) * CHANNELS + channels[None, :]
    mean = tl.sum(tl.load(where, mask=known, other=0.0), axis=0) / counted
    similarity = tl.sum(direction * mean[None, :], axis=1)
    tl.store(out + head * tokens + places, similarity, mask=places < tokens)


@triton.jit
def _directions(keys, places, tokens, CHANNELS: tl.constexpr):  # type: ignore[no-untyped-def]
    channels = tl.arange(0, triton.next_power_of_2(CHANNELS))
    taken = (places < tokens)[:, None] & (channels < CHANNELS)[None, :]
    where = keys + places[:, None] * CHANNELS + channels[None, :]
    key = tl.load(where, mask=taken, other=0.0).to(tl.float32)
    norm = tl.sqrt(tl.sum(key * key, axis=1))
    length = tl.where(norm == norm, tl.maximum(norm, _LEAST_NORM), norm)
    return key / length[:, None], channels


@triton.jit
def _unit_range(values, out, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Bring one row to 0..1; what is not finite becomes NaN and has no part in the range."""
    row = tl.program_id(0).to(tl.int64) * count
    least = tl.full((BLOCK,), float("inf"), tl.float32)
    most = tl.full((BLOCK,), float("-inf"), tl.float32)
    for start in range(0, count, BLOCK):
        places = start + tl.arange(0, BLOCK)
        value = tl.load(values + row + places, mask=places < count, other=float("nan"))
        finite = (value == value) & (tl.abs(value) < float("inf"))
        least = tl.minimum(least, tl.where(finite, value, float("inf")))
        most = tl.maximum(most, tl.where(finite, value, float("-inf")))
    low = tl.min(least, axis=0)
    extent = tl.maximum(tl.max(most, axis=0) - low, 1.1754943508222875e-38)
    for start in range(0, count, BLOCK):
        places = start + tl.arange(0, BLOCK)
        value = tl.load(values + row + places, mask=places < count, other=float("nan"))
        finite = (value == value) & (tl.abs(value) < float("inf"))
        share = tl.where(finite, (value - low) / extent, float("nan"))
        tl.store(out + row + places, share, mask=places < count)


@triton.jit
def _attend_camera(  # type: ignore[no-untyped-def]
    query, key, value, place, held, keys, values, weights, out,
    room, scale, keys_head, values_head,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Put one head's token into its place, then attend over the places that are taken."""
    head = tl.program_id(0).to(tl.int64)
    channels = tl.arange(0, triton.next_power_of_2(CHANNELS))
    known = channels < CHANNELS
    own = head * CHANNELS + channels
    asking = tl.load(query + own, mask=known, other=0.0).to(tl.float32)
    new_key = tl.load(key + own, mask=known, other=0.0)
    new_value = tl.load(value + own, mask=known, other=0.0)
    target, taken = tl.load(place), tl.load(held)
    tl.store(keys + head * keys_head + target * CHANNELS + channels, new_key, mask=known)
    tl.store(values + head * values_head + target * CHANNELS + channels, new_value, mask=known)

    highest = tl.full((1,), float("-inf"), tl.float32)
    for start in range(0, room, BLOCK):
        logit = _logits(
            keys + head * keys_head, asking, new_key, start, target, taken, room, scale, CHANNELS,
            BLOCK,
        )  # fmt: skip
        highest = tl.maximum(highest, tl.max(logit, axis=0))
        places = start + tl.arange(0, BLOCK)
        tl.store(weights + head * room + places, logit, mask=places < room)
    tl.debug_barrier()
    total = tl.zeros((1,), tl.float32)
    mixed = tl.zeros((triton.next_power_of_2(CHANNELS),), tl.float32)
    for start in range(0, room, BLOCK):
        places = start + tl.arange(0, BLOCK)
        inside = places < room
        logit = tl.load(weights + head * room + places, mask=inside, other=float("-inf"))
        weight = tl.exp(logit - highest)
        total += tl.sum(weight, axis=0)
        where = values + head * values_head + places[:, None] * CHANNELS + channels[None, :]
        came = tl.load(where, mask=inside[:, None] & known[None, :], other=0.0)
        came = tl.where((places == target)[:, None], new_value[None, :], came).to(tl.float32)
        mixed += tl.sum(weight[:, None] * came, axis=0)
        tl.store(weights + head * room + places, weight, mask=inside)
    tl.debug_barrier()
    for start in range(0, room, BLOCK):
        places = start + tl.arange(0, BLOCK)
        weight = tl.load(weights + head * room + places, mask=places < room, other=0.0)
        tl.store(weights + head * room + places, weight / total, mask=places < room)
    tl.store(out + own, (mixed / total).to(out.dtype.element_ty), mask=known)


@triton.jit
def _logits(  # type: ignore[no-untyped-def]
    keys, asking, new_key, start, target, taken, room, scale,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Return a head's logits of one block of places; those not taken yet are out of reach."""
    places = start + tl.arange(0, BLOCK)
    channels = tl.arange(0, triton.next_power_of_2(CHANNELS))
    inside = (places < room)[:, None] & (channels < CHANNELS)[None, :]
    came = tl.load(keys + places[:, None] * CHANNELS + channels[None, :], mask=inside, other=0.0)
    # The token that has just come may not be seen by all threads yet.
    came = tl.where((places == target)[:, None], new_key[None, :], came).to(tl.float32)
    logit = tl.sum(came * asking[None, :], axis=1) * scale
    return tl.where(places < taken, logit, float("-inf"))


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


_TOKENS = 64
"""Tokens that one program handles at a time."""
_PARTS = 32
"""Programs that add up the directions of one head; a power of two."""


def key_similarity(keys: Tensor, anchor: int) -> Tensor:
    """Launch kernels for the mean direction of keys [lanes, tokens, channels] and for products."""
    heads, tokens, channels = keys.shape
    left_out = anchor if anchor < tokens else 0
    sums = torch.empty(heads, _PARTS, channels, dtype=torch.float32, device=keys.device)
    out = torch.empty(heads, tokens, dtype=torch.float32, device=keys.device)
    run = triton.cdiv(triton.cdiv(tokens, _PARTS), _TOKENS) * _TOKENS
    _sum_directions[_PARTS, heads](
        keys, sums, tokens, left_out, run, keys.stride(0), channels, _PARTS, _TOKENS
    )
    _similarities[triton.cdiv(tokens, _TOKENS), heads](
        keys, sums, out, tokens, tokens - left_out, keys.stride(0), channels, _PARTS, _TOKENS
    )
    return out


def unit_range(values: Tensor) -> Tensor:
    """Launch one program for each row of values [rows, count]."""
    rows, count = values.shape
    values = values.contiguous()
    out = torch.empty_like(values)
    _unit_range[(rows,)](values, out, count, 1024)
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
    """Launch one program for each head of keys [heads, room, head_dim]; see `ops.py`."""
    heads, room, channels = keys.shape
    weights = torch.empty(heads, room, dtype=torch.float32, device=keys.device)
    out = torch.empty(query.shape, dtype=value.dtype, device=keys.device)
    _attend_camera[(heads,)](
        query.contiguous(), key.contiguous(), value.contiguous(), place, held, keys, values,
        weights, out, room, channels**-0.5, keys.stride(0), values.stride(0), channels,
        min(256, triton.next_power_of_2(room)), num_warps=8,
    )  # fmt: skip
    torch.mean(weights, dim=0, out=attention)
    return out
