# SPDX-License-Identifier: Apache-2.0
"""The network equals the reference's on its golden tensors."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import reference
import torch
from present import present
from reference import CONFIG, TOLERANCE, deviation

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.model.aggregator import image_statistics, normalize
from xsvggt_ros.model.config import NetworkConfig
from xsvggt_ros.model.heads import uv_embedding
from xsvggt_ros.model.layers import CausalSequence
from xsvggt_ros.model.network import Head, Prediction, StreamVggt
from xsvggt_ros.model.operators import rotate, rotation_for
from xsvggt_ros.model.weight_files import track_head_shapes

UNITS = reference.tensors("units")
OUTPUTS = reference.tensors("outputs")
SIDE = CONFIG["img_size"] // CONFIG["patch_size"]


def tokens_of(mode: str) -> dict[tuple[int, int], torch.Tensor]:
    """Return the golden tokens of a mode by frame and layer."""
    pattern = re.compile(rf"{mode}\.tokens\.frame(\d+)\.layer(\d+)")
    matches = {name: pattern.fullmatch(name) for name in OUTPUTS}
    return {(int(m[1]), int(m[2])): OUTPUTS[name] for name, m in matches.items() if m}


@pytest.fixture(scope="module", params=["trained", "for inference"])
def network(request: pytest.FixtureRequest) -> StreamVggt:
    return reference.network() if request.param == "trained" else reference.inference_network()


@pytest.fixture(scope="module")
def masked(network: StreamVggt) -> Prediction:
    with torch.inference_mode():
        return network.forward_sequence(reference.frames()[None])


def test_official_names_and_shapes_without_allocating_them() -> None:
    official = json.loads((reference.GOLDEN / "state_dict_full.json").read_text())
    with torch.device("meta"):
        network = StreamVggt(NetworkConfig())
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    every = {**own, **track_head_shapes(NetworkConfig())}

    assert len(official) == 1797
    assert {name: list(shape) for name, shape in every.items()} == official
    assert len(own) == 1797 - 394


def test_masked_forward_poses_of_every_iteration(masked: Prediction) -> None:
    golden = OUTPUTS["f_masked.pose_enc_iters"]
    assert deviation(present(masked.pose_encodings)[0], golden) <= TOLERANCE


@pytest.mark.parametrize(
    ("field", "golden"),
    [
        ("depth", "depth"),
        ("depth_confidence", "depth_conf"),
        ("points", "world_points"),
        ("points_confidence", "world_points_conf"),
    ],
)
def test_masked_forward_dense_outputs(masked: Prediction, field: str, golden: str) -> None:
    expected = OUTPUTS[f"f_masked.{golden}.sub"]
    actual = reference.subsampled(getattr(masked, field)[0])
    assert deviation(actual, expected.reshape(actual.shape)) <= TOLERANCE


def test_masked_forward_tokens(network: StreamVggt) -> None:

    images = reference.frames()[None]
    golden = tokens_of("f_masked")
    assert golden
    with torch.inference_mode():
        asked = {layer for _, layer in golden}
        layers = network.aggregator(images, CausalSequence(images.shape[1]), asked)
    for (frame, layer), expected in golden.items():
        assert deviation(layers[layer][0, frame], expected) <= TOLERANCE


def test_streaming_tokens_of_intermediate_layers(network: StreamVggt) -> None:
    memory = reference.kv_cache(CacheSettings("none", key_bits=16, value_bits=16))
    golden = tokens_of("a_full")
    assert golden
    asked = {layer for _, layer in golden}
    with torch.inference_mode():
        for index, frame in enumerate(reference.frames()):
            layers = network.aggregator(frame[None, None], memory, asked)
            memory.end_frame()
            for layer in asked:
                if (index, layer) in golden:
                    assert deviation(layers[layer][0, 0], golden[index, layer]) <= TOLERANCE


def test_only_asked_layers_are_kept(network: StreamVggt) -> None:
    memory = reference.kv_cache(CacheSettings("none", key_bits=16, value_bits=16))
    with torch.inference_mode():
        layers = network.aggregator(reference.frames()[:1, None], memory, {1})
    assert list(layers) == [1]


def test_encoder_patch_tokens(network: StreamVggt) -> None:
    with torch.inference_mode():
        normalized = normalize(reference.frames()[:1], *image_statistics(torch.device("cpu")))
        tokens = network.aggregator.patch_embed(normalized)
    assert deviation(tokens[0], OUTPUTS["a_full.patch_tokens0"]) <= TOLERANCE


def test_streaming_equals_masked_forward_with_a_camera_cache_per_iteration(
    network: StreamVggt, masked: Prediction
) -> None:
    memory = reference.kv_cache(CacheSettings("none", key_bits=16, value_bits=16))
    poses = []
    with torch.inference_mode():
        for frame in reference.frames():
            prediction = network(frame[None, None], memory, ("camera",))
            poses.append(present(prediction.pose_encodings)[0])
            memory.end_frame()
    assert deviation(torch.cat(poses), present(masked.pose_encodings)[0]) <= TOLERANCE


def test_batches_do_not_mix(network: StreamVggt) -> None:
    images = torch.stack([reference.frames()[:3], reference.frames()[-3:]])
    with torch.inference_mode():
        both = network.forward_sequence(images)
        alone = network.forward_sequence(images[1:])
    assert deviation(present(both.depth)[1], present(alone.depth)[0]) <= TOLERANCE
    poses = present(both.pose_encodings)[1]
    assert deviation(poses, present(alone.pose_encodings)[0]) <= TOLERANCE


@pytest.mark.parametrize("layers", [(0, 1, 0, 1), (1, 1, 0, 0), (1, 0, 0, 1)])
def test_dense_heads_read_layers_in_any_order(
    network: StreamVggt, monkeypatch: pytest.MonkeyPatch, layers: tuple[int, int, int, int]
) -> None:
    """Levels are made while layers go by, and all at once of a first pass: both are the same."""
    config = replace(network.config, dense=replace(network.config.dense, layers=layers))
    monkeypatch.setattr(network, "config", config)
    monkeypatch.setattr(network.depth_head, "layers", layers)
    image = reference.frames()[:1, None]
    asked: tuple[Head, ...] = ("depth",)
    with torch.inference_mode():
        found = network.forward_sequence(image, asked)
        outputs = network.aggregator(image, CausalSequence(1), set(layers))
        raw = network.depth_head(outputs, *image.shape[-2:])
        twice = network.forward_sequence(image.expand(-1, 2, -1, -1, -1), asked)
    assert deviation(present(found.depth), raw.exp()[:, :, 0]) <= TOLERANCE
    assert deviation(present(twice.depth)[:, :1], present(found.depth)) <= TOLERANCE


def test_unasked_heads_do_not_run(network: StreamVggt) -> None:
    memory = reference.kv_cache(CacheSettings("none", key_bits=16, value_bits=16))
    with torch.inference_mode():
        prediction = network(reference.frames()[:1, None], memory, ("depth",))
    assert prediction.pose_encodings is None
    assert prediction.points is None
    assert memory.camera_nbytes == 0


def test_rotary_embedding() -> None:
    rotation = rotation_for(UNITS["rope_pos"][0], UNITS["rope_in"].shape[-1], CONFIG["rope_freq"])
    assert deviation(rotate(UNITS["rope_in"], rotation), UNITS["rope_out"]) <= TOLERANCE


@pytest.mark.parametrize(
    ("unit", "rows", "columns"),
    [
        ("posembed_square", SIDE, SIDE),
        ("posembed_tall", SIDE + 1, SIDE - 2),
        ("posembed_wide", SIDE - 1, SIDE + 2),
    ],
)
def test_position_embedding_of_other_grids(
    network: StreamVggt, unit: str, rows: int, columns: int
) -> None:
    embedding = network.aggregator.patch_embed.position_embedding(rows, columns)
    assert deviation(embedding, UNITS[unit]) <= TOLERANCE


def test_dense_position_embedding() -> None:
    channels, rows, columns = UNITS["dpt_posembed"].shape
    x, y = uv_embedding(channels, rows, columns, columns / rows, torch.device("cpu"))
    both = torch.cat([x[:, None, :].expand(-1, rows, -1), y[:, :, None].expand(-1, -1, columns)])
    scale = float(UNITS["dpt_posembed"].abs().max())
    assert deviation(both * (0.1 if scale < 0.5 else 1.0), UNITS["dpt_posembed"]) <= TOLERANCE


def test_residual_unit_adds_the_rectified_input(network: StreamVggt) -> None:
    unit = network.get_submodule("depth_head.scratch.refinenet1.resConfUnit1")
    with torch.inference_mode():
        assert deviation(unit(UNITS["rcu_in"]), UNITS["rcu_out"]) <= TOLERANCE


def test_sides_that_do_not_divide_into_patches_are_refused(network: StreamVggt) -> None:
    from xsvggt_ros.errors import ConfigurationError

    memory = reference.kv_cache(CacheSettings("none", key_bits=16, value_bits=16))
    patch, width = CONFIG["patch_size"], CONFIG["width"]
    height = CONFIG["height"] + 1
    with pytest.raises(ConfigurationError, match=f"{width}x{height} pixels.*multiples of {patch}"):
        network(torch.zeros(1, 1, 3, height, width), memory)
