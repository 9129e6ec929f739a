# SPDX-License-Identifier: Apache-2.0
"""Once the budget is full a step has the same shapes and addresses for ever, and waits for nobody.

So that a step can be captured as a CUDA graph.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from dispatch_recorder import WAITING, Recorder
from streams import frame_tensors, layout, make_cache, run, step, updates

from xsvggt_ros.cache.camera_memory import CameraMemory
from xsvggt_ros.cache.kv_cache import KvCache
from xsvggt_ros.cache.settings import POLICIES


def recorded_step(cache: KvCache, seed: int) -> Recorder:
    tensors = frame_tensors(20, seed, cache.layout)
    update = updates(20, seed)
    recorder = Recorder()
    with recorder:
        for layer in range(cache.layout.layers):
            cache.attend(layer, *tensors)
            cache.absorb(layer, update)
    cache.end_frame()
    return recorder


def addresses(cache: KvCache) -> list[int]:
    return [tensor.untyped_storage()._cdata for tensor in cache.tensors]


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "none"])
@pytest.mark.parametrize(
    "kind",
    [
        {"key_bits": 4, "value_bits": 4},
        {"key_bits": 16, "value_bits": 16},
        {"key_bits": 2, "value_bits": 8, "anchor_bits": 16, "index_sets": "head"},
        {"key_bits": 4, "value_bits": 4, "window_bits": 16},
    ],
    ids=["4/4", "16/16", "2/8 mixed, per head", "4/4, window 16"],
)
def test_a_full_cache_steps_in_the_same_shapes_and_places(
    policy: str, kind: dict[str, Any]
) -> None:
    cache = make_cache(layout(heads=3), policy=policy, budget_tokens=70, **kind)
    run(cache, [20] * 12)
    places = addresses(cache)
    first, second = recorded_step(cache, 12), recorded_step(cache, 13)
    assert first.operations == second.operations
    assert first.allocated == second.allocated
    assert addresses(cache) == places
    assert not WAITING & {name for name, _ in first.operations}


@pytest.mark.parametrize("capacity", [2, 6])
def test_a_camera_memory_takes_the_same_steps_from_its_second_frame_on(capacity: int) -> None:
    memory = CameraMemory(capacity, 2, 1)
    recorders, places = [], []
    for seed in range(20):
        token = torch.randn(3, 1, 2, 1, 8, generator=torch.Generator().manual_seed(seed))
        with Recorder() as recorder:
            for iteration in range(2):
                memory.attend(iteration, 0, *token)
        recorders.append(recorder)
        places.append([tensor.data_ptr() for tensor in memory.tensors])
    assert all(each.operations == recorders[1].operations for each in recorders[2:])
    assert all(each == places[1] for each in places[2:])
    assert not WAITING & {name for name, _ in recorders[-1].operations}


def test_filling_up_waits_for_nobody_either() -> None:
    cache = make_cache(budget_tokens=70, key_bits=4, value_bits=4)
    run(cache, [20])
    for seed in range(1, 6):
        names = {name for name, _ in recorded_step(cache, seed).operations}
        assert not WAITING & names


def test_unquantized_tokens_are_attended_to_where_they_lie() -> None:
    cache = make_cache(layout(dim=64), budget_tokens=2000, policy="xstreamvggt")
    run(cache, [20] * 101)
    recorder = recorded_step(cache, 101)
    whole = 2 * 64 * 2000 * 4
    # Scores and their order are a few numbers a token; a copy of keys or values would show.
    assert recorder.allocated / cache.layout.layers < whole


@pytest.mark.parametrize("key_bits", [4, 16])
def test_nothing_stands_in_the_way_of_flash_attention(key_bits: int) -> None:
    cache = make_cache(layout(dim=64), budget_tokens=70, key_bits=key_bits, value_bits=4)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        run(cache, [20] * 9)  # PyTorch refuses where a mask or a layout forbids that kernel
    assert cache.statistics().tokens == 70


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_flash_attention_on_a_gpu(dtype: torch.dtype) -> None:
    sizes = layout(dim=64, dtype=dtype, device="cuda")
    cache = make_cache(sizes, budget_tokens=70, key_bits=4, value_bits=4)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        for seed in range(9):
            step(cache, *frame_tensors(20, seed, sizes), updates(20, seed).cuda())
    assert cache.statistics().tokens == 70


@pytest.mark.gpu
def test_a_step_never_synchronises_a_gpu() -> None:
    sizes = layout(dim=64, dtype=torch.float16, device="cuda")
    cache = make_cache(sizes, budget_tokens=70, key_bits=4, value_bits=4)
    frames = [(frame_tensors(20, seed, sizes), updates(20, seed).cuda()) for seed in range(9)]
    for tensors, update in frames[:6]:
        step(cache, *tensors, update)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for tensors, update in frames[6:]:
            step(cache, *tensors, update)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_a_step_on_a_gpu_equals_one_on_the_cpu() -> None:
    caches = [
        make_cache(layout(dim=64, device=device), budget_tokens=70, key_bits=4, value_bits=4)
        for device in ("cpu", "cuda")
    ]
    for seed in range(9):
        mixed = [
            step(
                cache,
                *frame_tensors(20, seed, cache.layout),
                updates(20, seed).to(cache.layout.token.device),
            ).cpu()
            for cache in caches
        ]
        torch.testing.assert_close(*mixed, rtol=1e-3, atol=1e-3)
