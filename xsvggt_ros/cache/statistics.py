# SPDX-License-Identifier: Apache-2.0
"""What a cache says of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """State of the cache after a frame.

    Attributes:
        policy: name of the policy that chooses what stays.
        budget_tokens: most tokens a layer may hold after a frame, the mean over layers where
            these have budgets of their own; 0 = unbounded.
        tokens: tokens held by the fullest layer.
        key_bits: storage width of history's keys; 16 = unquantized.
        value_bits: storage width of history's values; 16 = unquantized.
        nbytes: bytes allocated for keys, values, scales, minima and indices of all layers.
        scratch_nbytes: bytes allocated, once for all layers, to decode one layer in.
        camera_nbytes: bytes allocated for the camera head's memory, in addition.
        uncompressed_nbytes: bytes that every token of the session so far would take in the
            network's own precision.
        evicted: tokens dropped after this frame, summed over layers.
        evicted_total: the same since the session began.
        layer_tokens: tokens held by each layer.

    """

    policy: str
    budget_tokens: int
    tokens: int
    key_bits: int
    value_bits: int
    nbytes: int
    scratch_nbytes: int
    camera_nbytes: int
    uncompressed_nbytes: int
    evicted: int
    evicted_total: int
    layer_tokens: tuple[int, ...]
