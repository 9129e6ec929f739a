# SPDX-License-Identifier: Apache-2.0
"""What a cache says of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """State of the cache after a frame.

    Attributes:
        policy: name of the policy that chooses what stays.
        budget_tokens: most tokens a layer may hold after a frame; 0 = unbounded.
        tokens: tokens held by the fullest layer.
        key_bits: storage width of keys; 16 = unquantized.
        value_bits: storage width of values; 16 = unquantized.
        nbytes: bytes allocated for keys, values, scales, minima and indices of all layers.
        camera_nbytes: bytes allocated for the camera head's memory, in addition.
        uncompressed_nbytes: bytes that every token of the session so far would take in the
            network's own precision.
        evicted: tokens dropped after this frame, summed over layers.
        evicted_total: the same since the session began.

    """

    policy: str
    budget_tokens: int
    tokens: int
    key_bits: int
    value_bits: int
    nbytes: int
    camera_nbytes: int
    uncompressed_nbytes: int
    evicted: int
    evicted_total: int
