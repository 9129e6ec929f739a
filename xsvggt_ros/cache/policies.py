# SPDX-License-Identifier: Apache-2.0
"""Scores of tokens: what a policy is asked, and each kind of policy.

A policy gives scores and nothing else. What is kept under the budget, and where, is decided in one
place for all of them (`layer_segments.py`, `segment.py`). None needs an attention map of the
whole frame, so FlashAttention stays usable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from xsvggt_ros.cache.ops import key_similarity, query_products, unit_range
from xsvggt_ros.cache.settings import CacheSettings

NEUTRAL_INSERTION = 0.5
"""What is remembered of a token by a policy that does not care: the middle of the range."""


@dataclass(frozen=True, slots=True)
class LayerView:
    """One layer right after it has attended: all older tokens, then the newest frame's own.

    Attributes:
        query: of the newest frame, normalised and rotated, [heads, frame, channels].
        keys: as attended to, [heads, tokens, channels].
        values: the same.
        anchor: how many tokens of the first frame stand in front.
        special: special tokens in front of each frame.
        sets: index sets of the layer: 1, or one per head.

    """

    query: Tensor
    keys: Tensor
    values: Tensor
    anchor: int
    special: int
    sets: int


@dataclass(frozen=True, slots=True)
class Candidates:
    """The tokens of a group of layers after a frame: all older ones, then the frame's own.

    Rows are the index sets of all layers, layer after layer.

    Attributes:
        measures: what :meth:`Policy.measure` said, the mean over heads that share an index set,
            float32 [rows, tokens]; None where it measures nothing.
        insertions: what :meth:`Policy.insertions` said of each token, float16 [rows, tokens].
        ages: how many tokens came after each, int32 [rows, tokens]; 0 = the newest.
        newest: number in the stream of the newest token, modulo 2^32, int32 [1].
        previous: what this policy said of the older tokens after the frame before, float32
            [rows, older]; None where it was not asked then.
        first_layer: index in the network of the group's first layer.
        sets: index sets of a layer.
        frame: tokens of the newest frame.

    """

    measures: Tensor | None
    insertions: Tensor
    ages: Tensor
    newest: Tensor
    previous: Tensor | None
    first_layer: int
    sets: int
    frame: int


class Policy(Protocol):
    """Scores tokens: who scores least, leaves first.

    It looks at one layer at a time while that layer's keys lie decoded, and scores the layers of a
    group together afterwards, in a few operations for all of them.

    Attributes:
        compares: whether :meth:`scores` wants to know what it said after the frame before.

    """

    compares: bool

    def measure(self, layer: LayerView) -> Tensor | None:
        """Return a number for each token, float32 [heads or sets, tokens]; None = none is needed.

        Where it is one for each head, and heads share an index set, the mean over heads counts.
        """
        ...

    def measure_update(self, update: Tensor) -> Tensor | None:
        """Return a number for each token of the newest frame, float32 [frame].

        Args:
            update: what the block's MLP added to the tokens, [frame, dim] of any floating type.

        """
        ...

    def insertions(self, updates: Tensor | None, rows: int, frame: int, like: Tensor) -> Tensor:
        """Return what to remember of each token of the newest frame, float16 [rows, frame].

        Args:
            updates: what :meth:`measure_update` said, float32 [layers, frame].
            rows: index sets of all layers.
            frame: tokens of the newest frame.
            like: any tensor on the device.

        """
        ...

    def scores(self, candidates: Candidates) -> Tensor:
        """Return the score of every token, float32 [rows, tokens], the higher the rather kept.

        Without waiting for the device. What is not finite counts as the worst.
        """
        ...


class Forgetful:
    """A policy that remembers nothing of the insertion of a token."""

    compares = False

    def measure(self, layer: LayerView) -> Tensor | None:
        """Measure nothing."""
        return None

    def measure_update(self, update: Tensor) -> Tensor | None:
        """Measure nothing of an update [frame, dim]."""
        return None

    def insertions(self, updates: Tensor | None, rows: int, frame: int, like: Tensor) -> Tensor:
        """Return the middle of the range for all, float16 [rows, frame]."""
        half = torch.full((1, 1), NEUTRAL_INSERTION, dtype=torch.float16, device=like.device)
        return half.expand(rows, frame)


_MULTIPLIER = -7046029254386353131
"""2^64 over the golden ratio, as a signed number: a step that never comes near where it was."""


class KeepAll(Forgetful):
    """``none``: all tokens score the same, and none is ever dropped, as in StreamVGGT."""

    def scores(self, candidates: Candidates) -> Tensor:
        """Return zeros, float32 [rows, tokens]."""
        return torch.zeros(candidates.ages.shape, device=candidates.ages.device)


class Recency(Forgetful):
    """``sliding_window``: the newest tokens stay, beside the anchor.

    ``lingbot`` scores so, too; there special tokens have slots of their own (`layer_plan.py`).
    """

    def scores(self, candidates: Candidates) -> Tensor:
        """Return how young each token is, float32 [rows, tokens]."""
        return -candidates.ages.float()


class Random(Forgetful):
    """``random``: each token scores something else after each frame; seeded.

    The numbers follow from the seed, the layer, the token and the frame alone, by a hash, so the
    device keeps no state, and a stream that begins again draws the same numbers.
    """

    def __init__(self, seed: int) -> None:
        """Draw by ``seed``."""
        self._seed = seed

    def scores(self, candidates: Candidates) -> Tensor:
        """Return uniform numbers from 0 to 1, float32 [rows, tokens]."""
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


class KeyDiversity(Forgetful):
    """``key_diversity``: tokens unlike the others (InfiniteVGGT, arXiv 2601.02281).

    The negative similarity to the mean key, per head; averaged where heads share a set.
    """

    def measure(self, layer: LayerView) -> Tensor:
        """Return how like the others each token is, float32 [heads, tokens]."""
        return key_similarity(layer.keys, layer.anchor)

    def scores(self, candidates: Candidates) -> Tensor:
        """Return how unlike the others each token is, float32 [rows, tokens]."""
        assert candidates.measures is not None
        return -candidates.measures


def pooled_query(query: Tensor, special: int, pool_size: int) -> Tensor:
    """Summarise queries [..., tokens, channels] as one vector, float32 [..., channels].

    Special tokens count as they are, patches after averaging runs of ``pool_size`` in raster
    order, a shorter last run included. The score is linear in the query, so the mean over the
    pooled queries may be taken here, once, instead of per key.

    Args:
        query: [..., tokens, channels].
        special: tokens that stand in front.
        pool_size: patches that are averaged.

    """
    query = query.float()
    patches = query[..., special:, :]
    if patches.shape[-2] <= 1:
        return query.mean(dim=-2)
    whole = patches.shape[-2] // pool_size * pool_size
    total = query[..., :special, :].sum(dim=-2) + patches[..., :whole, :].sum(dim=-2) / pool_size
    runs = special + whole // pool_size
    if whole < patches.shape[-2]:
        total = total + patches[..., whole:, :].mean(dim=-2)
        runs += 1
    return total / runs


def pooling_weights(frame: int, special: int, pool_size: int, device: torch.device) -> Tensor:
    """Return the weight of each query in :func:`pooled_query`, float32 [frame].

    Args:
        frame: tokens of a frame.
        special: tokens that stand in front.
        pool_size: patches that are averaged.
        device: of the result.

    """
    return pooled_query(torch.eye(frame, device=device)[..., None], special, pool_size)[..., 0]


def importance(query: Tensor, keys: Tensor, special: int, pool_size: int) -> Tensor:
    """Score each key by its product with the pooled query, both averaged over heads.

    No softmax, no 1/sqrt(d): only the order matters.

    Args:
        query: [heads, frame, channels].
        keys: [heads, tokens, channels].
        special: special tokens in front of the queries.
        pool_size: patches per run.

    Returns:
        float32 [tokens].

    """
    return keys.float().mean(dim=0) @ pooled_query(query.float().mean(dim=0), special, pool_size)


class Importance(Forgetful):
    """``xstreamvggt``: how much the newest frame asks for each token (XStreamVGGT, section 3.1).

    With a set per head, each head asks for itself.
    """

    def __init__(self, pool_size: int) -> None:
        """Average runs of ``pool_size`` patch queries."""
        self._pool_size = pool_size
        self._weights: dict[tuple[int, int], Tensor] = {}

    def measure(self, layer: LayerView) -> Tensor:
        """Return the products of keys and pooled query, float32 [heads, tokens]."""
        query, keys = layer.query, layer.keys
        weights = self._pooling(query.shape[1], layer.special, query.device)
        if layer.sets == 1:
            return query_products(query, keys, weights)[None]
        pooled = weights @ query.float()
        return (keys.float() @ pooled[..., None]).squeeze(-1)

    def scores(self, candidates: Candidates) -> Tensor:
        """Return the products, float32 [rows, tokens]."""
        assert candidates.measures is not None
        return candidates.measures

    def _pooling(self, frame: int, special: int, device: torch.device) -> Tensor:
        """Return :func:`pooling_weights`, kept for each size of frame."""
        size = frame, special
        if size not in self._weights:
            self._weights[size] = pooling_weights(frame, special, self._pool_size, device)
        return self._weights[size]


PROBES = 8
"""Patch queries that ``value_aware`` looks at."""
MEMORY = 0.8
"""What of its score the next frame leaves standing."""


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
    """``value_aware``: how much the output would change without the token (OBCache, OBVGGT).

    The second-order score of OBVGGT, over its probes: special and 8 evenly spaced queries.

    OBVGGT adds the scores of all frames up, which favours the old. Here a score fades by a fifth
    with each frame, and a new token begins with its first one whole.
    """

    compares = True

    def measure(self, layer: LayerView) -> Tensor:
        """Return the output's change without each token, float32 [heads, tokens]."""
        asking = probes(layer.query, layer.special)
        return output_change(asking, layer.keys, layer.values)

    def scores(self, candidates: Candidates) -> Tensor:
        """Return the faded mean of the changes, float32 [rows, tokens]."""
        fresh = candidates.measures
        assert fresh is not None
        if candidates.previous is None:
            return fresh
        older = candidates.previous.shape[1]
        faded = MEMORY * candidates.previous + (1 - MEMORY) * fresh[:, :older]
        return torch.cat([faded, fresh[:, older:]], dim=1)


RESIDUAL_WEIGHT = 0.5


class FfnResidual:
    """``ffn_residual``: tokens that the network had much to say about (OVGGT, arXiv 2603.05959).

    Half how strongly the block's MLP changed the token, half how unlike others it is.

    OVGGT scores the tokens of the newest frame by the norm of what the MLP of a global block adds
    to them, and older tokens by the diversity of their keys, each brought to 0..1 and weighted by
    half. It decides about the newest frame before it is cached; here a frame is first cached as a
    whole, so the norm is remembered with each token, and the score of a token is the sum
    of both parts. OVGGT also smooths the norms over the image, which is left out: a cache
    knows no images.
    """

    compares = False

    def measure(self, layer: LayerView) -> Tensor:
        """Return how like the others each token's key is, float32 [heads, tokens]."""
        return key_similarity(layer.keys, layer.anchor)

    def measure_update(self, update: Tensor) -> Tensor:
        """Return the norms of the MLP's updates [frame, dim], float32 [frame]."""
        length: Tensor = torch.linalg.vector_norm(update, dim=-1, dtype=torch.float32)
        return length

    def insertions(self, updates: Tensor | None, rows: int, frame: int, like: Tensor) -> Tensor:
        """Return the norms, brought to 0..1 within the frame, float16 [rows, frame]."""
        assert updates is not None
        parts = unit_range(updates).half()
        return parts if len(parts) == rows else parts.repeat_interleave(rows // len(parts), dim=0)

    def scores(self, candidates: Candidates) -> Tensor:
        """Return residual part plus diversity part, float32 [rows, tokens], each in 0..1."""
        assert candidates.measures is not None
        diversity = unit_range(-candidates.measures)
        return torch.lerp(diversity, candidates.insertions.float(), RESIDUAL_WEIGHT)


YOUTH_WEIGHT = 0.5
HALF_LIFE = 2
"""Frames after which youth counts half as much; both as measured (docs/cache.md)."""


class Balanced(FfnResidual):
    """``balanced``: youth, from 0.5 for the newest frame downwards, beside ``ffn_residual``.

    What a camera sees next is mostly what it has just seen, and the newest tokens tell it where it
    is; what is unlike them is worth keeping for when it comes back. Budgets are often split so
    between a window and chosen tokens (STAC, H2O); here both are one score, and a small budget goes
    to the young, a large one to the rest. Youth halves every two frames: a token that is old lives
    by the other part alone. Frames are those of all cameras of a rig, as long as the newest one.
    """

    def scores(self, candidates: Candidates) -> Tensor:
        """Return youth, residual and diversity parts in sum, float32 [rows, tokens] in 0..1.5."""
        frames = candidates.ages // candidates.frame
        # Ages are modulo 2^32: the very oldest are negative.
        frames = frames.masked_fill_(candidates.ages < 0, torch.iinfo(torch.int32).max)
        youth = torch.exp2(frames * (-1 / HALF_LIFE))
        return super().scores(candidates).add_(youth, alpha=YOUTH_WEIGHT)


def policy_for(settings: CacheSettings) -> Policy:
    """Return the policy that ``settings`` name."""
    policies: dict[str, Callable[[], Policy]] = {
        "none": KeepAll,
        "sliding_window": Recency,
        "random": lambda: Random(settings.seed),
        "lingbot": Recency,
        "xstreamvggt": lambda: Importance(settings.pool_size),
        "balanced": Balanced,
        "ffn_residual": FfnResidual,
        "value_aware": ValueAware,
        "key_diversity": KeyDiversity,
    }
    return policies[settings.policy]()
