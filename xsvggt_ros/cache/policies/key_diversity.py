# SPDX-License-Identifier: Apache-2.0
"""``key_diversity``: tokens unlike the others (InfiniteVGGT, arXiv 2601.02281)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from xsvggt_ros.cache.policies.base import Candidates, Forgetful


def key_similarity(keys: Tensor, anchor: int) -> Tensor:
    """Return each key's likeness to the mean direction of all that may go.

    Args:
        keys: [heads, tokens, channels]; the first ``anchor`` of them have no part in the mean.
        anchor: tokens of the first frame.

    Returns:
        float32 [heads, tokens], at most 1: the product with the mean of the normalised keys; NaN
        for keys that are no numbers.

    """
    directions = functional.normalize(keys.float(), dim=-1)
    rest = directions[:, anchor:] if directions.shape[1] > anchor else directions
    # One key that is no number must not make all of them alike.
    rest = rest.nan_to_num(nan=0.0)
    return (directions @ rest.mean(dim=1)[..., None]).squeeze(-1)


class KeyDiversity(Forgetful):
    """The negative likeness to the mean key, per head; averaged where heads share a set."""

    def scores(self, candidates: Candidates) -> Tensor:
        """Return how unlike the others each token is."""
        return -candidates.per_set(key_similarity(candidates.keys, candidates.anchor))
