# SPDX-License-Identifier: Apache-2.0
"""The caches equal the reference's in the compatibility mode."""

import pytest
import reference
import torch
from reference import CONFIG, TOLERANCE, deviation

from xsvggt_ros.cache.candidates import Candidates
from xsvggt_ros.cache.importance import importance
from xsvggt_ros.cache.published import published_policy
from xsvggt_ros.cache.selection import Spans
from xsvggt_ros.cache.settings import CacheSettings

OUTPUTS = reference.tensors("outputs")
UNITS = reference.tensors("units")
BUDGET, DEGENERATE = CONFIG["budget"], CONFIG["budget_degenerate"]
MODES = {
    "a_full": CacheSettings("none", compatibility="published"),
    "b_prune_p16": CacheSettings("xstreamvggt", BUDGET, 16, compatibility="published"),
    "b_prune_p4": CacheSettings("xstreamvggt", BUDGET, 4, compatibility="published"),
    "c_slide": CacheSettings("sliding_window", BUDGET, compatibility="published"),
    "g_degenerate": CacheSettings("xstreamvggt", DEGENERATE, compatibility="published"),
}


class Run:
    """One mode over all golden frames."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.cache = reference.kv_cache(MODES[mode])
        self.kept: list[list[list[int]]] = []
        self.tokens: list[int] = []
        network = reference.network()
        predictions = []
        with torch.inference_mode():
            for frame in reference.frames():
                predictions.append(network(frame[None, None], self.cache))
                self.cache.end_frame()
                self.kept.append([layer.numbers.tolist() for layer in self.cache.layers])
                self.tokens.append(self.cache.statistics().tokens)
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
    camera = run.cache.camera[0][0]
    assert len(camera.store) == reference.META["modes"]["a_full"]["camera_cache_tokens"]
    assert deviation(camera.store.keys[0], OUTPUTS["a_full.camera_k0"]) <= TOLERANCE
    assert deviation(camera.store.values[0], OUTPUTS["a_full.camera_v0"]) <= TOLERANCE


def test_importance_unit():
    frame = UNITS["p_q"].shape[2]
    history = UNITS["p_k"][:, :, frame:-frame]
    scores = importance(UNITS["p_q"], history, special=5, pool_size=4)
    assert deviation(scores, UNITS["p_scores"]) <= TOLERANCE
    chosen = scores.topk(len(UNITS["p_topk_rel"])).indices.sort().values
    assert chosen.tolist() == UNITS["p_topk_rel"].sort().values.tolist()


def test_published_selection_unit():
    keys, values, query = UNITS["p_k"], UNITS["p_v"], UNITS["p_q"]
    settings = CacheSettings("xstreamvggt", 70, 4, compatibility="published")
    kept = published_policy(settings)(Candidates(query, keys, Spans(21, 58, 21), 5))
    assert kept is not None
    assert torch.equal(keys[:, :, kept[0]], UNITS["p_k_out"])
    assert torch.equal(values[:, :, kept[0]], UNITS["p_v_out"])
