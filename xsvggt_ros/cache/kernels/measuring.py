# SPDX-License-Identifier: Apache-2.0
"""Triton: what policies measure, and the camera head's attention."""

import triton
import triton.language as tl

_LEAST_NORM = tl.constexpr(1e-12)


@triton.jit
def sum_directions(  # type: ignore[no-untyped-def]
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
def similarities(  # type: ignore[no-untyped-def]
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
def unit_range(values, out, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
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
def attend_camera(  # type: ignore[no-untyped-def]
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
