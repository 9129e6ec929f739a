# SPDX-License-Identifier: Apache-2.0
"""Launches in Triton: policies' measures, and the camera head's memory."""

from inspect import unwrap

import torch
import triton
import triton.language as tl
from torch import Tensor

from xsvggt_ros.cache import ops
from xsvggt_ros.cuda.early_start import (
    can_start_early,
    launch_options,
    start_next,
    wait_for_previous,
)

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
    query, weights, sums, frame, heads, query_head, query_token,
    CHANNELS: tl.constexpr, HEADS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add up one block of queries of all heads, each by its weight; then the mean over heads."""
    places = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channels = tl.arange(0, triton.next_power_of_2(CHANNELS))
    queries = _of_all_heads(query, places, frame, heads, query_head, query_token, CHANNELS, HEADS)
    weight = tl.load(weights + places, mask=places < frame, other=0.0)
    total = tl.sum(tl.sum(queries, axis=1) * weight[:, None], axis=0) / heads
    tl.store(sums + tl.program_id(0) * CHANNELS + channels, total, mask=channels < CHANNELS)


@triton.jit
def _query_products(  # type: ignore[no-untyped-def]
    keys, sums, out, tokens, heads, blocks, keys_head, keys_token,
    CHANNELS: tl.constexpr, HEADS: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Multiply one block of keys, the mean over heads, with the sum of the pooled queries."""
    places = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    channels = tl.arange(0, triton.next_power_of_2(CHANNELS))[None, :]
    key = _of_all_heads(keys, places, tokens, heads, keys_head, keys_token, CHANNELS, HEADS)
    part = tl.arange(0, PARTS)[:, None]
    known = (part < blocks) & (channels < CHANNELS)
    pooled = tl.sum(tl.load(sums + part * CHANNELS + channels, mask=known, other=0.0), axis=0)
    product = tl.sum(tl.sum(key, axis=1) / heads * pooled[None, :], axis=1)
    tl.store(out + places, product, mask=places < tokens)


@triton.jit
def _of_all_heads(  # type: ignore[no-untyped-def]
    source, places, count, heads, head_step, token_step, CHANNELS: tl.constexpr, HEADS: tl.constexpr
):
    """Load some tokens of all heads, float32 [places, heads, channels]."""
    place = places.to(tl.int64)[:, None, None]
    head = tl.arange(0, HEADS)[None, :, None]
    channel = tl.arange(0, triton.next_power_of_2(CHANNELS))[None, None, :]
    taken = (place < count) & (head < heads) & (channel < CHANNELS)
    where = source + head * head_step + place * token_step + channel
    return tl.load(where, mask=taken, other=0.0).to(tl.float32)


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
    CHANNELS: tl.constexpr, PLACES: tl.constexpr, BLOCK: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """Attend with one head over the places that are taken; mix ``BLOCK`` channels of the values.

    The token that has come is put into its place. All programs of a head compute the same weights,
    which takes less time than to tell each other.
    """
    if AHEAD:
        start_next()
        wait_for_previous()
    head = tl.program_id(0).to(tl.int64)
    slot = tl.arange(0, PLACES)
    target, taken = tl.load(place), tl.load(held)
    logit = tl.zeros((PLACES,), tl.float32)
    for start in tl.static_range(0, CHANNELS, BLOCK):
        came = _with_newest(
            keys + head * keys_head, key + head * CHANNELS, slot, target, taken, start,
            CHANNELS, BLOCK,
        )  # fmt: skip
        channel = start + tl.arange(0, BLOCK)
        asking = tl.load(query + head * CHANNELS + channel, mask=channel < CHANNELS, other=0.0)
        logit += tl.sum(came * asking.to(tl.float32)[None, :], axis=1)
    start = tl.program_id(1) * BLOCK
    came = _with_newest(
        values + head * values_head, value + head * CHANNELS, slot, target, taken, start,
        CHANNELS, BLOCK,
    )  # fmt: skip
    logit = tl.where(slot < taken, logit * scale, float("-inf"))
    weight = tl.exp(logit - tl.max(logit, axis=0))
    weight = weight / tl.sum(weight, axis=0)
    mixed = tl.sum(came * weight[:, None], axis=0).to(out.dtype.element_ty)
    channel = start + tl.arange(0, BLOCK)
    tl.store(out + head * CHANNELS + channel, mixed, mask=channel < CHANNELS)
    first = (slot < room) & (start == 0)
    tl.store(weights + head * room + slot, weight, mask=first)


@triton.jit
def _with_newest(  # type: ignore[no-untyped-def]
    held, newest, slot, target, taken, start, CHANNELS: tl.constexpr, BLOCK: tl.constexpr
):
    """Return some channels of one head's tokens, float32 [places, channels]; store the newest."""
    channel = start + tl.arange(0, BLOCK)
    known = channel < CHANNELS
    new = tl.load(newest + channel, mask=known, other=0.0)
    inside = (slot < taken)[:, None] & known[None, :]
    came = tl.load(held + slot[:, None] * CHANNELS + channel[None, :], mask=inside, other=0.0)
    # Others of this program may not see yet what is stored here.
    tl.store(held + target * CHANNELS + channel, new, mask=known)
    return tl.where((slot == target)[:, None], new[None, :], came).to(tl.float32)


_TOKENS = 64
"""Tokens that one program handles at a time."""
_MOST_PLACES = 2048
"""Camera tokens that one program can look at."""
_BLOCK = 32
"""Channels that it mixes at most."""
_AT_ONCE = 2**14
"""Numbers of camera tokens that it holds at most; more than registers take lie in memory."""
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
    if room > _MOST_PLACES:
        found: Tensor = unwrap(ops.attend_camera)(
            query, key, value, place, held, keys, values, attention
        )
        return found
    out = torch.empty(query.shape, dtype=value.dtype, device=keys.device)
    places = triton.next_power_of_2(room)
    block = min(_BLOCK, triton.next_power_of_2(channels), _AT_ONCE // places)
    ahead = can_start_early(keys.device)
    _attend_camera[heads, triton.cdiv(channels, block)](
        query.contiguous(), key.contiguous(), value.contiguous(), place, held, keys, values,
        attention, out, room, channels**-0.5, keys.stride(0), values.stride(0), channels,
        places, block, ahead, num_warps=8, **launch_options(ahead),
    )  # fmt: skip
    return out


def find_camera_place(given: ops.CameraPlaces) -> None:
    """Launch one program for each cache, then one for the counters, which all of these read.

    See ``find_camera_place`` in `ops.py`.
    """
    keys, values, numbers, drawn, attention, count, place, held, anchors, recent, fading = given
    caches, heads, places, channels = keys.shape
    room = places - 1
    if room > _MOST_PLACES:
        unwrap(ops.find_camera_place)(given)
        return
    _move_camera_tokens[(caches,)](
        keys, values, numbers, drawn, attention, count, held, room, heads, fading,
        anchors, recent, room > anchors + recent, channels, triton.next_power_of_2(channels),
        triton.next_power_of_2(heads), triton.next_power_of_2(places),
    )  # fmt: skip
    _count_camera_token[(1,)](count, place, held, room, recent, num_warps=1)


_POOLED = 16
"""Tokens of all heads that one program handles at a time."""


def query_products(query: Tensor, keys: Tensor, weights: Tensor) -> Tensor:
    """Launch kernels for the pooled query of [heads, frame, channels], and for the products."""
    heads, frame, channels = query.shape
    tokens, height = keys.shape[1], triton.next_power_of_2(heads)
    blocks = triton.cdiv(frame, _POOLED)
    sums = torch.empty(blocks, channels, dtype=torch.float32, device=keys.device)
    out = torch.empty(tokens, dtype=torch.float32, device=keys.device)
    _pool_queries[(blocks,)](
        query, weights, sums, frame, heads, query.stride(0), query.stride(1),
        channels, height, _POOLED,
    )  # fmt: skip
    _query_products[(triton.cdiv(tokens, _POOLED),)](
        keys, sums, out, tokens, heads, blocks, keys.stride(0), keys.stride(1),
        channels, height, _POOLED, triton.next_power_of_2(blocks),
    )  # fmt: skip
    return out
