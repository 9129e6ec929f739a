# SPDX-License-Identifier: Apache-2.0
"""What must hold of a cache, whatever goes through it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xsvggt_ros.cache.camera_cache import CameraCache
from xsvggt_ros.cache.importance import importance, pooled_query
from xsvggt_ros.cache.kv_cache import KvCache
from xsvggt_ros.cache.selection import Spans, select, shares
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.cache.storage import TokenStore
from xsvggt_ros.errors import ConfigurationError

SPECIAL, HEADS, DIM = 5, 2, 8


def make_cache(**changes) -> KvCache:
    return KvCache(
        CacheSettings(**changes),
        layers=2,
        special_tokens=SPECIAL,
        camera_blocks=1,
        camera_iterations=2,
    )


def frame_tensors(tokens: int, seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(1, HEADS, tokens, DIM, generator=generator) for _ in range(3))


def run(cache: KvCache, sizes: list[int], start: int = 0) -> None:
    for seed, tokens in enumerate(sizes, start):
        query, key, value = frame_tensors(tokens, seed)
        for layer in range(2):
            cache.attend(layer, query, key, value)
        cache.end_frame()


@settings(deadline=None, max_examples=60)
@given(
    budget=st.integers(2 * SPECIAL, 120),
    sizes=st.lists(st.integers(SPECIAL + 1, 60), min_size=1, max_size=12),
    policy=st.sampled_from(["xstreamvggt", "sliding_window"]),
)
def test_no_layer_ever_holds_more_than_the_budget(budget, sizes, policy):
    cache = make_cache(policy=policy, budget_tokens=budget)
    seen = 0
    for seed, tokens in enumerate(sizes):
        run(cache, [tokens], start=seed)
        seen += tokens
        held = [layer.tokens for layer in cache.layers]
        assert max(held) <= budget
        assert held == [min(seen, budget)] * 2
        assert cache.statistics().evicted_total == 2 * (seen - min(seen, budget))
        numbers = cache.layers[0].numbers.tolist()
        assert numbers == sorted(set(numbers))


@settings(deadline=None, max_examples=60)
@given(
    budget=st.integers(2 * SPECIAL, 120),
    sizes=st.lists(st.integers(SPECIAL + 1, 60), min_size=2, max_size=8),
    policy=st.sampled_from(["xstreamvggt", "sliding_window"]),
)
def test_special_tokens_of_anchor_and_window_give_way_last(budget, sizes, policy):
    cache = make_cache(policy=policy, budget_tokens=budget)
    run(cache, sizes)
    newest = sum(sizes[:-1])
    held = set(cache.layers[0].numbers.tolist())
    assert set(range(SPECIAL)) <= held
    assert set(range(newest, newest + SPECIAL)) <= held


def test_anchor_and_window_stay_whole_while_both_fit():
    cache = make_cache(budget_tokens=50)
    run(cache, [20] * 6)
    held = cache.layers[1].numbers.tolist()
    assert held[:20] == list(range(20))
    assert held[-20:] == list(range(100, 120))
    assert len(held) == 50


def test_sliding_window_keeps_the_anchor_and_the_newest_history():
    cache = make_cache(policy="sliding_window", budget_tokens=50)
    run(cache, [20] * 6)
    assert cache.layers[0].numbers.tolist() == [*range(20), *range(90, 120)]


def test_history_is_what_scores_best():
    cache = make_cache(budget_tokens=44)
    run(cache, [20, 20])
    query, key, value = frame_tensors(20, 2)
    history = cache.layers[0].store.keys[:, :, 20:40]
    best = importance(query, history, SPECIAL, 16).topk(4).indices.sort().values + 20
    cache.attend(0, query, key, value)
    assert cache.layers[0].numbers.tolist()[20:24] == best.tolist()


def test_attention_sees_past_and_newest_frame_whole():
    cache = make_cache(budget_tokens=30)
    run(cache, [20])
    query, key, value = frame_tensors(20, 1)
    _, first_key, first_value = frame_tensors(20, 0)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, torch.cat([first_key, key], 2), torch.cat([first_value, value], 2)
    )
    torch.testing.assert_close(cache.attend(0, query, key, value), expected)


def test_memory_does_not_grow_once_the_budget_is_full():
    cache = make_cache(budget_tokens=64)
    run(cache, [20] * 5)
    allocated, address = cache.nbytes, cache.layers[0].store.keys.data_ptr()
    run(cache, [20] * 30)
    assert cache.nbytes == allocated
    assert cache.layers[0].store.keys.data_ptr() == address
    stored = 2 * (64 + 20) * HEADS * DIM * 4 * 2
    assert cache.nbytes == stored + 2 * (64 + 20) * 8


def test_nothing_is_dropped_without_a_policy():
    cache = make_cache(policy="none")
    run(cache, [20] * 9)
    assert cache.layers[0].numbers.tolist() == list(range(180))
    _, key, _ = frame_tensors(20, 4)
    assert torch.equal(cache.layers[0].store.keys[:, :, 80:100], key)


def test_clear_begins_a_new_stream_in_the_same_allocation():
    cache = make_cache(budget_tokens=64)
    run(cache, [20] * 5)
    allocated = cache.nbytes
    assert not cache.first_frame
    cache.clear()
    assert cache.first_frame
    assert cache.statistics().tokens == 0
    assert cache.statistics().uncompressed_nbytes == 0
    run(cache, [20] * 5)
    assert cache.nbytes == allocated


def test_an_impossible_budget_is_refused_with_the_smallest_one():
    with pytest.raises(ConfigurationError, match=r"is 9, .* take 10; set it to at least 10"):
        make_cache(budget_tokens=9)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"policy": "fifo"}, "cache.policy 'fifo' is unknown; choose one of xstreamvggt"),
        ({"pool_size": 0}, "cache.pool_size is 0; it must be at least 1"),
        ({"camera_frames": 1}, "cache.camera_frames is 1; it must be at least 2"),
        ({"compatibility": "old"}, "cache.compatibility 'old' is unknown"),
    ],
)
def test_settings_out_of_range_are_refused(changes, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        CacheSettings(**changes)


def test_a_batch_is_refused():
    cache = make_cache()
    both = torch.zeros(2, HEADS, 20, DIM)
    with pytest.raises(ConfigurationError, match="batch of 2"):
        cache.attend(0, both, both, both)


@given(
    anchor=st.integers(SPECIAL, 90),
    history=st.integers(0, 200),
    window=st.integers(SPECIAL, 90),
    budget=st.integers(2 * SPECIAL, 300),
)
def test_shares_use_the_whole_budget_and_nothing_more(anchor, history, window, budget):
    spans = Spans(anchor, history, window)
    kept = shares(spans, budget, SPECIAL)
    assert kept.total == min(spans.total, budget)
    assert min(anchor, SPECIAL) <= kept.anchor <= anchor
    assert min(window, SPECIAL) <= kept.window <= window
    assert 0 <= kept.history <= history


def test_selection_returns_sorted_distinct_indices():
    spans = Spans(20, 30, 20)
    scores = torch.arange(70.0).flip(0)
    indices, kept = select(scores, spans, 30, SPECIAL)
    assert kept == Spans(15, 0, 15)
    assert indices.tolist() == [*range(15), *range(50, 65)]


@given(patches=st.integers(0, 70), pool=st.integers(1, 20))
def test_pooled_query_is_the_mean_over_specials_and_runs(patches, pool):
    query, _, _ = frame_tensors(SPECIAL + patches, patches)
    flat = query[0].mean(0)
    runs = [flat[SPECIAL + i : SPECIAL + i + pool] for i in range(0, patches, pool)]
    if patches <= 1:
        runs = list(flat[SPECIAL:, None])
    expected = torch.stack([*flat[:SPECIAL], *(run.mean(0) for run in runs)]).mean(0)
    torch.testing.assert_close(pooled_query(query, SPECIAL, pool), expected, atol=1e-5, rtol=1e-4)


@given(count=st.integers(1, 40), capacity=st.integers(2, 12))
def test_camera_cache_keeps_the_first_and_the_newest(count, capacity):
    cache = CameraCache(capacity)
    for value in range(count):
        token = torch.full((1, 1, 1, 2), float(value))
        cache.attend(token, token, token)
    newest = range(max(1, count - capacity + 1), count)
    assert sorted(cache.store.keys[0, 0, :, 0].tolist()) == [0.0, *map(float, newest)]


def test_camera_memory_is_bounded_and_per_iteration():
    cache = make_cache(camera_frames=4)
    for value in range(10):
        for iteration in range(2):
            token = torch.full((1, 1, 1, 2), float(value + 100 * iteration))
            cache.attend_camera(iteration, 0, token, token, token)
    assert sorted(cache.camera[0][0].store.keys[0, 0, :, 0].tolist()) == [0, 7, 8, 9]
    assert sorted(cache.camera[1][0].store.keys[0, 0, :, 0].tolist()) == [100, 107, 108, 109]
    assert cache.camera_nbytes == 2 * (2 * 4 * 2 * 4 + 4 * 8)


def test_a_cleared_camera_cache_begins_anew_after_it_was_full():
    cache = CameraCache(3)
    for start in (0, 100):
        for value in range(start, start + 7):
            token = torch.full((1, 1, 1, 2), float(value))
            cache.attend(token, token, token)
        assert sorted(cache.store.keys[0, 0, :, 0].tolist()) == [start, start + 5, start + 6]
        cache.clear()


def test_the_published_camera_cache_is_under_the_token_budget():
    cache = make_cache(budget_tokens=30, camera_frames=2, compatibility="published")
    for value in range(60):
        token = torch.full((1, 1, 1, 2), float(value))
        cache.attend_camera(value % 2, 0, token, token, token)
        assert len(cache.camera[0][0].store) == min(value + 1, 30)
    held = cache.camera[0][0].store.numbers.tolist()
    assert held == [0, *range(31, 60)]
    assert cache.camera[0][0] is cache.camera[1][0]


def test_statistics_are_those_of_the_last_frame():
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


def test_frames_of_two_sizes_never_take_more_room_than_the_larger_needs():
    cache = make_cache(budget_tokens=64)
    run(cache, [20, 20, 40, 20])
    assert cache.layers[0].store.capacity == 64 + 40


def test_several_frames_at_once_are_refused():
    cache = make_cache()
    three = torch.zeros(1, HEADS, 3, DIM)
    with pytest.raises(ConfigurationError, match="one frame at a time, not 3"):
        cache.attend_camera(0, 0, three, three, three)


def test_store_grows_without_losing_tokens():
    store = TokenStore()
    for start in range(0, 50, 5):
        tokens = torch.arange(start, start + 5.0)[None, None, :, None]
        store.append(tokens, -tokens, start)
    assert store.keys[0, 0, :, 0].tolist() == list(range(50))
    assert store.values[0, 0, :, 0].tolist() == [-float(i) for i in range(50)]
    store.keep(torch.tensor([3, 40, 49]))
    assert store.keys[0, 0, :, 0].tolist() == [3, 40, 49]
    assert store.numbers.tolist() == [3, 40, 49]
