# SPDX-License-Identifier: Apache-2.0
"""Each policy against its definition, written out slowly."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from streams import SPECIAL, frame_tensors, held, layout, make_cache, run, step

from xsvggt_ros.cache.policies import policy_for
from xsvggt_ros.cache.policies.balanced import Balanced
from xsvggt_ros.cache.policies.base import Candidates
from xsvggt_ros.cache.policies.ffn_residual import FfnResidual
from xsvggt_ros.cache.policies.importance import Importance, importance, pooled_query
from xsvggt_ros.cache.policies.key_diversity import KeyDiversity, key_similarity
from xsvggt_ros.cache.policies.simple import Random, Recency
from xsvggt_ros.cache.policies.value_aware import PROBES, ValueAware, output_change, probes
from xsvggt_ros.cache.settings import POLICIES, CacheSettings

HEADS, DIM, FRAME, OLDER = 3, 8, 30, 50


def candidates(sets: int = 1, seed: int = 0, previous: torch.Tensor | None = None) -> Candidates:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    tokens = OLDER + FRAME
    return Candidates(
        query=random(HEADS, FRAME, DIM),
        keys=random(HEADS, tokens, DIM),
        values=random(HEADS, tokens, DIM),
        update=random(FRAME, 12),
        ages=torch.arange(tokens - 1, -1, -1, dtype=torch.int32).expand(sets, -1),
        births=torch.rand(sets, OLDER, generator=generator).half(),
        previous=previous,
        anchor=10,
        special=SPECIAL,
    )


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("sets", [1, HEADS])
def test_every_policy_gives_finite_scores_and_births_for_each_set(name, sets):
    policy = policy_for(CacheSettings(policy=name), 0)
    asked = candidates(sets)
    scores, births = policy.scores(asked), policy.births(asked)
    assert scores.shape == (sets, OLDER + FRAME)
    assert scores.dtype == torch.float32
    assert torch.isfinite(scores).all()
    assert births.shape == (sets, FRAME)
    assert births.dtype == torch.float16
    assert ((births >= 0) & (births <= 1)).all()


@given(patches=st.integers(0, 70), pool=st.integers(1, 20))
def test_pooled_query_is_the_mean_over_specials_and_runs(patches, pool):
    flat = torch.randn(SPECIAL + patches, DIM, generator=torch.Generator().manual_seed(patches))
    runs = [flat[SPECIAL + i : SPECIAL + i + pool] for i in range(0, patches, pool)]
    if patches <= 1:
        runs = list(flat[SPECIAL:, None])
    expected = torch.stack([*flat[:SPECIAL], *(run_.mean(0) for run_ in runs)]).mean(0)
    torch.testing.assert_close(pooled_query(flat, SPECIAL, pool), expected, atol=1e-5, rtol=1e-4)


def test_importance_of_a_head_is_that_of_the_head_alone():
    asked = candidates(HEADS)
    scores = Importance(4).scores(asked)
    for head in range(HEADS):
        alone = importance(asked.query[head : head + 1], asked.keys[head : head + 1], SPECIAL, 4)
        torch.testing.assert_close(scores[head], alone)


def test_key_diversity_is_the_likeness_to_the_mean_direction():
    asked = candidates(HEADS)
    scores = KeyDiversity().scores(asked)
    for head in range(HEADS):
        directions = [key / key.norm() for key in asked.keys[head]]
        mean = torch.stack(directions[10:]).mean(0)
        expected = torch.stack([-(direction @ mean) for direction in directions])
        torch.testing.assert_close(scores[head], expected)
    together = KeyDiversity().scores(candidates())
    torch.testing.assert_close(together[0], scores.mean(0))


def test_a_key_unlike_all_others_is_kept():
    keys = torch.zeros(1, 20, 4)
    keys[..., 0] = 1
    keys[0, 13] = torch.tensor([0.0, 3.0, 0, 0])
    assert int(key_similarity(keys, 5).argmin()) == 13


def test_ffn_residual_is_half_residual_half_diversity():
    asked = candidates()
    policy = FfnResidual()
    norms = torch.stack([row.norm() for row in asked.update])
    births = (norms - norms.min()) / (norms.max() - norms.min())
    torch.testing.assert_close(policy.births(asked)[0].float(), births, atol=5e-4, rtol=0)
    unlike = KeyDiversity().scores(asked)[0]
    unlike = (unlike - unlike.min()) / (unlike.max() - unlike.min())
    residual = torch.cat([asked.births[0].float(), policy.births(asked)[0].float()])
    torch.testing.assert_close(policy.scores(asked)[0], 0.5 * unlike + 0.5 * residual)


def test_balanced_adds_youth_to_ffn_residual():
    asked = candidates()
    ages = torch.arange(asked.ages.shape[1] - 1, -1, -1, dtype=torch.int32)
    ages[0] = -(2**31)
    ages[1] = 2 * FRAME
    asked = replace(asked, ages=ages[None])
    youth = Balanced().scores(asked)[0] - FfnResidual().scores(asked)[0]
    torch.testing.assert_close(youth[[0, 1, -1]], torch.tensor([0.0, 0.25, 0.5]))
    torch.testing.assert_close(youth[-FRAME:], torch.full((FRAME,), 0.5))
    torch.testing.assert_close(youth[-2 * FRAME : -FRAME], torch.full((FRAME,), 0.5**1.5))


def test_balanced_keeps_more_young_tokens_and_old_ones_that_say_much():
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


def test_what_the_mlp_said_at_birth_is_remembered():
    cache = make_cache(policy="ffn_residual", budget_tokens=60)
    loud = torch.full((1, 20, 6), 0.1)
    loud[0, 12] = 5.0
    step(cache, *frame_tensors(20, 0))
    step(cache, *frame_tensors(20, 1), loud)
    run(cache, [20], start=2)
    history = cache.layers[0].segments[2]
    births = dict(zip(history.numbers[0].tolist(), history.births[0].tolist(), strict=True))
    assert [births[number] for number in range(20, 40)] == [float(n == 32) for n in range(20, 40)]


def test_output_change_is_what_attention_loses_without_the_token():
    # The score is of first order in the token's weight, so no token may have much of it.
    generator = torch.Generator().manual_seed(0)
    query = 0.3 * torch.randn(1, 4, 6, generator=generator)
    keys, values = torch.randn(2, 1, 400, 6, generator=generator)

    def attended(gate: torch.Tensor) -> torch.Tensor:
        weights = (query @ (keys * gate).transpose(-2, -1) / 6**0.5).softmax(-1)
        return weights @ (values * gate)

    change = output_change(query, keys, values)
    for token in (0, 17, 399):
        gate = torch.ones(1, 400, 1)
        gate[0, token] = 1 - 1e-3
        derivative = (attended(torch.ones(1, 400, 1)) - attended(gate)) / 1e-3
        assert float(change[0, token]) == pytest.approx(float(derivative.square().sum()), rel=0.02)


def test_probes_are_the_special_queries_and_evenly_spaced_patches():
    query = torch.arange(105.0)[None, :, None]
    asked = probes(query, SPECIAL)[0, :, 0].tolist()
    assert asked[:SPECIAL] == [0, 1, 2, 3, 4]
    assert asked[SPECIAL:] == [5 + round(99 * i / (PROBES - 1)) for i in range(PROBES)]
    assert probes(query[:, :8], SPECIAL)[0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_value_aware_scores_fade_and_new_tokens_begin_whole():
    fresh = ValueAware().scores(candidates())
    previous = torch.rand(1, OLDER, generator=torch.Generator().manual_seed(5))
    scores = ValueAware().scores(candidates(previous=previous))
    torch.testing.assert_close(scores[:, :OLDER], 0.8 * previous + 0.2 * fresh[:, :OLDER])
    torch.testing.assert_close(scores[:, OLDER:], fresh[:, OLDER:])


def test_recency_and_seeded_chance():
    asked = candidates()
    assert Recency().scores(asked)[0].tolist() == [-float(age) for age in asked.ages[0]]
    first, second, other = Random(3), Random(3), Random(4)
    assert torch.equal(first.scores(asked), second.scores(asked))
    assert not torch.equal(first.scores(asked), other.scores(asked))
    assert not torch.equal(second.scores(asked), second.scores(asked))


def test_heads_with_sets_of_their_own_keep_different_tokens():
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


def test_numbers_wrap_around_without_confusing_ages():
    cache = make_cache(policy="sliding_window", budget_tokens=50)
    run(cache, [20] * 4)
    for layer in cache.layers:
        shift = 2**31 - 85
        layer._clock += shift
        for segment in layer.segments:
            segment._numbers += shift
    run(cache, [20], start=4)
    numbers = cache.layers[0].segments[2].numbers[0].long()
    assert numbers.min() < 0 < numbers.max()  # the counter has wrapped around
    assert held(cache)[20:] == list(range(70, 100))
