# SPDX-License-Identifier: Apache-2.0
"""``ffn_residual``: tokens that the network had much to say about (OVGGT, arXiv 2603.05959)."""

from __future__ import annotations

import torch
from torch import Tensor

from xsvggt_ros.cache.policies.base import Candidates, Stateless
from xsvggt_ros.cache.policies.key_diversity import key_similarity

RESIDUAL_WEIGHT = 0.5


class FfnResidual(Stateless):
    """Half how strongly the block's MLP changed the token at birth, half how unlike others it is.

    OVGGT scores the tokens of the newest frame by the norm of what the MLP of a global block adds
    to them, and older tokens by the diversity of their keys, each brought to 0..1 and weighted by
    half. It decides about the newest frame before it is cached; here a frame is first cached as a
    whole, so the norm is remembered with each token, and a token is worth the sum of both parts.
    OVGGT also smooths the norms over the picture, which is left out: a cache knows no pictures.
    """

    def scores(self, candidates: Candidates) -> Tensor:
        """Return residual part plus diversity part, each in 0..1."""
        residual = torch.cat([candidates.births, self.births(candidates)], dim=1).float()
        diversity = -candidates.per_set(key_similarity(candidates.keys, candidates.anchor))
        weighted = (1 - RESIDUAL_WEIGHT) * _unit_range(diversity)
        return weighted + RESIDUAL_WEIGHT * residual

    def births(self, candidates: Candidates) -> Tensor:
        """Return the norms of the MLP's updates, brought to 0..1 within the frame."""
        norms = candidates.update.float().norm(dim=-1)[None]
        return _unit_range(norms).half().expand(candidates.sets, -1)


def _unit_range(values: Tensor) -> Tensor:
    """Bring rows to 0..1; what is not finite becomes NaN and has no part in the range."""
    finite = values.isfinite()
    lowest = values.masked_fill(~finite, torch.inf).amin(dim=1, keepdim=True)
    extent = values.masked_fill(~finite, -torch.inf).amax(dim=1, keepdim=True) - lowest
    shares = (values - lowest) / extent.clamp(min=torch.finfo(values.dtype).tiny)
    return shares.masked_fill(~finite, torch.nan)
