# SPDX-License-Identifier: Apache-2.0
"""What a token is worth: one file for each kind of policy.

A policy gives scores and nothing else. What is kept under the budget, and where, is decided in one
place for all of them (`layer_segments.py`, `segment.py`). None needs an attention map of the
whole frame, so FlashAttention stays usable.
"""

from __future__ import annotations

from collections.abc import Callable

from xsvggt_ros.cache.policies.base import Policy
from xsvggt_ros.cache.policies.ffn_residual import Balanced, FfnResidual
from xsvggt_ros.cache.policies.importance import Importance
from xsvggt_ros.cache.policies.key_diversity import KeyDiversity
from xsvggt_ros.cache.policies.simple import KeepAll, Random, Recency
from xsvggt_ros.cache.policies.value_aware import ValueAware
from xsvggt_ros.cache.settings import CacheSettings


def policy_for(settings: CacheSettings) -> Policy:
    """Return the policy that ``settings`` name."""
    policies: dict[str, Callable[[], Policy]] = {
        "none": KeepAll,
        "sliding_window": Recency,
        "random": lambda: Random(settings.seed),
        "lingbot": Recency,
        "xstreamvggt": lambda: Importance(settings.pool_size),
        "balanced": Balanced,
        "ffn_residual": FfnResidual,
        "value_aware": ValueAware,
        "key_diversity": KeyDiversity,
    }
    return policies[settings.policy]()
