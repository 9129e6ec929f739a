# SPDX-License-Identifier: Apache-2.0
"""The caches equal the reference's in the compatibility mode."""

from __future__ import annotations

import re

import pytest
import reference
import torch
from reference import CONFIG, META, TOLERANCE, deviation

from xsvggt_ros.cache.kv_cache import KvCache
from xsvggt_ros.cache.policies import importance
from xsvggt_ros.cache.published import (
    GrowingStore,
    PublishedCache,
    PublishedCameraMemory,
    kept_tokens,
    rounded,
    rounded_per_channel,
)
from xsvggt_ros.cache.settings import CacheSettings

OUTPUTS = reference.tensors("outputs")
UNITS = reference.tensors("units")
POLICIES = {"XStreamVGGT": "xstreamvggt", "SlidingWindow": "sliding_window", None: "none"}
"""Our names of the reference's ways to prune."""
SPECIAL = reference.config().special_tokens


def published(policy: str, *, budget: int = 8192, pool: int = 16, bits: int = 16) -> CacheSettings:
    return CacheSettings(
        policy,
        budget,
        pool_size=pool,
        compatibility="published",
        key_bits=bits,
        value_bits=bits,
    )


def settings_of(mode: str) -> CacheSettings:
    told = META["modes"][mode]["settings"]
    sizes = {name: told[name] for name in ("budget", "pool") if name in told}
    return published(POLICIES[told.get("prune")], bits=4 if "quant" in told else 16, **sizes)


EVERY_MODE = {name: settings_of(name) for name, told in META["modes"].items() if "settings" in told}
QUANTIZED_MODES = [name for name, each in EVERY_MODE.items() if each.key_bits < 16]
MODES = [name for name in EVERY_MODE if name not in QUANTIZED_MODES]
PRUNED_AND_QUANTIZED = next(name for name in QUANTIZED_MODES if EVERY_MODE[name].bounded)
UNIT_BUDGET, UNIT_POOL = (
    int(*re.findall(rf"p_\*:.*?{word} (\d+)", META["description"]["units"]))
    for word in ("budget", "pool")
)
EARLY = min(
    sum(each < TOLERANCE for each in META["modes"][name]["depth_sensitivity_relrms_per_frame"])
    for name in QUANTIZED_MODES
)
"""Frames before the first rounding that flips: a flip of one code changes all that follows."""
LATER = 2e-2
"""How far apart two runs are that differ by one flip; meta.json measures 1e-3 to 1e-2."""


def store_of(cache: KvCache, layer: int) -> GrowingStore:
    """Return where a layer of the published cache keeps its tokens."""
    found = cache.layers[layer]
    assert isinstance(found, PublishedCache)
    return found.store


class Run:
    """One mode over all golden frames."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.cache = reference.kv_cache(EVERY_MODE[mode])
        self.last_layer: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.kept: list[list[list[int]]] = []
        self.tokens: list[int] = []
        network = reference.network()
        predictions = []
        with torch.inference_mode():
            for frame in reference.frames():
                predictions.append(network(frame[None, None], self.cache))
                self.cache.end_frame()
                self.kept.append([layer.numbers[0].tolist() for layer in self.cache.layers])
                self.tokens.append(self.cache.statistics().tokens)
                store = store_of(self.cache, -1)
                self.last_layer.append((store.keys[0].clone(), store.values[0].clone()))
        self.predictions = predictions

    def all(self, field: str) -> torch.Tensor:
        return torch.cat([getattr(prediction, field)[0] for prediction in self.predictions])


@pytest.fixture(scope="module", params=MODES)
def run(request: pytest.FixtureRequest) -> Run:
    return Run(request.param)


def test_poses(run: Run) -> None:
    assert deviation(run.all("pose_encodings"), OUTPUTS[f"{run.mode}.pose_enc_iters"]) <= TOLERANCE


def test_dense_outputs(run: Run) -> None:
    for field, golden in (
        ("depth", "depth"),
        ("depth_confidence", "depth_conf"),
        ("points", "world_points"),
        ("points_confidence", "world_points_conf"),
    ):
        actual = run.all(field)
        expected = OUTPUTS[f"{run.mode}.{golden}.sub"]
        sub = reference.subsampled(actual)
        assert deviation(sub, expected.reshape(sub.shape)) <= TOLERANCE, field
        for frame in (0, len(actual) - 1):
            name = f"{run.mode}.{golden}.frame{frame}"
            if name in OUTPUTS:
                full = OUTPUTS[name].reshape(actual[frame].shape)
                assert deviation(actual[frame], full) <= TOLERANCE, name


def test_tokens_after_each_frame(run: Run) -> None:
    assert run.tokens == reference.META["modes"][run.mode]["cache_tokens_after_frame"]


def test_which_tokens_are_kept(run: Run) -> None:
    for layer in range(CONFIG["depth"]):
        golden = OUTPUTS.get(f"{run.mode}.kept{layer}")
        if golden is None:
            continue
        for frame, expected in enumerate(golden.tolist()):
            assert run.kept[frame][layer] == [token for token in expected if token >= 0]


def test_cached_keys_and_values(run: Run) -> None:
    for layer in (0, CONFIG["depth"] - 1):
        for letter, tensor in (("k", "keys"), ("v", "values")):
            actual = getattr(store_of(run.cache, layer), tensor)[0]
            name = f"{run.mode}.{letter}{layer}"
            if name in OUTPUTS:
                assert deviation(actual, OUTPUTS[name]) <= TOLERANCE, name
            elif f"{name}.every4" in OUTPUTS:
                assert deviation(actual[:, ::4], OUTPUTS[f"{name}.every4"]) <= TOLERANCE, name


def test_shared_camera_cache() -> None:
    run = Run("a_full")
    assert isinstance(run.cache.camera, PublishedCameraMemory)
    camera = run.cache.camera.blocks[0]
    assert len(camera.store) == reference.META["modes"]["a_full"]["camera_cache_tokens"]
    assert deviation(camera.store.keys[0], OUTPUTS["a_full.camera_k0"]) <= TOLERANCE
    assert deviation(camera.store.values[0], OUTPUTS["a_full.camera_v0"]) <= TOLERANCE


def test_importance_unit() -> None:
    frame = UNITS["p_q"].shape[2]
    history = UNITS["p_k"][:, :, frame:-frame]
    scores = importance(UNITS["p_q"][0], history[0], special=SPECIAL, pool_size=UNIT_POOL)
    assert deviation(scores, UNITS["p_scores"]) <= TOLERANCE
    chosen = scores.topk(len(UNITS["p_topk_rel"])).indices.sort().values
    assert chosen.tolist() == UNITS["p_topk_rel"].sort().values.tolist()


def test_published_selection_unit() -> None:
    keys, values, query = UNITS["p_k"], UNITS["p_v"], UNITS["p_q"]
    settings = published("xstreamvggt", budget=UNIT_BUDGET, pool=UNIT_POOL)
    kept = kept_tokens(query[0], keys[0], SPECIAL, settings)
    assert kept is not None
    assert torch.equal(keys[:, :, kept], UNITS["p_k_out"])
    assert torch.equal(values[:, :, kept], UNITS["p_v_out"])


def test_simulated_quantization_unit() -> None:
    keys, values = UNITS["q_k_in"], UNITS["q_v_in"]
    once, twice = rounded_per_channel(keys, 4), rounded_per_channel(UNITS["q_k_out"], 4)
    assert deviation(once, UNITS["q_k_out"]) <= TOLERANCE
    assert deviation(twice, UNITS["q_k_out2"]) <= TOLERANCE
    assert deviation(rounded(values, 4), UNITS["q_v_out"]) <= TOLERANCE
    assert deviation(rounded(UNITS["q_v_out"], 4), UNITS["q_v_out2"]) <= TOLERANCE


@pytest.fixture(scope="module", params=QUANTIZED_MODES)
def quantized(request: pytest.FixtureRequest) -> Run:
    return Run(request.param)


def test_simulated_quantization_follows_the_reference(quantized: Run) -> None:
    for field, golden in (
        ("pose_encodings", "pose_enc"),
        ("depth", "depth"),
        ("depth_confidence", "depth_conf"),
        ("points", "world_points"),
        ("points_confidence", "world_points_conf"),
    ):
        actual = quantized.all(field)
        if field == "pose_encodings":
            actual, expected = actual[:, -1], OUTPUTS[f"{quantized.mode}.pose_enc"]
        else:
            actual = reference.subsampled(actual)
            expected = OUTPUTS[f"{quantized.mode}.{golden}.sub"].reshape(actual.shape)
        assert deviation(actual[:EARLY], expected[:EARLY]) <= TOLERANCE, field
        assert deviation(actual[EARLY:], expected[EARLY:]) <= LATER, field


def test_simulated_quantization_leaves_the_references_caches(quantized: Run) -> None:
    for frame in (0, 1):
        for letter, tensor in zip("kv", quantized.last_layer[frame], strict=True):
            name = f"{quantized.mode}.{letter}{CONFIG['depth'] - 1}.after{frame}"
            assert deviation(tensor, OUTPUTS[name]) <= TOLERANCE, name


def test_simulated_quantization_keeps_what_the_reference_keeps(quantized: Run) -> None:
    assert quantized.tokens == reference.META["modes"][quantized.mode]["cache_tokens_after_frame"]
    for layer in range(CONFIG["depth"]):
        golden = OUTPUTS.get(f"{quantized.mode}.kept{layer}")
        if golden is None:
            continue
        for frame, expected in enumerate(golden.tolist()[: EARLY + 1]):
            assert quantized.kept[frame][layer] == [token for token in expected if token >= 0]


def test_simulated_quantization_saves_no_byte() -> None:
    statistics = Run(PRUNED_AND_QUANTIZED).cache.statistics()
    assert (statistics.key_bits, statistics.value_bits) == (16, 16)
    budget = EVERY_MODE[PRUNED_AND_QUANTIZED].budget_tokens
    assert statistics.nbytes >= CONFIG["depth"] * 2 * budget * CONFIG["embed_dim"] * 4
