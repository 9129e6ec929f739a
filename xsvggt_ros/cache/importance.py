# SPDX-License-Identifier: Apache-2.0
"""How much the newest frame cares for each cached token (XStreamVGGT, pooled queries)."""

from __future__ import annotations

from torch import Tensor


def pooled_query(query: Tensor, special: int, pool_size: int) -> Tensor:
    """Summarise a frame's queries as one vector, float32 [head_dim].

    Special tokens count as they are, patches after averaging runs of ``pool_size`` in raster
    order, a shorter last run included. Heads are averaged too; the score is linear in the query,
    so the mean over the pooled queries may be taken here, once, instead of per key.

    Args:
        query: [1, heads, tokens, head_dim], normalised and rotated.
        special: number of special tokens in front.
        pool_size: patches per run.

    """
    by_token = query[0].float().mean(dim=0)
    patches = by_token[special:]
    if patches.shape[0] <= 1:
        return by_token.mean(dim=0)
    whole = patches.shape[0] // pool_size * pool_size
    total = by_token[:special].sum(dim=0) + patches[:whole].sum(dim=0) / pool_size
    runs = special + whole // pool_size
    if whole < patches.shape[0]:
        total = total + patches[whole:].mean(dim=0)
        runs += 1
    return total / runs


def importance(query: Tensor, keys: Tensor, special: int, pool_size: int) -> Tensor:
    """Score each key by its product with the pooled query, float32 [tokens].

    No softmax, no 1/sqrt(d): only the order matters. No attention map either, so FlashAttention
    stays usable.
    """
    return keys[0].float().mean(dim=0) @ pooled_query(query, special, pool_size)
