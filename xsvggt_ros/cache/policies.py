# SPDX-License-Identifier: Apache-2.0
"""The policies: each maps what a layer holds to what it keeps.

A policy is a function of one call, so that the packed cache can use the very same ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from xsvggt_ros.cache.importance import importance
from xsvggt_ros.cache.selection import Spans, check_budget, select
from xsvggt_ros.cache.settings import CacheSettings


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a layer holds right after a frame.

    Attributes:
        query: of the newest frame, [1, heads, tokens, head_dim].
        keys: all keys of the layer, the newest frame's included, [1, heads, total, head_dim].
        spans: how these keys lie.
        special: special tokens in front of each frame.

    """

    query: Tensor
    keys: Tensor
    spans: Spans
    special: int


Kept = tuple[Tensor, Spans]
Policy = Callable[[Candidates], "Kept | None"]
"""Returns sorted indices and how they lie, or None where everything stays."""


def policy_for(settings: CacheSettings) -> Policy:
    """Return the policy that ``settings`` name."""
    if settings.policy == "none":
        return keep_everything
    if settings.published:
        from xsvggt_ros.cache.published import published_policy

        return published_policy(settings)
    score = _SCORES[settings.policy]

    def policy(candidates: Candidates) -> Kept | None:
        check_budget(settings.budget_tokens, candidates.special)
        if candidates.spans.total <= settings.budget_tokens:
            return None
        scores = score(candidates, settings)
        return select(scores, candidates.spans, settings.budget_tokens, candidates.special)

    return policy


def keep_everything(candidates: Candidates) -> Kept | None:
    """Drop nothing, as StreamVGGT does."""
    return None


def _pooled_importance(candidates: Candidates, settings: CacheSettings) -> Tensor:
    return importance(candidates.query, candidates.keys, candidates.special, settings.pool_size)


def _recency(candidates: Candidates, settings: CacheSettings) -> Tensor:
    return torch.arange(
        candidates.keys.shape[2], device=candidates.keys.device, dtype=torch.float32
    )


_SCORES: dict[str, Callable[[Candidates, CacheSettings], Tensor]] = {
    "xstreamvggt": _pooled_importance,
    "sliding_window": _recency,
}
