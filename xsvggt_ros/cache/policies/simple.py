# SPDX-License-Identifier: Apache-2.0
"""The policies that every other one is compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from xsvggt_ros.cache.policies.base import Candidates, Forgetful

_MULTIPLIER = -7046029254386353131
"""2^64 over the golden ratio, as a signed number: a step that never comes near where it was."""


class KeepAll(Forgetful):
    """``none``: all tokens are worth the same, and none is ever dropped, as in StreamVGGT."""

    def scores(self, candidates: Candidates) -> Tensor:
        """Return zeros."""
        return torch.zeros(candidates.ages.shape, device=candidates.ages.device)


class Recency(Forgetful):
    """``sliding_window``: the newest tokens stay, beside the anchor.

    ``lingbot`` judges so, too; there special tokens have slots of their own (`layer_plan.py`).
    """

    def scores(self, candidates: Candidates) -> Tensor:
        """Return how young each token is."""
        return -candidates.ages.float()


class Random(Forgetful):
    """``random``: each token is worth something else after each frame; seeded.

    The numbers follow from the seed, the layer, the token and the frame alone, by a hash, so the
    device keeps no state, and a stream that begins again draws the same numbers.
    """

    def __init__(self, seed: int) -> None:
        """Draw by ``seed``."""
        self._seed = seed

    def scores(self, candidates: Candidates) -> Tensor:
        """Return uniform numbers in [0, 1)."""
        ages = candidates.ages
        rows = (
            torch.arange(len(ages), device=ages.device) + candidates.first_layer * candidates.sets
        )
        frame = _mixed(candidates.newest.long() + 1) + self._seed
        mixed = _mixed(_mixed(frame + rows)[:, None] + ages)
        return (mixed & 0xFFFFFF).float() * 2.0**-24


def _mixed(values: Tensor) -> Tensor:
    """Hash int64 ``values``: two rounds of a multiplication and a shift, modulo 2^64."""
    once = values * _MULTIPLIER
    twice = (once ^ (once >> 32)) * _MULTIPLIER
    return twice ^ (twice >> 29)
