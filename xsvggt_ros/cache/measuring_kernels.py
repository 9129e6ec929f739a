# SPDX-License-Identifier: Apache-2.0
"""Launches in Triton: policies' measures, and the camera head's memory."""

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
def _pool_queries(  # type: ignore[no-untyped-def]
    query, weights, sums, frame, heads, run, query_head, query_token,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add up one run of queries of all heads, each by its weight."""
    part = tl.program_id(0)
    channels = tl.arange(0, triton.next_power_of_2(CHANNELS))
    total = tl.zeros((triton.next_power_of_2(CHANNELS),), tl.float32)
    for start in range(0, run, BLOCK):
        places = part * run + start + tl.arange(0, BLOCK)
        counted = (places < frame) & (places < (part + 1) * run)
        weight = tl.load(weights + places, mask=counted, other=0.0)
        taken = counted[:, None] & (channels < CHANNELS)[None, :]
        summed = tl.zeros((BLOCK, triton.next_power_of_2(CHANNELS)), tl.float32)
        for head in range(heads):
            where = query + head * query_head + places[:, None] * query_token + channels[None, :]
            summed += tl.load(where, mask=taken, other=0.0).to(tl.float32)
        total += tl.sum(summed * weight[:, None], axis=0)
    tl.store(sums + part * CHANNELS + channels, total / heads, mask=channels < CHANNELS)


@triton.jit
def _query_products(  # type: ignore[no-untyped-def]
    keys, sums, out, tokens, heads, keys_head, keys_token,
    CHANNELS: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Multiply one block of keys, the mean over heads, with the sum of the pooled queries."""
    places = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channels = tl.arange(0, triton.next_power_of_2(CHANNELS))
    known = channels < CHANNELS
    taken = (places < tokens)[:, None] & known[None, :]
    where = keys + places.to(tl.int64)[:, None] * keys_token + channels[None, :]
    summed = tl.zeros((BLOCK, triton.next_power_of_2(CHANNELS)), tl.float32)
    for _head in range(heads):
        summed += tl.load(where, mask=taken, other=0.0).to(tl.float32)
        where += keys_head
    parts = tl.arange(0, PARTS)[:, None]
    pooled = tl.sum(tl.load(sums + parts * CHANNELS + channels, mask=known[None, :], other=0.0), 0)
    product = tl.sum(summed / heads * pooled[None, :], axis=1)
    tl.store(out + places, product, mask=places < tokens)


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
def _move_camera_tokens(  # type: ignore[no-untyped-def]
    keys, values, numbers, drawn, attention, counted, occupied, room, heads, fading,
    ANCHORS: tl.constexpr, RECENT: tl.constexpr, MERITED: tl.constexpr, CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr, HEADS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Make room in one cache, and note what its tokens drew."""
    cache = tl.program_id(0).to(tl.int64)
    count, held = tl.load(counted), tl.load(occupied)
    slot = tl.arange(0, BLOCK)
    inside = slot <= room
    share = tl.zeros((BLOCK,), tl.float32)
    for head in range(heads):
        row = attention + (cache * heads + head) * (room + 1)
        share += tl.load(row + slot, mask=inside, other=0.0)
    mean = tl.load(drawn + cache * (room + 1) + slot, mask=inside, other=0.0)
    mean += fading * (share / heads * held - mean)
    full = count >= room
    place = tl.where(full, (count - room) % RECENT + room - RECENT, count)
    if MERITED:
        own = tl.sum(tl.where(slot == place, mean, 0.0), axis=0)
        candidate = (slot >= ANCHORS) & (slot < room - RECENT)
        merit = tl.where(candidate, mean, float("inf"))
        least, loser = tl.min(merit, axis=0, return_indices=True)
        target = tl.where(full & (own > least), loser.to(tl.int64), place)
        mean = tl.where(slot == target, own, mean)
        number = tl.load(numbers + cache * (room + 1) + place)
        tl.store(numbers + cache * (room + 1) + target, number)
        head = tl.arange(0, HEADS)[:, None]
        channel = tl.arange(0, WIDTH)[None, :]
        known = (head < heads) & (channel < CHANNELS)
        lane = (cache * heads + head) * (room + 1)
        source = (lane + place) * CHANNELS + channel
        where = (lane + target) * CHANNELS + channel
        tl.store(keys + where, tl.load(keys + source, mask=known), mask=known)
        tl.store(values + where, tl.load(values + source, mask=known), mask=known)
        tl.debug_barrier()
    tl.store(numbers + cache * (room + 1) + place, count)
    mean = tl.where(slot == place, 0.0, mean)
    tl.store(drawn + cache * (room + 1) + slot, mean, mask=inside)


@triton.jit
def _count_camera_token(  # type: ignore[no-untyped-def]
    counted, placed, occupied, room, RECENT: tl.constexpr
):  # fmt: skip
    """Say where the next tokens go, and count them."""
    count = tl.load(counted)
    place = tl.where(count >= room, (count - room) % RECENT + room - RECENT, count)
    tl.store(placed, place)
    tl.store(counted, count + 1)
    tl.store(occupied, tl.minimum(count + 1, room))


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
    out = torch.empty(query.shape, dtype=value.dtype, device=keys.device)
    _attend_camera[(heads,)](
        query.contiguous(), key.contiguous(), value.contiguous(), place, held, keys, values,
        attention, out, room, channels**-0.5, keys.stride(0), values.stride(0), channels,
        min(256, triton.next_power_of_2(room)), num_warps=8,
    )  # fmt: skip
    return out


def find_camera_place(
    keys: Tensor,
    values: Tensor,
    numbers: Tensor,
    drawn: Tensor,
    attention: Tensor,
    count: Tensor,
    place: Tensor,
    held: Tensor,
    anchors: int,
    recent: int,
    fading: float,
) -> None:
    """Launch one program for each cache of keys [caches, heads, room + 1, head_dim]; see `ops.py`.

    Then another one for the counters, which all of these read.
    """
    caches, heads, places, channels = keys.shape
    room = places - 1
    _move_camera_tokens[(caches,)](
        keys, values, numbers, drawn, attention, count, held, room, heads, fading,
        anchors, recent, room > anchors + recent, channels, triton.next_power_of_2(channels),
        triton.next_power_of_2(heads), triton.next_power_of_2(places),
    )  # fmt: skip
    _count_camera_token[(1,)](count, place, held, room, recent, num_warps=1)


_POOLED = 64
"""Programs that pool the queries of a frame; a power of two."""


def query_products(query: Tensor, keys: Tensor, weights: Tensor) -> Tensor:
    """Launch kernels for the pooled query of [heads, frame, channels], and for the products."""
    heads, frame, channels = query.shape
    tokens = keys.shape[1]
    sums = torch.empty(_POOLED, channels, dtype=torch.float32, device=keys.device)
    out = torch.empty(tokens, dtype=torch.float32, device=keys.device)
    _pool_queries[(_POOLED,)](
        query, weights, sums, frame, heads, triton.cdiv(frame, _POOLED),
        query.stride(0), query.stride(1), channels, 16,
    )  # fmt: skip
    _query_products[(triton.cdiv(tokens, _TOKENS),)](
        keys, sums, out, tokens, heads, keys.stride(0), keys.stride(1), channels, _POOLED, _TOKENS
    )
    return out
