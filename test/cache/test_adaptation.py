# SPDX-License-Identifier: Apache-2.0
"""Budgets that follow the scene, and the layers' needs."""

from __future__ import annotations

from itertools import pairwise
from operator import le
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from streams import frame_tensors, grouped_layers, layout, make_cache, step

from xsvggt_ros.cache.adaptation import (
    MOST_SHARE,
    PERIOD,
    SceneLevel,
    SceneNovelty,
    layer_budgets,
    scene_budget,
)
from xsvggt_ros.cache.kv_cache import KvCache
from xsvggt_ros.cache.layer_plan import LayerPlan, SegmentCounts
from xsvggt_ros.cache.layer_segments import LayerSegments


@given(
    similarity=st.lists(st.floats(-1, 1), min_size=1, max_size=24),
    mean=st.integers(20, 9000),
    least=st.integers(10, 20),
)
def test_shares_never_exceed_the_total_and_stay_in_bounds(
    similarity: list[float], mean: int, least: int
) -> None:
    budgets = layer_budgets(similarity, mean, least)
    assert len(budgets) == len(similarity)
    assert sum(budgets) <= mean * len(similarity)
    assert sum(budgets) >= mean * len(similarity) - 2 * len(similarity)
    assert all(least <= budget <= max(least, MOST_SHARE * mean) for budget in budgets)


def test_the_more_alike_the_keys_the_smaller_the_share() -> None:
    budgets = layer_budgets([0.9, 0.5, 0.1], 1000, 10)
    assert budgets[0] < budgets[1] < budgets[2]
    assert layer_budgets([0.5] * 4, 1000, 10) == [1000] * 4
    # InfiniteVGGT's softmax over 1 - similarity, at temperature 0.5.
    weights = torch.softmax(torch.tensor([0.1, 0.5, 0.9]) / 0.5, 0)
    expected = [10 + 2970 * float(weight) for weight in weights]
    assert all(abs(got - want) <= 1 for got, want in zip(budgets, expected, strict=True))


def test_novelty_is_high_for_the_new_and_nothing_for_the_known() -> None:
    novelty = SceneNovelty()
    frames = torch.randn(5, 2, 45, 8, generator=torch.Generator().manual_seed(0))
    for frame in frames:
        novelty.observe(frame, 5)
        assert novelty.value > 0.5
    novelty.observe(frames[2], 5)
    assert abs(novelty.value) < 1e-5
    novelty.clear()
    novelty.observe(frames[2], 5)
    assert novelty.value == 1.0


def test_level_goes_up_at_once_and_down_slowly() -> None:
    level = SceneLevel()
    assert level.value == 1.0
    levels = [level.update(0.0, 0.0) for _ in range(40)]
    assert all(later < earlier for earlier, later in pairwise(levels))
    assert levels[-1] < 0.05
    assert level.update(0.3, 0.0) == 1.0
    assert level.update(0.0, 2.0) == 1.0


def test_the_budget_goes_in_steps_from_rest_to_full() -> None:
    assert scene_budget(1.0, 100, 200) == 200
    assert scene_budget(0.0, 100, 200) == scene_budget(0.05, 100, 200) == 100
    assert scene_budget(0.5, 100, 200) == 150
    assert len({scene_budget(part / 1000, 100, 200) for part in range(1001)}) == 9


def test_a_scene_at_rest_shrinks_the_budget_and_motion_brings_it_back() -> None:
    cache = make_cache(
        budget_tokens=120, budget_min_tokens=60, adaptive="scene", key_bits=4, value_bits=4
    )
    for seed in range(8):
        step(cache, *frame_tensors(20, seed), motion=1.0)
    assert cache.statistics().tokens == 120
    full = sum(layer.nbytes for layer in cache.layers)
    still = frame_tensors(20, 8)
    for _ in range(40):
        step(cache, *still, motion=0.0)
        assert cache.statistics().tokens <= cache.statistics().budget_tokens
    assert cache.statistics().budget_tokens == 60
    assert cache.statistics().tokens == 60
    assert sum(layer.nbytes for layer in cache.layers) < 0.6 * full
    step(cache, *still, motion=1.0)
    assert cache.statistics().budget_tokens == 120
    for seed in range(8):
        step(cache, *frame_tensors(20, seed), motion=1.0)
    assert cache.statistics().tokens == 120


def budgets_of(cache: KvCache) -> list[int]:
    """Return the tokens that each layer may hold."""
    return [layer.budget or 0 for layer in grouped_layers(cache)]


def test_layers_share_the_total_by_need() -> None:
    sizes = layout(layers=3)
    cache = make_cache(sizes, budget_tokens=100, adaptive="layers", key_bits=4, value_bits=4)
    for seed in range(2 * PERIOD + 6):
        query, key, value = frame_tensors(20, seed)
        for layer in range(3):
            # In the first layer all keys point the same way.
            own = key + 50.0 if layer == 0 else key
            cache.attend(layer, query, own, value)
            cache.absorb(layer, torch.zeros(1, 20, 6))
        cache.end_frame()
        budgets = budgets_of(cache)
        assert sum(budgets) <= 300
        assert all(map(le, cache.statistics().layer_tokens, budgets_of(cache)))
    assert budgets[0] < 60 < 110 < budgets[1]
    held = cache.statistics().layer_tokens
    assert held == tuple(budgets)
    cache.clear()
    step(cache, *frame_tensors(20, 0))
    assert budgets_of(cache) == [100] * 3


def test_both_together_stay_within_the_total() -> None:
    cache = make_cache(budget_tokens=100, adaptive="both", key_bits=4, value_bits=4)
    for seed in range(60):
        step(cache, *frame_tensors(20, seed // 20), motion=float(seed % 25 == 0))
        assert sum(layer.tokens for layer in cache.layers) <= 200
        assert all(map(le, cache.statistics().layer_tokens, budgets_of(cache)))


def test_sharing_out_loses_no_token_over_time() -> None:
    cache = make_cache(layout(layers=3), budget_tokens=101, adaptive="layers")
    for seed in range(6 * PERIOD):
        step(cache, *frame_tensors(20, seed))
    assert sum(budgets_of(cache)) == 303


def test_a_scene_at_rest_stays_at_rest() -> None:
    level = SceneLevel()
    for _ in range(100):
        level.update(0.3, 0.2)
    noise = torch.rand(4000, 2, generator=torch.Generator().manual_seed(0)) * 1e-3
    levels = [level.update(float(a), float(b)) for a, b in noise]
    assert max(levels[100:]) < 0.1


@pytest.mark.parametrize("bounds", [{"budget_tokens": 120}, {"budget_mib": 0.08}])
def test_a_wavering_scene_lays_the_cache_out_but_rarely(
    bounds: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make_cache(adaptive="scene", key_bits=4, value_bits=4, **bounds)
    for seed in range(20):
        step(cache, *frame_tensors(20, seed), motion=0.1)
    allocate = LayerSegments._allocate
    laid_out = []

    def allocated(segments: LayerSegments, plan: LayerPlan, rows: SegmentCounts) -> None:
        laid_out.append(segments)
        allocate(segments, plan, rows)

    monkeypatch.setattr(LayerSegments, "_allocate", allocated)
    still = frame_tensors(20, 20)
    for index in range(4 * PERIOD):
        step(cache, *still, motion=0.055 + 0.01 * (index % 2))
    assert len(laid_out) / cache.layout.layers <= 12
