# SPDX-License-Identifier: Apache-2.0
"""``balanced``: young tokens, and those of the old that say most."""

from __future__ import annotations

import torch
from torch import Tensor

from xsvggt_ros.cache.policies.base import Candidates
from xsvggt_ros.cache.policies.ffn_residual import FfnResidual

YOUTH_WEIGHT = 0.5
HALF_LIFE = 2
"""Frames after which youth counts half as much; both as measured (docs/cache.md)."""


class Balanced(FfnResidual):
    """Youth from 0.5 for the newest frame downwards, beside the 0..1 of ``ffn_residual``.

    What a camera sees next is mostly what it has just seen, and the newest tokens tell it where it
    is; what is unlike them is worth keeping for when it comes back. Budgets are often split so
    between a window and chosen tokens (STAC, H2O); here both are one score, and a small budget goes
    to the young, a large one to the rest. Youth halves every two frames: a token that is old lives
    by the other part alone. Frames are those of all cameras of a rig, as long as the newest one.
    """

    def scores(self, candidates: Candidates) -> Tensor:
        """Return youth plus residual part plus diversity part, in 0..1.5."""
        frames = candidates.ages // candidates.frame
        # Ages are modulo 2^32: the very oldest are negative.
        frames = frames.masked_fill_(candidates.ages < 0, torch.iinfo(torch.int32).max)
        youth = torch.exp2(frames * (-1 / HALF_LIFE))
        return super().scores(candidates).add_(youth, alpha=YOUTH_WEIGHT)
