# SPDX-License-Identifier: Apache-2.0
"""Attention of a frame over itself: too small a problem for kernels made for long sequences."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional

_LOG2_E = 1.4426950408889634


@triton.jit
def _attend(  # type: ignore[no-untyped-def]
    query, key, value, out, heads, tokens, scale,
    query_batch, query_head, query_token, key_batch, key_head, key_token,
    value_batch, value_head, value_token, out_batch, out_head, out_token,
    CHANNELS: tl.constexpr, WIDE: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Attend with ``QUERIES`` queries of one head of one frame over all its tokens."""
    batch = (tl.program_id(1) // heads).to(tl.int64)
    head = (tl.program_id(1) % heads).to(tl.int64)
    row = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    channel = tl.arange(0, WIDE)
    known = channel < CHANNELS
    asked = (row < tokens)[:, None] & known[None, :]
    own = query + batch * query_batch + head * query_head
    asking = tl.load(own + row[:, None] * query_token + channel[None, :], mask=asked, other=0.0)
    keys = key + batch * key_batch + head * key_head
    values = value + batch * value_batch + head * value_head
    most = tl.full((QUERIES,), float("-inf"), tl.float32)
    weight = tl.zeros((QUERIES,), tl.float32)
    mixed = tl.zeros((QUERIES, WIDE), tl.float32)
    for start in range(0, tokens, KEYS):
        place = start + tl.arange(0, KEYS)
        inside = (place < tokens)[:, None] & known[None, :]
        here = place[:, None] * key_token + channel[None, :]
        one = tl.load(keys + here, mask=inside, other=0.0)
        logit = tl.dot(asking, tl.trans(one)) * scale
        logit = tl.where((place < tokens)[None, :], logit, float("-inf"))
        higher = tl.maximum(most, tl.max(logit, axis=1))
        fading = tl.exp2(most - higher)
        share = tl.exp2(logit - higher[:, None])
        there = place[:, None] * value_token + channel[None, :]
        other = tl.load(values + there, mask=inside, other=0.0)
        mixed = mixed * fading[:, None] + tl.dot(share.to(other.dtype), other)
        weight = weight * fading + tl.sum(share, axis=1)
        most = higher
    result = (mixed / weight[:, None]).to(out.dtype.element_ty)
    target = out + batch * out_batch + head * out_head
    tl.store(target + row[:, None] * out_token + channel[None, :], result, mask=asked)


def attend_within(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend over the given tokens alone, [batch, heads, tokens, head_dim] each.

    What comes out lies token by token, as it is read next.
    """
    batch, heads, tokens, channels = query.shape
    out = query.new_empty(batch, tokens, heads, channels).transpose(1, 2)
    queries = 64
    _attend[triton.cdiv(tokens, queries), batch * heads](
        query, key, value, out, heads, tokens, channels**-0.5 * _LOG2_E,
        *query.stride()[:3], *key.stride()[:3], *value.stride()[:3], *out.stride()[:3],
        CHANNELS=channels, WIDE=max(16, triton.next_power_of_2(channels)),
        QUERIES=queries, KEYS=64, num_warps=4, num_stages=3,
    )  # fmt: skip
    return out


def is_faster(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Return whether this kernel is faster than PyTorch's own for tensors like these."""

    def milliseconds(attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> float:
        # In a graph, since launching takes longer than either.
        run = partial(attend, query, key, value)
        return float(triton.testing.do_bench_cudagraph(run, rep=4, return_mode="median"))

    return milliseconds(attend_within) < milliseconds(functional.scaled_dot_product_attention)
