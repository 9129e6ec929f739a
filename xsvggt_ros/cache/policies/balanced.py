# SPDX-License-Identifier: Apache-2.0
"""``balanced``: young tokens, and those of the old that say most."""

from __future__ import annotations

import torch
from torch import Tensor

from xsvggt_ros.cache.policies.base import Candidates
from xsvggt_ros.cache.policies.ffn_residual import FfnResidual

HALF_LIFE = 4.0
"""Frames after which youth counts half as much."""


class Balanced(FfnResidual):
    """Youth from 1 for the newest token downwards, beside the 0..1 of ``ffn_residual``.

    What a camera sees next is mostly what it has just seen, and the newest tokens tell it where it
    is; what is unlike them is worth keeping for when it comes back. Budgets are often split so
    between a window and chosen tokens (STAC, H2O); here both are one score, so that no share has to
    be set for any budget. Youth halves every four frames: a token that is old lives by the other
    part alone.
    """

    def scores(self, candidates: Candidates) -> Tensor:
        """Return youth plus residual part plus diversity part, in 0..2."""
        # Ages are modulo 2^32, so that those of the very oldest are negative.
        frames = candidates.ages.float().abs() / candidates.frame
        return super().scores(candidates) + torch.exp2(-frames / HALF_LIFE)
