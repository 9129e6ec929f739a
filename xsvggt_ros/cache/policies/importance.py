# SPDX-License-Identifier: Apache-2.0
"""``xstreamvggt``: how much the newest frame asks for each token (XStreamVGGT, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from xsvggt_ros.cache.policies.base import Candidates, Forgetful, LayerView


def pooled_query(query: Tensor, special: int, pool_size: int) -> Tensor:
    """Summarise queries [..., tokens, channels] as one vector, float32 [..., channels].

    Special tokens count as they are, patches after averaging runs of ``pool_size`` in raster
    order, a shorter last run included. The score is linear in the query, so the mean over the
    pooled queries may be taken here, once, instead of per key.

    Args:
        query: [..., tokens, channels].
        special: tokens that stand in front.
        pool_size: patches that are averaged.

    """
    query = query.float()
    patches = query[..., special:, :]
    if patches.shape[-2] <= 1:
        return query.mean(dim=-2)
    whole = patches.shape[-2] // pool_size * pool_size
    total = query[..., :special, :].sum(dim=-2) + patches[..., :whole, :].sum(dim=-2) / pool_size
    runs = special + whole // pool_size
    if whole < patches.shape[-2]:
        total = total + patches[..., whole:, :].mean(dim=-2)
        runs += 1
    return total / runs


def pooling_weights(frame: int, special: int, pool_size: int, device: torch.device) -> Tensor:
    """Return the weight of each query in :func:`pooled_query`, float32 [frame].

    Args:
        frame: tokens of a frame.
        special: tokens that stand in front.
        pool_size: patches that are averaged.
        device: of the result.

    """
    return pooled_query(torch.eye(frame, device=device)[..., None], special, pool_size)[..., 0]


def importance(query: Tensor, keys: Tensor, special: int, pool_size: int) -> Tensor:
    """Score each key by its product with the pooled query, both averaged over heads.

    No softmax, no 1/sqrt(d): only the order matters.

    Args:
        query: [heads, frame, channels].
        keys: [heads, tokens, channels].
        special: special tokens in front of the queries.
        pool_size: patches per run.

    Returns:
        float32 [tokens].

    """
    return keys.float().mean(dim=0) @ pooled_query(query.float().mean(dim=0), special, pool_size)


class Importance(Forgetful):
    """The paper's score; with a set per head, each head asks for itself."""

    def __init__(self, pool_size: int) -> None:
        """Average runs of ``pool_size`` patch queries."""
        self._pool_size = pool_size
        self._weights: dict[tuple[int, int], Tensor] = {}

    def measure(self, layer: LayerView) -> Tensor:
        """Return the products of keys and pooled query."""
        query, keys = layer.query, layer.keys
        if layer.sets == 1:
            query = query.mean(dim=0, keepdim=True, dtype=torch.float32)
            keys = keys.mean(dim=0, keepdim=True, dtype=torch.float32)
        weights = self._pooling(query.shape[1], layer.special, query.device)
        pooled = weights @ query.float()
        return (keys.float() @ pooled[..., None]).squeeze(-1)

    def scores(self, candidates: Candidates) -> Tensor:
        """Return the products."""
        assert candidates.measures is not None
        return candidates.measures

    def _pooling(self, frame: int, special: int, device: torch.device) -> Tensor:
        """Return :func:`pooling_weights`, kept for each size of frame."""
        size = frame, special
        if size not in self._weights:
            self._weights[size] = pooling_weights(frame, special, self._pool_size, device)
        return self._weights[size]
