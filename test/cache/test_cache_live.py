# SPDX-License-Identifier: Apache-2.0
"""Budget, widths and policy change between two frames, at once and without losing what fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from selection import examples
from streams import (
    SPECIAL,
    frame_tensors,
    held,
    layout,
    make_cache,
    run,
    segments,
    step,
    stored,
    updates,
)

from xsvggt_ros.cache.kv_cache import KvCache
from xsvggt_ros.cache.settings import POLICIES, WIDTHS
from xsvggt_ros.errors import ConfigurationError


def change(cache: KvCache, **changes: Any) -> None:
    cache.configure(replace(cache.settings, **changes))


CHANGE = st.fixed_dictionaries(
    {},
    optional={
        "policy": st.sampled_from(POLICIES),
        "budget_tokens": st.integers(2 * SPECIAL, 150),
        "key_bits": st.sampled_from(WIDTHS),
        "value_bits": st.sampled_from(WIDTHS),
        "anchor_bits": st.sampled_from([0, 8, 16]),
        "window_bits": st.sampled_from([0, 16]),
        "camera_frames": st.integers(2, 9),
        "pool_size": st.integers(1, 8),
        "window_frames": st.integers(1, 3),
        "trajectory_frames": st.integers(0, 3),
        "keyframe_interval": st.integers(0, 3),
    },
)
STEP = st.one_of(CHANGE, st.just(20), st.integers(SPECIAL + 1, 90), st.just("clear"))


@settings(deadline=None, max_examples=examples(150))
@given(
    steps=st.lists(STEP, min_size=4, max_size=20),
    index_sets=st.sampled_from(["layer", "head"]),
    group_size=st.sampled_from([4, 64]),
    dim=st.sampled_from([6, 8]),
)
def test_the_cap_holds_through_every_change_of_settings_and_resolution(
    steps: list[Any], index_sets: str, group_size: int, dim: int
) -> None:
    sizes = layout(dim=dim)
    cache = make_cache(
        sizes, budget_tokens=60, key_bits=4, index_sets=index_sets, group_size=group_size
    )
    for seed, item in enumerate(steps):
        if isinstance(item, dict):
            change(cache, **item)
        elif item == "clear":
            cache.clear()
        else:
            step(cache, *frame_tensors(item, seed, sizes), updates(item, seed))
        for index, layer in enumerate(cache.layers):
            if cache.settings.keeps_frames:
                assert layer.tokens <= (cache.statistics().budget_tokens or layer.tokens)
            elif cache.settings.bounded:
                assert layer.tokens <= cache.settings.budget_tokens
            for numbers in layer.numbers:
                assert len(set(numbers.tolist())) == layer.tokens
                assert all(0 <= number < layer.seen for number in numbers.tolist())
            for segment in segments(cache, index):
                assert torch.isfinite(segment.decoded_keys()).all()
                assert torch.isfinite(segment.decoded_values()).all()


@pytest.mark.parametrize("bits", [4, 16])
def test_a_smaller_budget_holds_at_once_and_keeps_the_best(bits: int) -> None:
    cache = make_cache(budget_tokens=100, key_bits=bits, value_bits=bits)
    run(cache, [20] * 8)
    before, scores = stored(cache), segments(cache)[2].scores[0].clone()
    numbers = segments(cache)[2].numbers[0]
    allocated = cache.nbytes
    change(cache, budget_tokens=60)
    assert cache.statistics().tokens == 60
    assert cache.nbytes < allocated
    after = stored(cache)
    assert all(torch.equal(after[n][0], before[n][0]) for n in after)
    assert all(torch.equal(after[n][1], before[n][1]) for n in after)
    assert set(range(20)) <= after.keys()
    assert set(range(140, 160)) <= after.keys()
    if bits == 16:
        history = (numbers >= 20) & (numbers < 140)
        best = numbers[history][scores[history].topk(20).indices].tolist()
        assert sorted(after) == sorted([*range(20), *best, *range(140, 160)])


@pytest.mark.parametrize(("before", "after"), [(1000, 900), (1000, 300), (500, 280)])
def test_a_smaller_budget_leaves_the_window_whole_whatever_its_groups(
    before: int, after: int
) -> None:
    cache = make_cache(budget_tokens=before, key_bits=4, value_bits=4)
    run(cache, [133] * 12)
    change(cache, budget_tokens=after)
    tokens = set(held(cache))
    assert set(range(133)) <= tokens
    assert set(range(11 * 133, 12 * 133)) <= tokens
    assert len(tokens) <= after


@pytest.mark.parametrize(
    "changes", [{"policy": "random"}, {"seed": 3}, {"camera_frames": 9}, {"key_bits": 8}]
)
def test_a_change_between_two_sessions(changes: dict[str, Any]) -> None:
    cache = make_cache(budget_tokens=60, key_bits=4, value_bits=4)
    run(cache, [20] * 4)
    cache.clear()
    change(cache, **changes)
    run(cache, [20] * 5)
    assert cache.statistics().tokens == 60


def test_a_smaller_budget_than_two_frames_halves_anchor_and_window() -> None:
    cache = make_cache(budget_tokens=100, key_bits=4, value_bits=4)
    run(cache, [20] * 8)
    change(cache, budget_tokens=30)
    tokens = held(cache)
    assert len(tokens) == 30
    assert len([n for n in tokens if n < 20]) == 15
    assert set(range(5)) <= set(tokens)
    assert set(range(140, 145)) <= set(tokens)
    run(cache, [20] * 3, start=8)
    assert cache.statistics().tokens == 30


@pytest.mark.parametrize("bits", [4, 16])
def test_a_larger_budget_loses_nothing_and_fills_up(bits: int) -> None:
    cache = make_cache(budget_tokens=60, key_bits=bits, value_bits=bits)
    run(cache, [20] * 8)
    before = stored(cache)
    change(cache, budget_tokens=100)
    after = stored(cache)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[n][0], before[n][0]) for n in after)
    run(cache, [20] * 2, start=8)
    assert cache.statistics().tokens == 100
    assert before.keys() <= set(held(cache))


def test_wider_codes_are_the_same_numbers() -> None:
    cache = make_cache(budget_tokens=60, key_bits=2, value_bits=2)
    run(cache, [20] * 5)
    before = stored(cache)
    for bits in (4, 8, 16):
        change(cache, key_bits=bits, value_bits=bits)
        after = stored(cache)
        assert before.keys() == after.keys()
        for number, (key, value) in after.items():
            torch.testing.assert_close(key, before[number][0], rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(value, before[number][1], rtol=1e-6, atol=1e-6)
        assert cache.statistics().key_bits == bits


def test_narrower_codes_round_once_and_save_bytes() -> None:
    cache = make_cache(budget_tokens=60, key_bits=8, value_bits=8)
    run(cache, [20] * 5)
    before, allocated = stored(cache), cache.nbytes
    change(cache, key_bits=4)
    after = stored(cache)
    assert before.keys() == after.keys()
    assert cache.nbytes < allocated
    for number, (key, value) in after.items():
        assert 0 < (key - before[number][0]).abs().max() <= 8 / 15 * 0.51
        assert torch.equal(value, before[number][1])


def test_widths_up_count_for_what_comes() -> None:
    cache = make_cache(budget_tokens=60, key_bits=4, value_bits=4)
    run(cache, [20] * 5)
    change(cache, key_bits=16)
    query, key, value = frame_tensors(20, 5)
    step(cache, query, key, value)
    newest = stored(cache)
    assert all(torch.equal(newest[100 + i][0], key[0, :, i]) for i in range(20))


def test_another_policy_judges_from_the_next_frame_on() -> None:
    cache = make_cache(budget_tokens=60)
    run(cache, [20] * 5)
    before = held(cache)
    change(cache, policy="sliding_window")
    assert held(cache) == before
    run(cache, [20], start=5)
    middle = before[20:][-20:]
    assert held(cache) == sorted([*range(20), *middle, *range(100, 120)])


def test_no_policy_and_back() -> None:
    cache = make_cache(budget_tokens=60, key_bits=4, value_bits=4)
    run(cache, [20] * 5)
    change(cache, policy="none")
    run(cache, [20] * 4, start=5)
    assert cache.statistics().tokens == 140
    assert cache.statistics().budget_tokens == 0
    change(cache, policy="value_aware")
    assert cache.statistics().tokens == 60


def test_a_window_that_is_given_up_joins_the_history() -> None:
    cache = make_cache(budget_tokens=100, key_bits=4, value_bits=4, window_bits=16)
    run(cache, [20] * 8)
    assert [len(segment) for segment in segments(cache)] == [20, 0, 60, 20]
    before = stored(cache)
    change(cache, window_bits=0)
    after = stored(cache)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n][0], after[n][0]) for n in after if n < 140)
    change(cache, window_bits=16)
    run(cache, [20] * 2, start=8)
    assert [len(segment) for segment in segments(cache)] == [20, 0, 60, 20]


def test_anchor_and_special_tokens_can_be_finer() -> None:
    cache = make_cache(budget_tokens=100, key_bits=2, value_bits=2, anchor_bits=16)
    run(cache, [20] * 8)
    anchor, special, history, _ = segments(cache)
    assert (anchor.plan.key_bits, special.plan.value_bits, history.plan.key_bits) == (16, 16, 2)
    tokens = stored(cache)
    for number, (key, _) in tokens.items():
        _, keys, _ = frame_tensors(20, number // 20)
        exact = torch.equal(key, keys[0, :, number % 20])
        assert exact == (number < 20 or number in special.numbers[0].tolist())
    fine = special.numbers[0].tolist()
    assert len(fine) == 25  # as many frames' as the budget holds frames
    assert all(number % 20 < 5 for number in fine)
    assert set(range(140, 145)) <= set(fine)
    change(cache, anchor_bits=0)
    assert cache.statistics().tokens == 100
    assert len(segments(cache)[1]) == 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"budget_tokens": 9}, "set it to at least 10"),
        ({"index_sets": "head"}, "cache.index_sets cannot change from layer to head"),
        ({"group_size": 32}, "cache.group_size cannot change from 64 to 32"),
        (
            {"policy": "xstreamvggt", "compatibility": "published"},
            "cache.compatibility cannot change from none",
        ),
        ({"budget_mib": 0.001}, "need at least 0.0.* MiB"),
        ({"adaptive": "scene", "budget_min_tokens": 9}, "no budget is below 10"),
    ],
)
def test_a_change_that_cannot_be_leaves_all_as_it_was(
    changes: dict[str, Any], sentence: str
) -> None:
    cache = make_cache(budget_tokens=60)
    run(cache, [20] * 5)
    before, settings_before = stored(cache), cache.settings
    with pytest.raises(ConfigurationError, match=sentence):
        change(cache, **changes)
    assert cache.settings == settings_before
    after = stored(cache)
    assert before.keys() == after.keys()
    run(cache, [20], start=5)
    assert cache.statistics().tokens == 60


def test_the_released_code_cannot_change_while_it_runs() -> None:
    cache = make_cache(policy="xstreamvggt", compatibility="published")
    with pytest.raises(ConfigurationError, match="published cannot change while it runs"):
        change(cache, budget_tokens=60)
