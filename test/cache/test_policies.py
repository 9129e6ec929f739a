# SPDX-License-Identifier: Apache-2.0
"""Each policy against its definition, written out slowly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from streams import (
    SPECIAL,
    frame_tensors,
    grouped_layers,
    held,
    layout,
    make_cache,
    run,
    segments,
    step,
)

from xsvggt_ros.cache.ops import key_similarity
from xsvggt_ros.cache.policies import (
    PROBES,
    Balanced,
    Candidates,
    FfnResidual,
    Importance,
    KeyDiversity,
    LayerView,
    Random,
    Recency,
    ValueAware,
    importance,
    output_change,
    policy_for,
    pooled_query,
    probes,
)
from xsvggt_ros.cache.settings import POLICIES, CacheSettings

HEADS, DIM, FRAME, OLDER = 3, 8, 30, 50


def layer_view(sets: int = 1, seed: int = 0) -> LayerView:
    generator = torch.Generator().manual_seed(seed)
    tokens = OLDER + FRAME
    return LayerView(
        query=torch.randn(HEADS, FRAME, DIM, generator=generator),
        keys=torch.randn(HEADS, tokens, DIM, generator=generator),
        values=torch.randn(HEADS, tokens, DIM, generator=generator),
        anchor=10,
        special=SPECIAL,
        sets=sets,
    )


UPDATE = torch.randn(FRAME, 12, generator=torch.Generator().manual_seed(8))


def candidates(policy: Any, sets: int = 1, previous: torch.Tensor | None = None) -> Candidates:
    """Return what a policy is asked about one layer, measured by itself."""
    tokens = OLDER + FRAME
    older = torch.rand(sets, OLDER, generator=torch.Generator().manual_seed(1)).half()
    updates = policy.measure_update(UPDATE)
    measures = policy.measure(layer_view(sets))
    if measures is not None and len(measures) != sets:
        measures = measures.mean(dim=0, keepdim=True)  # as a group of layers does
    newest = policy.insertions(None if updates is None else updates[None], sets, FRAME, older)
    return Candidates(
        measures=measures,
        insertions=torch.cat([older, newest], dim=1),
        ages=torch.arange(tokens - 1, -1, -1, dtype=torch.int32).expand(sets, -1),
        newest=torch.tensor([500], dtype=torch.int32),
        previous=previous,
        first_layer=0,
        sets=sets,
        frame=FRAME,
    )


def scores_of(policy: Importance | KeyDiversity | ValueAware, **changes: Any) -> torch.Tensor:
    return policy.scores(candidates(policy, **changes))


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("sets", [1, HEADS])
def test_every_policy_gives_finite_scores_and_insertions_for_each_set(name: str, sets: int) -> None:
    policy = policy_for(CacheSettings(policy=name))
    asked = candidates(policy, sets)
    scores = policy.scores(asked)
    assert scores.shape == (sets, OLDER + FRAME)
    assert scores.dtype == torch.float32
    assert torch.isfinite(scores).all()
    assert asked.insertions.dtype == torch.float16
    assert ((asked.insertions >= 0) & (asked.insertions <= 1)).all()


@pytest.mark.parametrize("name", [name for name in POLICIES if name != "random"])
@pytest.mark.parametrize("index_sets", ["layer", "head"])
def test_layers_judged_together_are_judged_as_each_alone(name: str, index_sets: str) -> None:
    sizes = layout(layers=3)
    kind = {"policy": name, "budget_tokens": 70, "key_bits": 4, "value_bits": 4}
    together = make_cache(sizes, index_sets=index_sets, **kind)
    alone = [make_cache(layout(layers=1), index_sets=index_sets, **kind) for _ in range(3)]
    for frame in range(8):
        for layer, single in enumerate(alone):
            tensors = frame_tensors(20, 100 * layer + frame)
            update = torch.randn(1, 20, 6, generator=torch.Generator().manual_seed(layer))
            mixed = single.attend(0, *tensors)
            single.absorb(0, update)
            single.end_frame()
            torch.testing.assert_close(together.attend(layer, *tensors), mixed)
            together.absorb(layer, update)
        together.end_frame()
    for layer, single in enumerate(alone):
        for index_set in range(len(single.layers[0].numbers)):
            assert held(together, layer, index_set) == held(single, 0, index_set)


@given(patches=st.integers(0, 70), pool=st.integers(1, 20))
def test_pooled_query_is_the_mean_over_specials_and_runs(patches: int, pool: int) -> None:
    flat = torch.randn(SPECIAL + patches, DIM, generator=torch.Generator().manual_seed(patches))
    runs = [flat[SPECIAL + i : SPECIAL + i + pool] for i in range(0, patches, pool)]
    if patches <= 1:
        runs = list(flat[SPECIAL:, None])
    expected = torch.stack([*flat[:SPECIAL], *(run_.mean(0) for run_ in runs)]).mean(0)
    torch.testing.assert_close(pooled_query(flat, SPECIAL, pool), expected, atol=1e-5, rtol=1e-4)


def test_importance_of_a_head_is_that_of_the_head_alone() -> None:
    asked = layer_view(HEADS)
    scores = scores_of(Importance(4), sets=HEADS)
    for head in range(HEADS):
        alone = importance(asked.query[head : head + 1], asked.keys[head : head + 1], SPECIAL, 4)
        torch.testing.assert_close(scores[head], alone)


def test_importance_of_a_layer_is_of_the_mean_over_heads() -> None:
    asked = layer_view()
    expected = importance(asked.query, asked.keys, SPECIAL, 4)
    torch.testing.assert_close(scores_of(Importance(4))[0], expected)


def test_key_diversity_is_the_similarity_to_the_mean_direction() -> None:
    asked = layer_view(HEADS)
    scores = scores_of(KeyDiversity(), sets=HEADS)
    for head in range(HEADS):
        directions = [key / key.norm() for key in asked.keys[head]]
        mean = torch.stack(directions[10:]).mean(0)
        expected = torch.stack([-(direction @ mean) for direction in directions])
        torch.testing.assert_close(scores[head], expected)
    together = scores_of(KeyDiversity())
    torch.testing.assert_close(together[0], scores.mean(0))


def test_a_key_unlike_all_others_is_kept() -> None:
    keys = torch.zeros(1, 20, 4)
    keys[..., 0] = 1
    keys[0, 13] = torch.tensor([0.0, 3.0, 0, 0])
    assert int(key_similarity(keys, 5).argmin()) == 13


def test_ffn_residual_is_half_residual_half_diversity() -> None:
    policy = FfnResidual()
    asked = candidates(policy)
    norms = torch.stack([row.norm() for row in UPDATE])
    insertions = (norms - norms.min()) / (norms.max() - norms.min())
    torch.testing.assert_close(asked.insertions[0, OLDER:].float(), insertions, atol=5e-4, rtol=0)
    unlike = scores_of(KeyDiversity())[0]
    unlike = (unlike - unlike.min()) / (unlike.max() - unlike.min())
    torch.testing.assert_close(policy.scores(asked)[0], 0.5 * unlike + 0.5 * asked.insertions[0])


def test_balanced_adds_youth_to_ffn_residual() -> None:
    asked = candidates(Balanced())
    ages = torch.arange(asked.ages.shape[1] - 1, -1, -1, dtype=torch.int32)
    ages[0] = -(2**31)
    ages[1] = 2 * FRAME
    asked = replace(asked, ages=ages[None])
    youth = Balanced().scores(asked)[0] - FfnResidual().scores(asked)[0]
    torch.testing.assert_close(youth[[0, 1, -1]], torch.tensor([0.0, 0.25, 0.5]))
    torch.testing.assert_close(youth[-FRAME:], torch.full((FRAME,), 0.5))
    torch.testing.assert_close(youth[-2 * FRAME : -FRAME], torch.full((FRAME,), 0.5**1.5))


def test_balanced_keeps_more_young_tokens_and_old_ones_that_say_much() -> None:
    quiet = torch.full((1, 20, 6), 0.1)
    loud = quiet.clone()
    loud[0, 12] = 5.0
    young = {}
    for policy in ("balanced", "ffn_residual"):
        cache = make_cache(policy=policy, budget_tokens=160, key_bits=16, value_bits=16)
        for frame in range(40):
            step(cache, *frame_tensors(20, frame), loud if frame == 1 else quiet)
        assert 32 in held(cache)
        young[policy] = sum(number >= 36 * 20 for number in held(cache)) - 20
    assert young["balanced"] > 1.2 * young["ffn_residual"] > 0


def test_what_the_mlp_said_at_insertion_is_remembered() -> None:
    cache = make_cache(policy="ffn_residual", budget_tokens=60)
    loud = torch.full((1, 20, 6), 0.1)
    loud[0, 12] = 5.0
    step(cache, *frame_tensors(20, 0))
    step(cache, *frame_tensors(20, 1), loud)
    run(cache, [20], start=2)
    history = segments(cache)[2]
    insertions = dict(zip(history.numbers[0].tolist(), history.insertions[0].tolist(), strict=True))
    assert [insertions[number] for number in range(20, 40)] == [
        float(n == 32) for n in range(20, 40)
    ]


def test_output_change_is_what_attention_loses_without_the_token() -> None:
    # The score is of first order in the token's weight, so no token may have much of it.
    generator = torch.Generator().manual_seed(0)
    query = 0.3 * torch.randn(1, 4, 6, generator=generator)
    keys, values = torch.randn(2, 1, 400, 6, generator=generator)

    def attended(gate: torch.Tensor) -> torch.Tensor:
        weights = (query @ (keys * gate).transpose(-2, -1) / 6**0.5).softmax(-1)
        result: torch.Tensor = weights @ (values * gate)
        return result

    change = output_change(query, keys, values)
    for token in (0, 17, 399):
        gate = torch.ones(1, 400, 1)
        gate[0, token] = 1 - 1e-3
        derivative = (attended(torch.ones(1, 400, 1)) - attended(gate)) / 1e-3
        assert float(change[0, token]) == pytest.approx(float(derivative.square().sum()), rel=0.02)


def test_probes_are_the_special_queries_and_evenly_spaced_patches() -> None:
    query = torch.arange(105.0)[None, :, None]
    asked = probes(query, SPECIAL)[0, :, 0].tolist()
    assert asked[:SPECIAL] == [0, 1, 2, 3, 4]
    assert asked[SPECIAL:] == [5 + round(99 * i / (PROBES - 1)) for i in range(PROBES)]
    assert probes(query[:, :8], SPECIAL)[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_value_aware_scores_fade_and_new_tokens_begin_whole() -> None:
    fresh = scores_of(ValueAware())
    previous = torch.rand(1, OLDER, generator=torch.Generator().manual_seed(5))
    scores = scores_of(ValueAware(), previous=previous)
    torch.testing.assert_close(scores[:, :OLDER], 0.8 * previous + 0.2 * fresh[:, :OLDER])
    torch.testing.assert_close(scores[:, OLDER:], fresh[:, OLDER:])


def test_recency_and_seeded_chance() -> None:
    asked = candidates(Recency())
    assert Recency().scores(asked)[0].tolist() == [-float(age) for age in asked.ages[0]]
    assert torch.equal(Random(3).scores(asked), Random(3).scores(asked))
    assert not torch.equal(Random(3).scores(asked), Random(4).scores(asked))
    later = replace(asked, newest=asked.newest + FRAME)
    assert not torch.equal(Random(3).scores(asked), Random(3).scores(later))
    deeper = replace(asked, first_layer=1)
    assert not torch.equal(Random(3).scores(asked), Random(3).scores(deeper))


def test_chance_is_even() -> None:
    tokens = 4000
    asked = replace(
        candidates(Random(0)), ages=torch.arange(tokens, dtype=torch.int32).expand(6, -1), sets=2
    )
    scores = Random(0).scores(asked)
    assert ((scores >= 0) & (scores < 1)).all()
    shares = torch.stack([row.histc(10, 0, 1) for row in scores]) / tokens
    assert ((shares - 0.1).abs() < 0.025).all()
    correlation = torch.corrcoef(scores) - torch.eye(6)
    assert correlation.abs().max() < 0.08


def test_heads_with_sets_of_their_own_keep_different_tokens() -> None:
    sizes = layout(heads=3)
    for policy in ("xstreamvggt", "value_aware", "key_diversity", "random"):
        cache = make_cache(
            sizes, policy=policy, budget_tokens=60, index_sets="head", key_bits=4, value_bits=4
        )
        run(cache, [20] * 8)
        per_head = [held(cache, index_set=head) for head in range(3)]
        assert per_head[0] != per_head[1] != per_head[2]
        assert all(tokens[:20] == list(range(20)) for tokens in per_head)
        assert all(tokens[-20:] == list(range(140, 160)) for tokens in per_head)


def test_numbers_wrap_around_without_confusing_ages() -> None:
    cache = make_cache(policy="sliding_window", budget_tokens=50)
    run(cache, [20] * 4)
    for group in {layer.group for layer in grouped_layers(cache)}:
        shift = 2**31 - 85
        group._clock += shift
        for segment in group.segments:
            segment._numbers += shift
    run(cache, [20], start=4)
    numbers = segments(cache)[2].numbers[0].long()
    assert numbers.min() < 0 < numbers.max()  # the counter has wrapped around
    assert held(cache)[20:] == list(range(70, 100))
