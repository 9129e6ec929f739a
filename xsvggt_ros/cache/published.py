# SPDX-License-Identifier: Apache-2.0
"""The selection of the released XStreamVGGT code, kept as the baseline of every comparison.

It differs from ours on purpose: it overshoots a budget smaller than two frames, takes the first
and the newest frame to be of one size, and its sliding window loses the first frame.
"""

from __future__ import annotations

import torch

from xsvggt_ros.cache.candidates import Candidates, Kept, Policy
from xsvggt_ros.cache.importance import importance
from xsvggt_ros.cache.selection import Spans
from xsvggt_ros.cache.settings import CacheSettings


def published_policy(settings: CacheSettings) -> Policy:
    """Return the released code's counterpart of ``settings.policy``."""
    return {"xstreamvggt": _prune, "sliding_window": _slide}[settings.policy](settings)


def _prune(settings: CacheSettings) -> Policy:
    def policy(candidates: Candidates) -> Kept | None:
        frame = candidates.query.shape[2]
        total = candidates.keys.shape[2]
        if total <= max(settings.budget_tokens, 2 * frame):
            return None
        history = candidates.keys[:, :, frame : total - frame]
        keep = max(0, settings.budget_tokens - 2 * frame)
        scores = importance(candidates.query, history, candidates.special, settings.pool_size)
        chosen = scores.topk(keep, sorted=False).indices.sort().values + frame
        device = scores.device
        indices = torch.cat(
            [
                torch.arange(frame, device=device),
                chosen,
                torch.arange(total - frame, total, device=device),
            ]
        )
        return indices, Spans(frame, keep, frame)

    return policy


def _slide(settings: CacheSettings) -> Policy:
    def policy(candidates: Candidates) -> Kept | None:
        total = candidates.keys.shape[2]
        budget = settings.budget_tokens
        if total <= budget:
            return None
        window = min(candidates.query.shape[2], budget)
        indices = torch.arange(total - budget, total, device=candidates.keys.device)
        return indices, Spans(0, budget - window, window)

    return policy
