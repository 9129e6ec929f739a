# SPDX-License-Identifier: Apache-2.0
"""LingBot-Map's network and memory equal the reference's on its golden tensors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import lingbot_reference as reference
import pytest
import torch
from lingbot_reference import ANCHORS, FRAMES, MODES, Outputs
from reference import TOLERANCE

from xsvggt_ros.cache.kv_cache import KvCache
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.model.config import LINGBOT, PRESETS
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.model.weight_files import track_head_shapes
from xsvggt_ros.stream.step_runner import cache_layout
from xsvggt_ros.training.forgetting import windowed

ROUNDED = {16: 1e-6, 8: 5e-4, 4: 2e-2}
"""Largest deviation of poses by the width of keys and values."""
LATER = FRAMES - ANCHORS
WHOLE = next(
    name
    for name, mode in MODES.items()
    if mode["keyframe_interval"] == 1 and mode["window"] >= LATER
)
"""A mode in which every frame is stored and none leaves."""
SHORT = {"window_frames": 2, "keyframe_interval": 1}
"""A window that some frames leave."""


def settings(mode: str, **changes: Any) -> CacheSettings:
    window, interval = MODES[mode]["window"], MODES[mode]["keyframe_interval"]
    kept = {"window_frames": window, "keyframe_interval": interval}
    return CacheSettings(**{"key_bits": 16, "value_bits": 16} | kept | changes)


@torch.inference_mode()
def run(own: StreamVggt, cache: KvCache) -> Outputs:
    images = reference.frames()
    predictions = []
    for part in (images[:ANCHORS], *images[ANCHORS:].split(1)):
        predictions.append(own(part[None], cache, ("camera", "depth")))
        cache.end_frame()
    return Outputs.of(predictions)


def test_official_names_and_shapes_without_allocating_them() -> None:
    official = json.loads((reference.GOLDEN / "state_dict_full.json").read_text())
    with torch.device("meta"):
        network = StreamVggt(LINGBOT)
    own = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    assert len(official) == 1342
    assert own == official
    assert track_head_shapes(LINGBOT) == {}
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_157_943_540
    assert PRESETS["lingbot"] == LINGBOT


@pytest.mark.parametrize("kind", ["trained", "for inference"])
@pytest.mark.parametrize("mode", MODES)
def test_the_network_equals_the_reference_over_a_memory_without_economy(
    mode: str, kind: str
) -> None:
    own = reference.network() if kind == "trained" else reference.inference_network()
    deviations = reference.run_plainly(own, mode).deviations(mode)
    assert len(deviations) == 5
    assert max(deviations.values()) <= TOLERANCE


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bits", ROUNDED)
def test_the_cache_equals_the_reference(mode: str, bits: int) -> None:
    network = reference.network()
    cache = KvCache(settings(mode, key_bits=bits, value_bits=bits), cache_layout(network))
    deviations = run(network, cache).deviations(mode)
    assert cache.settings.policy == "lingbot"
    assert max(deviations.values()) <= ROUNDED[bits]


@pytest.mark.parametrize("mode", MODES)
def test_the_newest_frame_may_wait_as_it_came(mode: str) -> None:
    network = reference.network()
    waiting = settings(mode, key_bits=8, value_bits=8, window_bits=16)
    deviations = run(network, KvCache(waiting, cache_layout(network))).deviations(mode)
    assert max(deviations.values()) <= ROUNDED[8]


def test_everything_kept_equals_a_window_that_nothing_leaves() -> None:
    network = reference.network()
    cache = KvCache(settings(WHOLE, policy="none"), cache_layout(network))
    assert max(run(network, cache).deviations(WHOLE).values()) <= ROUNDED[16]


def test_a_whole_sequence_at_once_equals_the_stream() -> None:
    network = reference.network()
    with torch.inference_mode():
        whole = Outputs.of(
            [network.forward_sequence(reference.frames()[None], ("camera", "depth"))]
        )
    assert max(whole.deviations(WHOLE).values()) <= ROUNDED[16]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_trained_equals_the_reference(mode: str) -> None:
    network = reference.network()
    window, interval = MODES[mode]["window"], MODES[mode]["keyframe_interval"]
    images = reference.frames()[None]
    memory = windowed(
        network.config,
        FRAMES,
        network.config.tokens_per_frame(*images.shape[-2:]),
        window=window,
        interval=interval,
    )
    with torch.inference_mode():
        whole = Outputs.of([network(images, memory, ("camera", "depth"))])
    assert max(whole.deviations(mode).values()) <= ROUNDED[16]


def _time_stands_still(network: StreamVggt, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reference.PlainMemory, "times", lambda self, frames, device: torch.zeros(frames))


def _scale_token_of_later_frames(network: StreamVggt, patch: pytest.MonkeyPatch) -> None:
    token = network.aggregator.scale_token
    token[:, 0] = token[:, 1].clone()


def _a_special_token_less(network: StreamVggt, patch: pytest.MonkeyPatch) -> None:
    fewer = replace(network.config, scale_token=False)
    network.aggregator.config = network.config = fewer
    network.depth_head.special_tokens = fewer.special_tokens


@pytest.mark.parametrize(
    "damage", [_time_stands_still, _scale_token_of_later_frames, _a_special_token_less]
)
def test_the_tolerance_notices(
    damage: Callable[[StreamVggt, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = reference.network()
    damage(network, monkeypatch)
    deviations = reference.run_plainly(network, WHOLE).deviations(WHOLE)
    assert deviations["pose_enc"] > 100 * TOLERANCE
    assert deviations["depth.sub"] > 10 * TOLERANCE


def test_time_counts_stored_frames_and_begins_again_with_a_session() -> None:
    network = reference.network()
    cache = KvCache(settings(WHOLE, **SHORT | {"keyframe_interval": 2}), cache_layout(network))
    images = reference.frames()
    with torch.inference_mode():
        for _ in range(2):
            times = []
            for part in (images[:ANCHORS], *images[ANCHORS:].split(1)):
                network(part[None], cache, ("camera", "depth"))
                cache.end_frame()
                times.append(int(cache.times(1, network.device)))
            assert times == [ANCHORS, *(ANCHORS + (k + 2) // 2 for k in range(LATER))]
            assert cache._keyframes.stored == times[-1]
            cache.clear()
            assert int(cache.times(1, network.device)) == cache._keyframes.stored == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"window_frames": 1},
        {"key_bits": 8, "value_bits": 8},
        {"policy": "balanced", "budget_tokens": 300},
        {"keyframe_interval": 3},
    ],
)
def test_time_goes_on_through_live_changes(changes: dict[str, Any]) -> None:
    network = reference.network()
    cache = KvCache(settings(WHOLE, **SHORT), cache_layout(network))
    images = reference.frames()
    with torch.inference_mode():
        network(images[None, :ANCHORS], cache, ("camera",))
        cache.end_frame()
        for index, part in enumerate(images[ANCHORS:].split(1)):
            if index == LATER // 2:
                before = int(cache.times(1, network.device))
                cache.configure(replace(cache.settings, **changes))
                assert int(cache.times(1, network.device)) == before == ANCHORS + LATER // 2
            network(part[None], cache, ("camera",))
            cache.end_frame()
    interval = changes.get("keyframe_interval", 1)
    assert cache._keyframes.stored == ANCHORS + LATER // 2 + -(-(LATER - LATER // 2) // interval)
    assert int(cache.times(1, network.device)) == cache._keyframes.stored
