# SPDX-License-Identifier: Apache-2.0
"""What must hold of a cache, whatever goes through it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from selection import examples
from streams import (
    DIM,
    HEADS,
    SPECIAL,
    frame_tensors,
    grouped_layers,
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
from xsvggt_ros.cache.layer_plan import Spans, shares
from xsvggt_ros.cache.policies import importance
from xsvggt_ros.cache.published import GrowingStore
from xsvggt_ros.cache.settings import POLICIES, WIDTHS, CacheSettings
from xsvggt_ros.cache.token_storage import PackedKeys
from xsvggt_ros.errors import ConfigurationError

BOUNDED = [policy for policy in POLICIES if policy not in ("none", "lingbot")]
BUDGETS = st.integers(2 * SPECIAL, 120)
SIZES = st.lists(st.integers(SPECIAL + 1, 60), min_size=2, max_size=12)
WIDTH = st.sampled_from(WIDTHS)


@settings(deadline=None, max_examples=examples(120))
@given(
    budget=BUDGETS,
    sizes=SIZES,
    policy=st.sampled_from(BOUNDED),
    key_bits=WIDTH,
    value_bits=WIDTH,
    anchor_bits=st.sampled_from([0, 8, 16]),
    window_bits=st.sampled_from([0, 16]),
    group_size=st.sampled_from([4, 16, 64]),
    index_sets=st.sampled_from(["layer", "head"]),
)
def test_no_layer_ever_holds_more_than_the_budget(
    budget: int, sizes: list[int], **kind: Any
) -> None:
    cache = make_cache(budget_tokens=budget, **kind)
    seen = 0
    for seed, tokens in enumerate(sizes):
        run(cache, [tokens], start=seed)
        seen += tokens
        for layer in cache.layers:
            assert layer.tokens <= budget
            if kind["anchor_bits"] == kind["window_bits"] == 0:
                assert layer.tokens == min(seen, budget)
            for numbers in layer.numbers:
                assert len(set(numbers.tolist())) == layer.tokens
                assert 0 <= numbers.min() <= numbers.max() < seen
        statistics = cache.statistics()
        assert statistics.tokens == max(layer.tokens for layer in cache.layers)
        assert statistics.evicted_total == sum(seen - layer.tokens for layer in cache.layers)


@settings(deadline=None, max_examples=examples(80))
@given(
    budget=BUDGETS,
    sizes=SIZES,
    policy=st.sampled_from(BOUNDED),
    key_bits=st.sampled_from([2, 4, 8]),
    group_size=st.sampled_from([4, 16, 64]),
    index_sets=st.sampled_from(["layer", "head"]),
)
def test_a_token_is_rounded_once_and_then_never_touched(
    budget: int, sizes: list[int], **kind: Any
) -> None:
    cache = make_cache(budget_tokens=budget, value_bits=4, **kind)
    before: list[dict[int, torch.Tensor]] = [{}] * HEADS
    for seed, tokens in enumerate(sizes):
        run(cache, [tokens], start=seed)
        after = [by_number(cache, head) for head in range(HEADS)]
        for head in range(HEADS):
            for number in before[head].keys() & after[head].keys():
                assert torch.equal(before[head][number], after[head][number])
        before = after


def by_number(cache: KvCache, head: int) -> dict[int, torch.Tensor]:
    """Return key and value of each token that a head holds, as decoded."""
    layer = grouped_layers(cache)[0]
    numbers = layer.numbers[head if len(layer.numbers) > 1 else 0].tolist()
    parts = [segment.contents() for segment in layer.segments]
    both = torch.cat(
        [
            torch.cat([part.keys[head], part.values[head]], dim=-1)
            for part in parts
            if len(part.keys)
        ]
    )
    return dict(zip(numbers, both, strict=True))


@settings(deadline=None, max_examples=examples(60))
@given(budget=BUDGETS, sizes=SIZES, policy=st.sampled_from(BOUNDED))
def test_special_tokens_of_anchor_and_window_give_way_last(
    budget: int, sizes: list[int], policy: str
) -> None:
    cache = make_cache(policy=policy, budget_tokens=budget)
    run(cache, sizes)
    newest = sum(sizes[:-1])
    tokens = set(held(cache))
    assert set(range(SPECIAL)) <= tokens
    assert set(range(newest, newest + SPECIAL)) <= tokens


@pytest.mark.parametrize("policy", BOUNDED)
@pytest.mark.parametrize("bits", [4, 16])
def test_anchor_and_window_stay_whole_while_both_fit(policy: str, bits: int) -> None:
    cache = make_cache(policy=policy, budget_tokens=50, key_bits=bits, value_bits=bits)
    run(cache, [20] * 6)
    tokens = held(cache, layer=1)
    assert tokens[:20] == list(range(20))
    assert tokens[-20:] == list(range(100, 120))
    assert len(tokens) == 50


def test_sliding_window_keeps_the_anchor_and_the_newest_history() -> None:
    cache = make_cache(policy="sliding_window", budget_tokens=50)
    run(cache, [20] * 6)
    assert held(cache) == [*range(20), *range(90, 120)]


def test_history_is_what_scores_best() -> None:
    cache = make_cache(budget_tokens=44, policy="xstreamvggt")
    run(cache, [20, 20])
    _, first_keys, _ = frame_tensors(20, 1)
    query, key, value = frame_tensors(20, 2)
    scores = importance(query[0], first_keys[0], SPECIAL, 16)
    step(cache, query, key, value)
    assert held(cache)[20:24] == sorted((scores.topk(4).indices + 20).tolist())


@pytest.mark.parametrize("policy", ["ffn_residual", "value_aware", "random", "balanced"])
def test_history_moves_on_where_a_frame_is_a_single_group(policy: str) -> None:
    """A group falls as a whole; it has thinned out before, so that it is not always the newest."""
    newest = 79
    kept = {}
    for bits in (4, 16):
        cache = make_cache(budget_tokens=160, key_bits=bits, value_bits=bits, policy=policy)
        run(cache, [20] * (newest + 1))
        frames = [number // 20 for number in held(cache)]
        kept[bits] = sorted(set(frames) - {0, newest})
    assert len(kept[4]) >= 10
    assert kept[4][-1] > newest - 5
    assert kept[4][len(kept[4]) // 2] > 20


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_the_newest_frame_is_attended_to_as_it_came(bits: int) -> None:
    cache = make_cache(budget_tokens=30, key_bits=bits, value_bits=bits)
    run(cache, [20])
    query, key, value = frame_tensors(20, 1)
    past = [segments(cache)[0].contents()]
    expected = torch.nn.functional.scaled_dot_product_attention(
        query,
        torch.cat([past[0].keys[None], key], 2),
        torch.cat([past[0].values[None], value], 2),
    )
    torch.testing.assert_close(cache.attend(0, query, key, value), expected)


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_what_is_held_is_what_came_to_within_rounding(bits: int) -> None:
    cache = make_cache(budget_tokens=100, key_bits=bits, value_bits=bits, group_size=16)
    run(cache, [20] * 9)
    originals = [frame_tensors(20, seed) for seed in range(9)]
    step_size = 0 if bits == 16 else 8 / (2**bits - 1)
    for number, (key, value) in stored(cache).items():
        _, keys, values = originals[number // 20]
        assert (key - keys[0, :, number % 20]).abs().max() <= step_size * 0.51
        assert (value - values[0, :, number % 20]).abs().max() <= step_size * 0.51


@pytest.mark.parametrize("anchor_bits", [0, 8])
def test_the_newest_frame_can_stay_as_it_came_until_the_next_one(anchor_bits: int) -> None:
    cache = make_cache(
        budget_tokens=100, key_bits=2, value_bits=4, anchor_bits=anchor_bits, window_bits=16
    )
    for seed in range(9):
        run(cache, [20], start=seed)
        tokens = stored(cache)
        assert len(tokens) == (min(20 * (seed + 1), 100) if not anchor_bits else len(tokens))
        assert len(tokens) <= 100
        for age in range(min(seed, 2)):
            _, keys, values = frame_tensors(20, seed - age)
            exact = [
                torch.equal(tokens[number][0], keys[0, :, place])
                and torch.equal(tokens[number][1], values[0, :, place])
                for place, number in enumerate(range(20 * (seed - age), 20 * (seed - age + 1)))
                if number in tokens
            ]
            assert len(exact) == 20 or age
            assert all(exact) if age == 0 else not any(exact)


def test_memory_does_not_grow_once_the_budget_is_full() -> None:
    cache = make_cache(budget_tokens=64)
    run(cache, [20] * 5)
    allocated = cache.nbytes
    run(cache, [20] * 30)
    assert cache.nbytes == allocated
    stored_bytes = 2 * (64 + 20) * HEADS * DIM * 4 * 2
    assert cache.nbytes == stored_bytes + 2 * 64 * 10
    assert cache.scratch_nbytes == 0


def test_nothing_is_dropped_without_a_policy() -> None:
    cache = make_cache(policy="none")
    run(cache, [20] * 9)
    assert held(cache) == list(range(180))
    _, keys, _ = frame_tensors(20, 4)
    assert torch.equal(stored(cache)[83][0], keys[0, :, 3])


def test_without_a_policy_packed_tokens_pile_up_as_well() -> None:
    cache = make_cache(policy="none", key_bits=4, value_bits=4)
    run(cache, [20] * 9)
    assert held(cache) == list(range(180))
    _, keys, _ = frame_tensors(20, 4)
    assert (stored(cache)[83][0] - keys[0, :, 3]).abs().max() < 0.3


def test_clear_begins_a_new_stream_in_the_same_allocation() -> None:
    cache = make_cache(budget_tokens=64, key_bits=4, value_bits=4)
    run(cache, [20] * 5)
    first = {number: key for number, (key, _) in stored(cache).items()}
    allocated = cache.nbytes
    assert not cache.first_frame
    cache.clear()
    assert cache.first_frame
    assert cache.statistics().tokens == 0
    assert cache.statistics().uncompressed_nbytes == 0
    run(cache, [20] * 5)
    assert cache.nbytes == allocated
    again = {number: key for number, (key, _) in stored(cache).items()}
    assert first.keys() == again.keys()
    assert all(torch.equal(first[number], again[number]) for number in first)


def test_an_impossible_budget_is_refused_with_the_smallest_one() -> None:
    with pytest.raises(ConfigurationError, match=r"is 9, .* take 10; set it to at least 10"):
        make_cache(budget_tokens=9)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"policy": "fifo"}, "cache.policy 'fifo' is unknown; choose one of auto, xstreamvggt"),
        ({"pool_size": 0}, "cache.pool_size is 0; it must be at least 1"),
        ({"camera_frames": 1}, "cache.camera_frames is 1; it must be at least 2"),
        ({"compatibility": "old"}, "cache.compatibility 'old' is unknown"),
        ({"key_bits": 3}, "cache.key_bits 3 is unknown; choose one of 2, 4, 8, 16"),
        ({"value_bits": 5}, "cache.value_bits 5 is unknown"),
        ({"anchor_bits": 4}, "cache.anchor_bits 4 is unknown; choose one of 0, 8, 16"),
        ({"index_sets": "frame"}, "cache.index_sets 'frame' is unknown; choose one of layer, head"),
        ({"budget_mib": -1}, "cache.budget_mib is -1; it must be at least 0"),
        ({"adaptive": "scene", "policy": "none"}, "needs a budget, and policy none has none"),
        (
            {"budget_tokens": 20, "budget_min_tokens": 30, "adaptive": "scene"},
            "budget_min_tokens is 30, above .* 20",
        ),
        ({"budget_mib": float("nan")}, "cache.budget_mib is nan; it must be at most 1048576"),
        ({"budget_mib": float("inf")}, "cache.budget_mib is inf; it must be at most 1048576"),
        (
            {"compatibility": "published", "policy": "random"},
            "'random' is not in the released code; .* one of xstreamvggt, sliding_window, none",
        ),
        (
            {"compatibility": "published", "policy": "xstreamvggt", "anchor_bits": 8},
            "anchor_bits is 8, which the released code cannot do",
        ),
    ],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        CacheSettings(**changes)


def test_a_batch_is_refused() -> None:
    cache = make_cache()
    both = torch.zeros(2, HEADS, 20, DIM)
    with pytest.raises(ConfigurationError, match="batch of 2"):
        cache.attend(0, both, both, both)


def test_tokens_of_another_shape_are_refused() -> None:
    cache = make_cache()
    other = torch.zeros(1, HEADS, 20, 2 * DIM)
    with pytest.raises(ConfigurationError, match="made for 2 heads of 8 .* not for 2 of 16"):
        cache.attend(0, other, other, other)


def test_several_frames_at_once_are_refused() -> None:
    cache = make_cache()
    three = torch.zeros(1, HEADS, 3, DIM)
    with pytest.raises(ConfigurationError, match="1 frames at a time here, not 3"):
        cache.begin_pass(3)
    with pytest.raises(ConfigurationError, match="takes 1 frames here, not 3"):
        cache.attend_camera(0, 0, three, three, three)


@given(
    anchor=st.integers(SPECIAL, 90),
    history=st.integers(0, 200),
    window=st.integers(SPECIAL, 90),
    budget=st.integers(2 * SPECIAL, 300),
)
def test_shares_use_the_whole_budget_and_nothing_more(
    anchor: int, history: int, window: int, budget: int
) -> None:
    spans = Spans(anchor, history, window)
    kept = shares(spans, budget)
    assert kept.total == min(spans.total, budget)
    assert min(anchor, SPECIAL) <= kept.anchor <= anchor
    assert min(window, SPECIAL) <= kept.window <= window
    assert 0 <= kept.history <= history


def test_shares_by_halves_where_two_frames_do_not_fit() -> None:
    assert shares(Spans(20, 30, 20), 30) == Spans(15, 0, 15)
    assert shares(Spans(20, 30, 8), 27) == Spans(19, 0, 8)


def test_statistics_are_those_of_the_last_frame() -> None:
    cache = make_cache(budget_tokens=50)
    evicted = []
    for seed in range(4):
        run(cache, [20], start=seed)
        statistics = cache.statistics()
        evicted.append(statistics.evicted)
        assert statistics.uncompressed_nbytes == 2 * 20 * (seed + 1) * 2 * HEADS * DIM * 4
    assert evicted == [0, 0, 20, 40]
    assert statistics.evicted_total == 60
    assert (statistics.tokens, statistics.budget_tokens) == (50, 50)
    assert (statistics.key_bits, statistics.value_bits) == (16, 16)
    assert statistics.layer_tokens == (50, 50)


@pytest.mark.parametrize("bits", [4, 16])
def test_frames_of_two_sizes_never_take_more_room_than_the_larger_needs(bits: int) -> None:
    cache = make_cache(budget_tokens=64, key_bits=bits, value_bits=bits)
    run(cache, [20, 20, 40, 20, 40])
    allocated = cache.nbytes + cache.scratch_nbytes
    run(cache, [20, 40] * 10)
    assert cache.nbytes + cache.scratch_nbytes == allocated


@pytest.mark.parametrize("dim", [1, 6, 7, 64, 128])
@pytest.mark.parametrize("special", [1, 9])
def test_any_head_size_and_number_of_special_tokens(dim: int, special: int) -> None:
    sizes = layout(heads=3, dim=dim, special=special)
    cache = make_cache(sizes, budget_tokens=60, key_bits=4, value_bits=2)
    run(cache, [20] * 6)
    assert cache.statistics().tokens == 60
    codes = 3 * -(-dim // 2), 3 * -(-dim * 2 // 8)
    kept = segments(cache)[2]
    assert kept.values.nbytes == 40 * codes[1] + 2 * 2 * 3 * 40
    assert isinstance(kept.keys, PackedKeys)
    rows = kept.keys.table_rows
    assert kept.keys.nbytes == 40 * codes[0] + 2 * 2 * 3 * rows * dim + 2 * 40


def test_a_new_stream_gives_back_scratch_that_it_does_not_need() -> None:
    cache = make_cache(budget_tokens=600, key_bits=4, value_bits=4)
    run(cache, [200] * 4)
    cache.clear()
    run(cache, [20] * 4)
    # The layer that is decoded, and the newest frame of each of the two layers.
    assert cache.scratch_nbytes == 2 * (620 + 2 * 20) * HEADS * DIM * 4


@pytest.mark.parametrize("policy", BOUNDED)
def test_a_stream_begun_again_is_the_same_again(policy: str) -> None:
    cache = make_cache(policy=policy, budget_tokens=60, key_bits=4)
    run(cache, [20] * 7)
    first = held(cache)
    cache.clear()
    run(cache, [20] * 7)
    assert held(cache) == first


@pytest.mark.parametrize("policy", [p for p in BOUNDED if p not in ("sliding_window", "random")])
@pytest.mark.parametrize("bits", [4, 16])
def test_a_key_that_is_no_number_is_the_first_to_go(policy: str, bits: int) -> None:
    cache = make_cache(budget_tokens=60, key_bits=bits, policy=policy)
    run(cache, [20] * 2)
    query, key, value = frame_tensors(20, 2)
    key[0, :, 9] = torch.nan
    step(cache, query, key, value)
    run(cache, [20] * 2, start=3)
    assert 49 not in held(cache)
    # Packed keys go with those that share their grid; others do not suffer.
    assert any(39 < number < 60 for number in held(cache)) or bits == 4
    assert all(torch.isfinite(key_).all() for key_, _ in stored(cache).values())


@pytest.mark.parametrize("broken", [torch.inf, torch.nan])
def test_a_token_that_the_network_changed_beyond_all_numbers_is_the_first_to_go(
    broken: float,
) -> None:
    cache = make_cache(budget_tokens=60, key_bits=16, policy="ffn_residual")
    run(cache, [20] * 2)
    update = updates(20, 2)
    update[0, 9] = broken
    step(cache, *frame_tensors(20, 2), update)
    run(cache, [20] * 2, start=3)
    assert 49 not in held(cache)
    assert any(39 < number < 60 for number in held(cache))


def test_store_grows_without_losing_tokens() -> None:
    store = GrowingStore()
    for start in range(0, 50, 5):
        tokens = torch.arange(start, start + 5.0)[None, None, :, None]
        store.append(tokens, -tokens, start)
    assert store.keys[0, 0, :, 0].tolist() == list(range(50))
    assert store.values[0, 0, :, 0].tolist() == [-float(i) for i in range(50)]
    store.keep(torch.tensor([3, 40, 49]))
    assert store.keys[0, 0, :, 0].tolist() == [3, 40, 49]
    assert store.numbers.tolist() == [3, 40, 49]
