# SPDX-License-Identifier: Apache-2.0
"""The camera head's memory: the first, the newest and the most attended frames."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from streams import make_cache

from xsvggt_ros.cache.camera_memory import CameraMemory
from xsvggt_ros.cache.published import PublishedCameraMemory


def token(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 2), float(value))


def camera_memory(capacity: int) -> CameraMemory:
    return CameraMemory(capacity, 1, 1)


def remembered(memory: CameraMemory, iteration: int = 0, channel: int = 0) -> list[float]:
    keys = memory._keys[iteration * memory._blocks, :, : len(memory)]
    return sorted(keys[0, :, channel].tolist())


@given(count=st.integers(1, 40), capacity=st.integers(2, 12))
def test_the_first_and_the_newest_stay(count: int, capacity: int) -> None:
    cache = camera_memory(capacity)
    for value in range(count):
        cache.attend(0, 0, token(value), token(value), token(value))
    tokens = remembered(cache)
    assert len(tokens) == len(set(tokens)) == min(count, capacity)
    assert tokens[0] == 0
    newest = range(max(0, count - capacity // 2), count)
    assert set(map(float, newest)) <= set(tokens)


def test_the_most_attended_of_the_older_ones_stay() -> None:
    cache = camera_memory(8)
    for number in range(40):
        # Tokens 3, 10 and 20 point to where every query looks; the others away from it.
        towards = 2.0 if number in (3, 10, 20) else -2.0
        key = torch.tensor([towards, float(number)])[None, None, None]
        cache.attend(0, 0, torch.tensor([2.0, 0.0])[None, None, None], key, key)
    kept = remembered(cache, channel=1)
    assert kept == [0, 3, 10, 20, 36, 37, 38, 39]


def test_attention_is_over_all_that_is_remembered() -> None:
    generator = torch.Generator().manual_seed(0)
    cache, unbounded = camera_memory(50), camera_memory(0)
    keys, values = [], []
    for _ in range(50):
        query, key, value = torch.randn(3, 1, 2, 1, 4, generator=generator)
        keys.append(key)
        values.append(value)
        expected = torch.nn.functional.scaled_dot_product_attention(
            query, torch.cat(keys, 2), torch.cat(values, 2)
        )
        torch.testing.assert_close(cache.attend(0, 0, query, key, value), expected)
        torch.testing.assert_close(unbounded.attend(0, 0, query, key, value), expected)


def test_memory_is_bounded_and_per_iteration() -> None:
    cache = make_cache(camera_frames=4)
    for value in range(10):
        for iteration in range(2):
            each = token(value + 100 * iteration)
            cache.attend_camera(iteration, 0, each, each, each)
    assert isinstance(cache.camera, CameraMemory)
    for iteration in range(2):
        tokens = remembered(cache.camera, iteration)
        assert len(tokens) == 4
        assert {0.0, 8.0, 9.0} <= {each - 100 * iteration for each in tokens}
    # Keys and values; number, drawn and newest attention of each; three counters for all. One place
    # more for a frame that leaves nothing.
    assert cache.camera_nbytes == 2 * (2 * 5 * 2 * 4 + 5 * 8 + 2 * 5 * 4) + 3 * 8


def test_a_cleared_cache_begins_again_after_it_was_full() -> None:
    cache = camera_memory(3)
    for start in (0, 100):
        for value in range(start, start + 7):
            cache.attend(0, 0, token(value), token(value), token(value))
        tokens = remembered(cache)
        assert len(tokens) == 3
        assert (tokens[0], tokens[-1]) == (start, start + 6)
        cache.clear()


@pytest.mark.parametrize("capacity", [2, 3, 5, 9, 20, 0])
def test_resizing_keeps_the_first_and_the_newest(capacity: int) -> None:
    cache = camera_memory(9)
    for value in range(30):
        cache.attend(0, 0, token(value), token(value), token(value))
    before = remembered(cache)
    cache.resize(capacity)
    after = remembered(cache)
    assert set(after) <= set(before)
    assert len(after) == (min(capacity, 9) if capacity else 9)
    assert (after[0], after[-1]) == (0, 29)
    for value in range(30, 60):
        cache.attend(0, 0, token(value), token(value), token(value))
    tokens = remembered(cache)
    assert tokens[0] == 0
    assert tokens[-1] == 59
    assert len(tokens) == (capacity or 39)


def test_the_released_camera_cache_is_under_the_token_budget() -> None:
    cache = make_cache(
        budget_tokens=30, camera_frames=2, policy="xstreamvggt", compatibility="published"
    )
    assert isinstance(cache.camera, PublishedCameraMemory)
    for value in range(60):
        cache.attend_camera(value % 2, 0, token(value), token(value), token(value))
        assert len(cache.camera.blocks[0].store) == min(value + 1, 30)
    assert cache.camera.blocks[0].store.numbers.tolist() == [0, *range(31, 60)]
