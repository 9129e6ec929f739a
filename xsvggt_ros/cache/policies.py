# SPDX-License-Identifier: Apache-2.0
"""The policies: each maps what a layer holds to what it keeps.

A policy is a function of one call, so that the packed cache can use the very same ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from xsvggt_ros.cache.candidates import Candidates, Kept, Policy
from xsvggt_ros.cache.importance import importance
from xsvggt_ros.cache.published import published_policy
from xsvggt_ros.cache.selection import select
from xsvggt_ros.cache.settings import CacheSettings


def policy_for(settings: CacheSettings) -> Policy:
    """Return the policy that ``settings`` name."""
    if settings.policy == "none":
        return keep_everything
    if settings.published:
        return published_policy(settings)
    score = _SCORES[settings.policy]

    def policy(candidates: Candidates) -> Kept | None:
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
