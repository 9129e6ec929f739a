# SPDX-License-Identifier: Apache-2.0
"""``key_diversity``: tokens unlike the others (InfiniteVGGT, arXiv 2601.02281)."""

from __future__ import annotations

from torch import Tensor

from xsvggt_ros.cache.ops import key_similarity
from xsvggt_ros.cache.policies.base import Candidates, Forgetful, LayerView


class KeyDiversity(Forgetful):
    """The negative similarity to the mean key, per head; averaged where heads share a set."""

    def measure(self, layer: LayerView) -> Tensor:
        """Return how like the others each token is, for each head."""
        return key_similarity(layer.keys, layer.anchor)

    def scores(self, candidates: Candidates) -> Tensor:
        """Return how unlike the others each token is."""
        assert candidates.measures is not None
        return -candidates.measures
