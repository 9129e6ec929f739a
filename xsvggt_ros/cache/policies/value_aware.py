# SPDX-License-Identifier: Apache-2.0
"""``value_aware``: how much the output would change without the token (OBCache, OBVGGT)."""

from __future__ import annotations

import torch
from torch import Tensor

from xsvggt_ros.cache.policies.base import Candidates, Forgetful, LayerView

PROBES = 8
MEMORY = 0.8
"""What of a score the next frame leaves standing."""


def probes(query: Tensor, special: int) -> Tensor:
    """Return special and ``PROBES`` evenly spaced patch queries, [heads, probes, channels]."""
    patches = max(query.shape[1] - special, 0)
    places = torch.linspace(0, max(patches - 1, 0), min(PROBES, patches), device=query.device)
    chosen = query.index_select(1, places.round().long() + special)
    return torch.cat([query[:, :special], chosen], dim=1)


def output_change(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return the squared change of attention's output without each token, float32 [heads, tokens].

    For a query with weights ``a``, logits ``s`` and output ``o``, removing token ``j`` changes the
    output to first order by ``a_j (v_j + s_j (v_j - o))``; its square is summed over the queries.
    With few queries no map of the whole frame is needed.

    Args:
        query: [heads, n, head_dim].
        keys: [heads, tokens, head_dim].
        values: of the shape of ``keys``.

    """
    query, keys, values = query.float(), keys.float(), values.float()
    logits = query @ keys.transpose(-2, -1) * query.shape[-1] ** -0.5
    # One key that is no number must not take the others' scores along.
    weights = logits.masked_fill(logits.isnan(), -torch.inf).softmax(dim=-1)
    output = weights @ values
    own = values.square().sum(-1)[:, None]
    along = output @ values.transpose(-2, -1)
    apart = own - 2 * along + output.square().sum(-1, keepdim=True)
    change = own + 2 * logits * (own - along) + logits.square() * apart
    scores: Tensor = (weights.square() * change).sum(dim=1)
    return scores


class ValueAware(Forgetful):
    """The second-order score of OBVGGT, over its probes: special and 8 evenly spaced queries.

    OBVGGT adds the scores of all frames up, which favours the old. Here a score fades by a fifth
    with each frame, and a new token begins with its first one whole.
    """

    compares = True

    def measure(self, layer: LayerView) -> Tensor:
        """Return the change of attention's output without each token."""
        asking = probes(layer.query, layer.special)
        return output_change(asking, layer.keys, layer.values)

    def scores(self, candidates: Candidates) -> Tensor:
        """Return the faded mean of the changes."""
        fresh = candidates.measures
        assert fresh is not None
        if candidates.previous is None:
            return fresh
        older = candidates.previous.shape[1]
        faded = MEMORY * candidates.previous + (1 - MEMORY) * fresh[:, :older]
        return torch.cat([faded, fresh[:, older:]], dim=1)
