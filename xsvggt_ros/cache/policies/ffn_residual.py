# SPDX-License-Identifier: Apache-2.0
"""``ffn_residual``: tokens that the network had much to say about (OVGGT, arXiv 2603.05959).

``balanced`` is the same with a bonus for young tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xsvggt_ros.cache.ops import key_similarity, unit_range
from xsvggt_ros.cache.policies.base import Candidates, LayerView

RESIDUAL_WEIGHT = 0.5


class FfnResidual:
    """Half how strongly the block's MLP changed the token, half how unlike others it is.

    OVGGT scores the tokens of the newest frame by the norm of what the MLP of a global block adds
    to them, and older tokens by the diversity of their keys, each brought to 0..1 and weighted by
    half. It decides about the newest frame before it is cached; here a frame is first cached as a
    whole, so the norm is remembered with each token, and a token is worth the sum of both parts.
    OVGGT also smooths the norms over the image, which is left out: a cache knows no images.
    """

    compares = False

    def measure(self, layer: LayerView) -> Tensor:
        """Return how like the others each token's key is, for each head."""
        return key_similarity(layer.keys, layer.anchor)

    def measure_update(self, update: Tensor) -> Tensor:
        """Return the norms of the MLP's updates [frame, dim], float32 [frame]."""
        length: Tensor = torch.linalg.vector_norm(update, dim=-1, dtype=torch.float32)
        return length

    def insertions(self, updates: Tensor | None, rows: int, frame: int, like: Tensor) -> Tensor:
        """Return the norms, brought to 0..1 within the frame, float16 [rows, frame].

        Args:
            updates: see :meth:`measure_update`, float32 [layers, frame].
            rows: index sets of all layers.
            frame: tokens of the newest frame.
            like: any tensor on the device.

        """
        assert updates is not None
        parts = unit_range(updates).half()
        return parts if len(parts) == rows else parts.repeat_interleave(rows // len(parts), dim=0)

    def scores(self, candidates: Candidates) -> Tensor:
        """Return residual part plus diversity part, each in 0..1."""
        assert candidates.measures is not None
        diversity = unit_range(-candidates.measures)
        return torch.lerp(diversity, candidates.insertions.float(), RESIDUAL_WEIGHT)


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
