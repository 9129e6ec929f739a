# SPDX-License-Identifier: Apache-2.0
"""The caches equal the reference's in the compatibility mode."""

import pytest
import reference
import torch
from reference import CONFIG, TOLERANCE, deviation

from xsvggt_ros.cache.policies.importance import importance
from xsvggt_ros.cache.published import kept_tokens, rounded, rounded_per_channel
from xsvggt_ros.cache.settings import CacheSettings

OUTPUTS = reference.tensors("outputs")
UNITS = reference.tensors("units")
BUDGET, DEGENERATE = CONFIG["budget"], CONFIG["budget_degenerate"]


def published(
    policy: str, budget: int = 8192, pool_size: int = 16, bits: int = 16
) -> CacheSettings:
    return CacheSettings(
        policy,
        budget,
        pool_size=pool_size,
        compatibility="published",
        key_bits=bits,
        value_bits=bits,
    )


MODES = {
    "a_full": published("none"),
    "b_prune_p16": published("xstreamvggt", BUDGET, 16),
    "b_prune_p4": published("xstreamvggt", BUDGET, 4),
    "c_slide": published("sliding_window", BUDGET),
    "g_degenerate": published("xstreamvggt", DEGENERATE),
}
QUANTIZED_MODES = {
    "d_quant": published("none", bits=4),
    "e_prune_quant": published("xstreamvggt", BUDGET, 16, bits=4),
}
EARLY = 3
"""Frames before the first rounding that flips: a flip of one code changes all that follows."""
LATER = 2e-2
"""How far apart two runs are that differ by one flip; meta.json measures 1e-3 to 1e-2."""


class Run:
    """One mode over all golden frames."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.cache = reference.kv_cache((MODES | QUANTIZED_MODES)[mode])
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
                store = self.cache.layers[-1].store
                self.last_layer.append((store.keys[0].clone(), store.values[0].clone()))
        self.predictions = predictions

    def all(self, field: str) -> torch.Tensor:
        return torch.cat([getattr(prediction, field)[0] for prediction in self.predictions])


@pytest.fixture(scope="module", params=MODES)
def run(request) -> Run:
    return Run(request.param)


def test_poses(run):
    assert deviation(run.all("pose_encodings"), OUTPUTS[f"{run.mode}.pose_enc_iters"]) <= TOLERANCE


def test_dense_outputs(run):
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


def test_tokens_after_each_frame(run):
    assert run.tokens == reference.META["modes"][run.mode]["cache_tokens_after_frame"]


def test_which_tokens_are_kept(run):
    for layer in range(CONFIG["depth"]):
        golden = OUTPUTS.get(f"{run.mode}.kept{layer}")
        if golden is None:
            continue
        for frame, expected in enumerate(golden.tolist()):
            assert run.kept[frame][layer] == [token for token in expected if token >= 0]


def test_cached_keys_and_values(run):
    for layer in (0, CONFIG["depth"] - 1):
        for letter, tensor in (("k", "keys"), ("v", "values")):
            actual = getattr(run.cache.layers[layer].store, tensor)[0]
            name = f"{run.mode}.{letter}{layer}"
            if name in OUTPUTS:
                assert deviation(actual, OUTPUTS[name]) <= TOLERANCE, name
            elif f"{name}.every4" in OUTPUTS:
                assert deviation(actual[:, ::4], OUTPUTS[f"{name}.every4"]) <= TOLERANCE, name


def test_shared_camera_cache():
    run = Run("a_full")
    camera = run.cache.camera[0]
    assert len(camera.store) == reference.META["modes"]["a_full"]["camera_cache_tokens"]
    assert deviation(camera.store.keys[0], OUTPUTS["a_full.camera_k0"]) <= TOLERANCE
    assert deviation(camera.store.values[0], OUTPUTS["a_full.camera_v0"]) <= TOLERANCE


def test_importance_unit():
    frame = UNITS["p_q"].shape[2]
    history = UNITS["p_k"][:, :, frame:-frame]
    scores = importance(UNITS["p_q"][0], history[0], special=5, pool_size=4)
    assert deviation(scores, UNITS["p_scores"]) <= TOLERANCE
    chosen = scores.topk(len(UNITS["p_topk_rel"])).indices.sort().values
    assert chosen.tolist() == UNITS["p_topk_rel"].sort().values.tolist()


def test_published_selection_unit():
    keys, values, query = UNITS["p_k"], UNITS["p_v"], UNITS["p_q"]
    kept = kept_tokens(query[0], keys[0], 5, published("xstreamvggt", 70, 4))
    assert kept is not None
    assert torch.equal(keys[:, :, kept], UNITS["p_k_out"])
    assert torch.equal(values[:, :, kept], UNITS["p_v_out"])


def test_simulated_quantization_unit():
    keys, values = UNITS["q_k_in"], UNITS["q_v_in"]
    once, twice = rounded_per_channel(keys, 4), rounded_per_channel(UNITS["q_k_out"], 4)
    assert deviation(once, UNITS["q_k_out"]) <= TOLERANCE
    assert deviation(twice, UNITS["q_k_out2"]) <= TOLERANCE
    assert deviation(rounded(values, 4), UNITS["q_v_out"]) <= TOLERANCE
    assert deviation(rounded(UNITS["q_v_out"], 4), UNITS["q_v_out2"]) <= TOLERANCE


@pytest.fixture(scope="module", params=QUANTIZED_MODES)
def quantized(request) -> Run:
    return Run(request.param)


def test_simulated_quantization_follows_the_reference(quantized):
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


def test_simulated_quantization_leaves_the_references_caches(quantized):
    for frame in (0, 1):
        for letter, tensor in zip("kv", quantized.last_layer[frame], strict=True):
            name = f"{quantized.mode}.{letter}{CONFIG['depth'] - 1}.after{frame}"
            assert deviation(tensor, OUTPUTS[name]) <= TOLERANCE, name


def test_simulated_quantization_keeps_what_the_reference_keeps(quantized):
    assert quantized.tokens == reference.META["modes"][quantized.mode]["cache_tokens_after_frame"]
    for layer in range(CONFIG["depth"]):
        golden = OUTPUTS.get(f"{quantized.mode}.kept{layer}")
        if golden is None:
            continue
        for frame, expected in enumerate(golden.tolist()[: EARLY + 1]):
            assert quantized.kept[frame][layer] == [token for token in expected if token >= 0]


def test_simulated_quantization_saves_no_byte():
    statistics = Run("e_prune_quant").cache.statistics()
    assert (statistics.key_bits, statistics.value_bits) == (16, 16)
    assert statistics.nbytes >= CONFIG["depth"] * 2 * 2 * BUDGET * 64 * 4
