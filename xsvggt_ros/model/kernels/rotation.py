# SPDX-License-Identifier: Apache-2.0
"""Queries and keys normalised and rotated, values brought together: one pass over a projection."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


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


def normalize_and_rotate(
    packed: Tensor,
    heads: int,
    query_weight: Tensor,
    query_bias: Tensor,
    key_weight: Tensor,
    key_bias: Tensor,
    eps: float,
    cos: Tensor,
    sin: Tensor,
    neighbours: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of ``packed``; see `model/operators.py`."""
    batch, tokens, width = packed.shape
    channels = width // 3 // heads
    query = packed.new_empty(batch, tokens, heads, channels).transpose(1, 2)
    key, value = packed.new_empty(2, batch, heads, tokens, channels).unbind()
    _normalize_and_rotate[(batch * tokens, 3)](
        packed.contiguous(), query, key, value,
        query_weight, query_bias, key_weight, key_bias, cos, sin,
        tokens, cos.shape[0], heads, eps,
        QUARTER=channels // 4,
        HEADS=triton.next_power_of_2(heads),
        HALF=triton.next_power_of_2(channels // 2),
        NEIGHBOURS=neighbours,
        num_warps=4,
    )  # fmt: skip
    return query, key, value
