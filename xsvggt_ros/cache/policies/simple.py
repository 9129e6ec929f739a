# SPDX-License-Identifier: Apache-2.0
"""The policies that every other one is compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from xsvggt_ros.cache.policies.base import Candidates, Forgetful


class KeepAll(Forgetful):
    """``none``: all tokens are worth the same, and none is ever dropped, as in StreamVGGT."""

    def scores(self, candidates: Candidates) -> Tensor:
        """Return zeros."""
        return torch.zeros(candidates.ages.shape, device=candidates.ages.device)


class Recency(Forgetful):
    """``sliding_window``: the newest tokens stay, beside the anchor."""

    def scores(self, candidates: Candidates) -> Tensor:
        """Return how young each token is."""
        return -candidates.ages.float()


class Random(Forgetful):
    """``random``: each token is worth something else after each frame; seeded."""

    def __init__(self, seed: int) -> None:
        """Draw by ``seed``."""
        self._seed = seed
        self._generator: torch.Generator | None = None

    def clear(self) -> None:
        """Draw the same numbers again."""
        self._generator = None

    def scores(self, candidates: Candidates) -> Tensor:
        """Return uniform numbers in [0, 1)."""
        device = candidates.ages.device
        if self._generator is None:
            self._generator = torch.Generator(device).manual_seed(self._seed)
        return torch.rand(candidates.ages.shape, generator=self._generator, device=device)
