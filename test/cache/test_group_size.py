# SPDX-License-Identifier: Apache-2.0
"""Small frames are divided into groups as well, so that they lose tokens, not themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from selection import examples
from streams import DIM, HEADS, LAYERS, SPECIAL, frame_tensors, held, layout, make_cache, run, step

from xsvggt_ros.cache.layer_group import GroupedLayer
from xsvggt_ros.cache.layer_plan import MIB, cache_nbytes, history_group_size, plan_layer
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.cache.token_storage import PackedKeys

FRAMES = st.lists(st.integers(SPECIAL + 1, 420), min_size=2, max_size=6)
WIDTH = st.sampled_from([2, 4, 8])


@pytest.mark.parametrize(
    ("group_size", "frame", "expected"),
    [
        (64, 1041, 64),
        (64, 782, 64),
        (64, 593, 64),
        (64, 512, 64),
        (64, 305, 38),
        (64, 197, 24),
        (64, 53, 8),
        (64, 6, 8),
        (4, 53, 4),
        (4096, 1041, 130),
    ],
)
def test_groups_are_an_eighth_of_a_frame_at_most(
    group_size: int, frame: int, expected: int
) -> None:
    asked = CacheSettings("xstreamvggt", group_size=group_size)
    assert history_group_size(asked, frame) == expected


@pytest.mark.parametrize("policy", ["none", "lingbot"])
def test_groups_are_as_set_where_no_single_token_leaves(policy: str) -> None:
    assert history_group_size(CacheSettings(policy), 53) == 64


def test_only_the_history_is_divided_more_finely() -> None:
    asked = CacheSettings("xstreamvggt", anchor_bits=8, window_bits=16)
    small = plan_layer(asked, slots=424, anchor=53, frame=53, special=SPECIAL)
    assert [part.group_size for part in small.parts] == [64, 64, 8, 64]
    official = plan_layer(asked, slots=8192, anchor=1041, frame=1041, special=SPECIAL)
    assert [part.group_size for part in official.parts] == [64, 64, 64, 64]


@pytest.mark.parametrize("index_sets", ["layer", "head"])
@pytest.mark.parametrize("frame", [53, 100, 197])
@pytest.mark.parametrize("alone", [False, True], ids=["a group", "a single token"])
def test_the_best_tokens_of_every_small_frame_outlive_the_rest_of_it(
    frame: int, index_sets: str, alone: bool
) -> None:
    frames, group = 30, 1 if alone else history_group_size(CacheSettings("ffn_residual"), frame)
    cache = make_cache(
        policy="ffn_residual", budget_tokens=8 * frame, key_bits=4, value_bits=4,
        index_sets=index_sets,
    )  # fmt: skip
    best = slice(SPECIAL, SPECIAL + group)
    update = torch.full((1, frame, 6), 1e-3)
    update[:, best] = 1.0
    for seed in range(frames):
        step(cache, *frame_tensors(frame, seed), update)
    for index_set in range(len(cache.layers[0].numbers)):
        numbers = torch.tensor(held(cache, index_set=index_set))
        kept = numbers[(numbers % frame >= best.start) & (numbers % frame < best.stop)]
        assert len(kept) == frames * group


@settings(deadline=None, max_examples=examples(40))
@given(
    sizes=FRAMES,
    budget=st.integers(2 * SPECIAL, 1500),
    policy=st.sampled_from(["xstreamvggt", "random", "sliding_window"]),
    key_bits=WIDTH,
    index_sets=st.sampled_from(["layer", "head"]),
)
def test_no_group_is_larger_than_its_size_whatever_frames_come(
    sizes: list[int], budget: int, **kind: Any
) -> None:
    cache = make_cache(budget_tokens=budget, value_bits=4, **kind)
    seen = largest = 0
    for seed, tokens in enumerate(sizes):
        run(cache, [tokens], start=seed)
        seen += tokens
        largest = max(largest, tokens)
        for layer in cache.layers:
            assert layer.tokens == min(seen, budget)
            assert isinstance(layer, GroupedLayer)
            history = layer.segments[2]
            assert history.plan.group_size == history_group_size(cache.settings, largest)
            assert isinstance(history.keys, PackedKeys)
            occupancy = history.keys.occupancy()
            assert bool((occupancy <= history.plan.group_size).all())


@settings(deadline=None, max_examples=examples(40))
@given(
    frame=st.integers(SPECIAL + 1, 420),
    frames=st.integers(2, 5),
    key_bits=WIDTH,
    anchor_bits=st.sampled_from([0, 8]),
    window_bits=st.sampled_from([0, 16]),
    index_sets=st.sampled_from(["layer", "head"]),
)
def test_what_is_foretold_for_any_size_of_frame_is_allocated(
    frame: int, frames: int, **kind: Any
) -> None:
    cache = make_cache(budget_tokens=frames * frame, value_bits=4, **kind)
    run(cache, [frame] * (frames + 2))
    told = cache_nbytes(
        cache.settings, cache.layout, budget=frames * frame, anchor=frame, frames={frame}
    )
    assert cache.nbytes + cache.scratch_nbytes == told


@settings(deadline=None, max_examples=examples(40))
@given(
    kib=st.integers(400, 2500),
    changed=st.integers(400, 2500),
    sizes=FRAMES,
    adaptive=st.sampled_from(["none", "both"]),
    key_bits=WIDTH,
    index_sets=st.sampled_from(["layer", "head"]),
)
def test_the_byte_cap_holds_whatever_frames_come(
    kib: int, changed: int, sizes: list[int], adaptive: str, **kind: Any
) -> None:
    cache = make_cache(budget_mib=kib / 1024, adaptive=adaptive, value_bits=4, **kind)
    for seed, tokens in enumerate(sizes):
        run(cache, [tokens], start=seed)
        assert cache.nbytes + cache.scratch_nbytes <= cache.settings.budget_mib * MIB
        if seed == 1:
            cache.configure(replace(cache.settings, budget_mib=changed / 1024))
            assert cache.nbytes + cache.scratch_nbytes <= cache.settings.budget_mib * MIB


def test_finer_groups_cost_what_their_grids_take() -> None:
    sizes, frame, budget = layout(), 53, 424

    def reckoned(group_size: int) -> int:
        asked = CacheSettings("xstreamvggt", group_size=group_size)
        return cache_nbytes(asked, sizes, budget=budget, anchor=frame, frames={frame})

    anchors = -(-frame // 8) - 1  # with groups of 8 the anchor has more of them, too
    grid = 2 * 2 * HEADS * DIM * LAYERS
    assert reckoned(8) - reckoned(64) == anchors * grid
