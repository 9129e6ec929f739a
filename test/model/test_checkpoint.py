# SPDX-License-Identifier: Apache-2.0
"""Weights are read strictly, and a wrong file is told from a right one."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from folded_gains import folded
from safetensors import safe_open
from safetensors.torch import save_file

from xsvggt_ros.errors import CheckpointError, ConfigurationError
from xsvggt_ros.model.checkpoint import (
    assemble,
    convert_checkpoint,
    load_network,
    random_network,
    read_checkpoint,
    save_network,
    sizes_of,
)
from xsvggt_ros.model.config import (
    BACKBONES,
    NOTICES,
    PRESETS,
    NetworkConfig,
    backbone_in,
    bundled_weights,
    preset,
    weights_in_words,
)
from xsvggt_ros.model.weight_files import track_head_shapes

TINY = PRESETS["tiny"]


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return dict(random_network(TINY, seed=3).state_dict())


@pytest.fixture
def weights(tmp_path: Path, state: dict[str, torch.Tensor]) -> Path:
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    return path


def same(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_torch_file_loads(weights: Path, state: dict[str, torch.Tensor]) -> None:
    assert same(load_network(str(weights), preset="tiny").state_dict(), folded(state))


def test_gains_are_folded_before_weights_are_rounded(
    weights: Path, state: dict[str, torch.Tensor]
) -> None:
    loaded = load_network(str(weights), preset="tiny", dtype="bfloat16").state_dict()
    name = "aggregator.global_blocks.1.attn.proj.weight"
    assert torch.equal(loaded[name], folded(state)[name].to(torch.bfloat16))
    assert not torch.equal(folded(state)[name], state[name])


def test_a_network_for_inference_is_saved_as_what_it_is(weights: Path, tmp_path: Path) -> None:
    network = load_network(str(weights), preset="tiny")
    again = load_network(str(save_network(network, tmp_path / "again.safetensors")))
    assert same(again.state_dict(), network.state_dict())


def test_files_are_converted_with_their_gains(
    weights: Path, tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    converted = convert_checkpoint(str(weights), tmp_path / "w.safetensors", preset="tiny")
    assert same(read_checkpoint(str(converted)).tensors, state)


def test_track_head_is_recognised_and_left_aside(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    track = {name: torch.zeros(shape) for name, shape in track_head_shapes(TINY).items()}
    path = tmp_path / "whole.pth"
    torch.save({**state, **track}, path)
    assert same(load_network(str(path), preset="tiny").state_dict(), folded(state))


def test_converted_file_carries_its_sizes(
    weights: Path, tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    converted = convert_checkpoint(str(weights), tmp_path / "w.safetensors", preset="tiny")
    loaded = load_network(str(converted))
    assert loaded.config == TINY
    assert same(loaded.state_dict(), folded(state))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.safetensors", "weights.pth"]


def test_wrong_tensors_are_all_named(state: dict[str, torch.Tensor]) -> None:
    del state["aggregator.camera_token"]
    state["aggregator.camera_tokn"] = torch.zeros(1)
    state["camera_head.token_norm.weight"] = torch.zeros(7)
    state["track_head.tracker.query_ref_token"] = torch.zeros(3)
    with pytest.raises(CheckpointError) as caught:
        assemble(TINY, state)
    sentence = str(caught.value)
    assert "394 missing: aggregator.camera_token" in sentence
    assert "1 unexpected: aggregator.camera_tokn" in sentence
    assert "2 of another shape" in sentence
    assert "camera_head.token_norm.weight [7] instead of [128]" in sentence
    assert "track_head.tracker.query_ref_token [3] instead of [1, 2, 388]" in sentence


def test_weights_of_another_preset_are_refused(weights: Path) -> None:
    with pytest.raises(CheckpointError, match="choose the preset that the weights were made for"):
        load_network(str(weights), preset="small")


def test_a_part_of_the_track_head_is_not_enough(state: dict[str, torch.Tensor]) -> None:
    name, shape = next(iter(track_head_shapes(TINY).items()))
    with pytest.raises(CheckpointError, match="393 missing: track_head"):
        assemble(TINY, {**state, name: torch.zeros(shape)})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tensor: tensor.to(torch.int8),
        lambda tensor: tensor.to(torch.float8_e4m3fn),
        lambda tensor: torch.full_like(tensor, torch.nan),
        lambda tensor: tensor.to_sparse(),
        lambda tensor: tensor.to("meta"),
    ],
)
def test_tensors_that_are_no_numbers_are_named(
    state: dict[str, torch.Tensor], spoil: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    name = "camera_head.token_norm.weight"
    state[name] = spoil(state[name])
    with pytest.raises(CheckpointError, match=f"not finite floating-point numbers: {name}"):
        assemble(TINY, state)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_overwriting_the_file_does_not_touch_a_loaded_network(
    tmp_path: Path, weights: Path, suffix: str
) -> None:
    path = weights
    if suffix == ".safetensors":
        path = convert_checkpoint(str(weights), tmp_path / "w.safetensors", preset="tiny")
    network = load_network(str(path), preset="tiny")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    path.write_bytes(b"")
    assert same(dict(network.state_dict()), before)


def test_old_torch_files_load(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "old.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert same(load_network(str(path), preset="tiny").state_dict(), folded(state))


def test_sizes_of_the_file_and_of_the_preset_must_agree(tmp_path: Path, weights: Path) -> None:
    path = convert_checkpoint(str(weights), tmp_path / "w.safetensors", preset="tiny")
    assert load_network(str(path), preset="tiny").config == TINY
    with pytest.raises(ConfigurationError, match="not those of preset 'small'"):
        load_network(str(path), preset="small")


def test_heads_may_be_rounded_too(weights: Path) -> None:
    network = load_network(str(weights), preset="tiny", dtype="float16", heads_dtype="bfloat16")
    assert network.dtype == torch.float16
    assert network.camera_head.embed_pose.weight.dtype == torch.bfloat16


def test_a_directory_that_does_not_exist_is_no_place_to_save(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"w.safetensors' cannot be written"):
        save_network(random_network(TINY, 0), tmp_path / "missing" / "w.safetensors")


def test_a_pickle_is_not_executed(tmp_path: Path) -> None:
    marker = tmp_path / "executed"

    class Payload:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return os.system, (f"touch {marker}",)

    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps({"x": Payload()}))
    with pytest.raises(CheckpointError, match="not a readable PyTorch weight file"):
        read_checkpoint(str(path))
    path = tmp_path / "evil_zip.pth"
    torch.save({"x": Payload()}, path)
    with pytest.raises(CheckpointError, match="not a readable PyTorch weight file"):
        read_checkpoint(str(path))
    assert not marker.exists()


def test_a_training_state_without_weights_is_refused_by_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "training.pth"
    torch.save({"step": 3, "losses": [0.1]}, path)
    with pytest.raises(CheckpointError, match="of tensors but a dictionary of step, losses"):
        read_checkpoint(str(path))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_files_are_refused(tmp_path: Path, weights: Path, suffix: str) -> None:
    whole = weights
    if suffix == ".safetensors":
        whole = convert_checkpoint(str(weights), tmp_path / "w.safetensors", preset="tiny")
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=f"cut{suffix}' is not a readable"):
        read_checkpoint(str(cut))


def test_a_missing_file_is_named_with_the_remedy() -> None:
    with pytest.raises(CheckpointError, match=r"'nowhere/weights.pth' does not exist; give a .pth"):
        load_network("nowhere/weights.pth")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a directory; name the .pth or .safetensors"):
        read_checkpoint(str(tmp_path))


def test_the_hub_is_asked_for_an_id(
    monkeypatch: pytest.MonkeyPatch, weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def download(repository: str, file: str) -> str:
        asked.append((repository, file))
        return str(weights)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    read_checkpoint("lch01/StreamVGGT")
    read_checkpoint("somebody/else:model.pth")
    assert asked == [("lch01/StreamVGGT", "checkpoints.pth"), ("somebody/else", "model.pth")]
    assert caplog.text.count("non-commercial use only") == 1


def test_a_hub_that_fails_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repository: str, file: str) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(CheckpointError, match="Hugging Face repository 'a/b': no route to host"):
        read_checkpoint("a/b")


def test_random_weights_are_seeded_and_announced(caplog: pytest.LogCaptureFixture) -> None:
    first, again = (load_network("", preset="tiny", seed=5) for _ in range(2))
    other = load_network("", preset="tiny", seed=6)
    assert same(first.state_dict(), again.state_dict())
    assert not torch.equal(first.camera_head.embed_pose.weight, other.camera_head.embed_pose.weight)
    assert "poses, depth and points mean nothing" in caplog.text


def test_without_a_name_the_bundled_weights_are_taken_and_their_limits_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    named, unnamed = load_network("demo"), load_network("")
    assert named.config == unnamed.config == preset("demo")
    assert same(named.state_dict(), unnamed.state_dict())
    assert "synthetic rooms" in caplog.text
    assert "nothing else" in caplog.text
    with pytest.raises(ConfigurationError, match="not those of preset 'tiny'"):
        load_network("demo", preset="tiny")


def test_the_weights_that_need_their_memory_tell_their_limits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert load_network("landmarks").config == preset("demo12")
    assert "to judge caches by" in caplog.text
    assert "nothing else" in caplog.text


@pytest.mark.parametrize("name", NOTICES)
def test_bundled_weights_are_small_and_in_half_precision(name: str) -> None:
    path = bundled_weights(name)
    assert path.stat().st_size <= 16 * 2**20
    tensors = read_checkpoint(name).tensors
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert path.with_name("MODEL_CARD.md").is_file()


def test_a_copy_without_the_bundled_weights_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("xsvggt_ros.model.config.__file__", str(tmp_path / "model" / "config.py"))
    for name in NOTICES:
        with pytest.raises(CheckpointError, match="install it again"):
            load_network(name)


def test_weights_in_words() -> None:
    assert weights_in_words("", None) == weights_in_words("demo", "") == "the bundled demo model"
    assert weights_in_words("landmarks", None) == "the bundled landmarks model"
    assert weights_in_words("a/b", None) == "a/b"
    assert weights_in_words("", "tiny") == "random weights (tiny): geometry means nothing"


def test_random_weights_leave_the_callers_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    random_network(TINY, seed=9)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"preset": "huge"},
            "preset 'huge' is unknown; choose one of streamvggt, lingbot, small,",
        ),
        (
            {"preset": "tiny", "dtype": "int8"},
            "dtype 'int8' is unknown; choose one of auto, float32",
        ),
        ({"preset": "tiny", "device": "warp:9"}, "device 'warp:9' cannot be used"),
    ],
)
def test_impossible_wishes_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        load_network("", **arguments)


def test_sizes_survive_json_and_others_are_refused() -> None:
    for config in PRESETS.values():
        assert NetworkConfig.from_json(config.to_json()) == config
    for text in ("{}", "[]", "nonsense", '{"dense": {}, "encoder": {}, "camera": {}}'):
        with pytest.raises(ConfigurationError, match="network sizes cannot be read"):
            NetworkConfig.from_json(text)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="num_heads=3 does not fit embed_dim=64"):
        NetworkConfig(embed_dim=64, num_heads=3)
    wrong: dict[str, Any] = {"num_heads": 0, "depth": 1.5, "mlp_ratio": -1, "rope_base": 0}
    for field, value in wrong.items():
        with pytest.raises(ConfigurationError, match=f"{field} is {value}; it must be"):
            NetworkConfig(**{field: value})


def test_saving_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = reference.network()
    target = tmp_path / "w.safetensors"
    target.write_bytes(b"precious")

    def fail(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", fail)
        with pytest.raises(CheckpointError, match=r"w.safetensors' cannot be written: disk full"):
            save_network(network, target)
    assert target.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [target]
    save_network(network, target)
    with safe_open(target, framework="pt") as file:
        assert len(list(file.keys())) == len(network.state_dict())


def test_saving_under_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="must end in .safetensors"):
        save_network(random_network(TINY, 0), tmp_path / "w.pth")


def test_half_precision_weights_load_as_float32(
    tmp_path: Path, state: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "half.safetensors"
    save_file({name: t.half() for name, t in state.items()}, path)
    loaded = load_network(str(path), preset="tiny")
    assert loaded.dtype == torch.float32
    assert loaded.depth_head.norm.weight.dtype == torch.float32


@pytest.fixture
def lingbot_weights(tmp_path: Path) -> Path:
    path = tmp_path / "lingbot.pt"
    tensors = dict(random_network(PRESETS["tiny_lingbot"], seed=4).state_dict())
    torch.save({"model": tensors}, path)
    return path


def test_weights_of_another_network_are_told_by_its_name(
    weights: Path, lingbot_weights: Path
) -> None:
    with pytest.raises(CheckpointError, match="holds weights of LingBot-Map.*such as lingbot"):
        load_network(str(lingbot_weights), preset="tiny")
    with pytest.raises(CheckpointError, match="holds weights of StreamVGGT.*such as streamvggt"):
        load_network(str(weights), preset="tiny_lingbot")
    network = load_network(str(lingbot_weights), preset="tiny_lingbot")
    assert network.config == PRESETS["tiny_lingbot"]


def test_converted_weights_of_another_network_are_told_by_its_name(
    tmp_path: Path, lingbot_weights: Path
) -> None:
    own = convert_checkpoint(
        str(lingbot_weights), tmp_path / "own.safetensors", preset="tiny_lingbot"
    )
    with pytest.raises(CheckpointError, match="holds weights of LingBot-Map.*such as lingbot"):
        load_network(str(own), preset="tiny")
    assert load_network(str(own)).config == PRESETS["tiny_lingbot"]


def test_the_tensors_say_which_official_network_they_are_of(
    weights: Path, lingbot_weights: Path
) -> None:
    for path, own, other in ((weights, "streamvggt", "lingbot"), (lingbot_weights, "lingbot", "")):
        config = sizes_of(read_checkpoint(str(path)), None, str(path))
        assert config == PRESETS[own]
        assert config != PRESETS.get(other)


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("lch01/StreamVGGT", "checkpoints.pth"),
        ("robbyant/lingbot-map", "lingbot-map-long.pt"),
        ("robbyant/lingbot-map:lingbot-map.pt", "lingbot-map.pt"),
        ("somebody/else", "checkpoints.pth"),
    ],
)
def test_a_repository_has_a_usual_file_and_a_licence(
    source: str,
    file: str,
    lingbot_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = []

    def fetch(repository: str, name: str) -> str:
        asked.append((repository, name))
        return str(lingbot_weights)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    read_checkpoint(source)
    assert asked == [(source.partition(":")[0], file)]
    official = backbone_in(source.partition(":")[0])
    assert (official is None) == ("somebody" in source)
    if official is not None:
        assert official.licence in caplog.text


def test_both_licences_are_said_as_they_are() -> None:
    streamvggt, lingbot = BACKBONES
    assert "non-commercial use only" in streamvggt.licence
    assert "Apache-2.0" in lingbot.licence
    assert "provenance" in lingbot.licence
    assert "no licence field" in lingbot.licence


def test_a_file_is_converted_to_half_its_size(tmp_path: Path, lingbot_weights: Path) -> None:
    preset = "tiny_lingbot"
    whole, half = (
        convert_checkpoint(
            str(lingbot_weights), tmp_path / f"{dtype}.safetensors", preset=preset, dtype=dtype
        )
        for dtype in ("float32", "bfloat16")
    )
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    tensors = read_checkpoint(str(half)).tensors
    assert tensors["aggregator.global_blocks.0.mlp.fc1.weight"].dtype == torch.bfloat16
    assert tensors["aggregator.scale_token"].dtype == torch.float32
    assert load_network(str(half)).config == PRESETS[preset]
    with pytest.raises(ConfigurationError, match="float8"):
        convert_checkpoint(
            str(lingbot_weights), tmp_path / "x.safetensors", preset=preset, dtype="float8"
        )


def test_where_weights_do_not_fit_only_narrower_types_are_proposed(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no memory is left")

    monkeypatch.setattr("xsvggt_ros.model.checkpoint.quantize_weights", full)
    with pytest.raises(ConfigurationError, match="or set model.dtype and model.heads_dtype to"):
        load_network(str(weights), preset="tiny", dtype="float32")
    with pytest.raises(ConfigurationError) as refusal:
        load_network(str(weights), preset="tiny", dtype="bfloat16", heads_dtype="float16")
    assert "model.dtype" not in str(refusal.value)
