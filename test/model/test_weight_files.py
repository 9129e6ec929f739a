# SPDX-License-Identifier: Apache-2.0
"""Files that people give as weights: read for what they hold, or named as what they are."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import logging
import tarfile
import zipfile
from argparse import Namespace
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import pytest
import torch
from folded_gains import folded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from selection import examples
from torch.nn import Linear

from xsvggt_ros.errors import CheckpointError
from xsvggt_ros.model.checkpoint import load_network, random_network, read_checkpoint
from xsvggt_ros.model.config import PRESETS
from xsvggt_ros.model.weight_files import is_hub_id

STATE = dict(random_network(PRESETS["tiny"], seed=3).state_dict())
ADVICE = ("weights_only", "arbitrary code", "trust", "allowlist", "safe_globals", "add_safe")


def saved(held: dict[str, Any], path: Path) -> Path:
    torch.save(held, path)
    return path


def same(path: Path) -> bool:
    found = load_network(str(path), preset="tiny").state_dict()
    expected = folded(STATE)
    return found.keys() == STATE.keys() and all(torch.equal(found[k], expected[k]) for k in STATE)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4cac19aa\nsize 5026873376\n"


def tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))
    return stream.getvalue()


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("checkpoints.pth", b"")
    return stream.getvalue()


def array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


IMPOSTORS = {
    "pointer of Git LFS": (POINTER, "a pointer of Git LFS, not the file itself; run 'git lfs"),
    "page": (b"<!DOCTYPE html>\n<html><head><title>Sign in</title>", "it is a web page, not the"),
    "page with blanks": (b"\n\n  <HTML lang=en>", "it is a web page"),
    "XML": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "it is a web page"),
    "JSON": (b'{"error": "Repository not found"}', "a text in JSON .*Repository not found"),
    "index": (json.dumps({"metadata": {}, "weight_map": {"a": "b"}}).encode(),
              "the index of weights in several files"),
    "empty": (b"", "it is empty; download it again"),
    "gzip": (gzip.compress(b"weights"), "compressed by gzip; unpack it first"),
    "tar": (tar(), "it is a tar archive; unpack it first"),
    "zip": (zipped(), r"it is a zip archive \(with checkpoints.pth\); unpack it first"),
    "array": (array(), "it is an array of NumPy"),
    "GGUF": (b"GGUF\x03\0\0\0", "it is a GGUF file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", IMPOSTORS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
def test_what_is_no_file_of_weights_is_named(tmp_path: Path, kind: str, suffix: str) -> None:
    content, message = IMPOSTORS[kind]
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_checkpoint(str(path))
    assert not any(each in str(caught.value) for each in ADVICE)


def test_a_program_is_named(tmp_path: Path) -> None:
    program = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    torch.jit.save(program, str(tmp_path / "program.pt"))
    with pytest.raises(CheckpointError, match="it is a TorchScript program"):
        read_checkpoint(str(tmp_path / "program.pt"))


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("extra", [argparse.Namespace(lr=1e-4), Path("/a"), torch.nn.Linear(2, 2)])
def test_objects_beside_tensors_are_named_without_advice_to_read_them(
    tmp_path: Path, extra: Namespace | Path | Linear, old: bool
) -> None:
    path = tmp_path / "training.pth"
    torch.save({"model": STATE, "args": extra}, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(CheckpointError, match=r"holds Python objects \(.*\) beside tensors") as e:
        read_checkpoint(str(path))
    assert not any(each in str(e.value) for each in ADVICE)


State = dict[str, torch.Tensor]
WRAPPED: dict[str, Callable[[State], dict[str, Any]]] = {
    "model": lambda state: {"model": state, "optimizer": {"lr": 1e-4}, "epoch": 3},
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model_state_dict": lambda state: {"epoch": 3, "model_state_dict": state, "losses": [0.1]},
    "module / state_dict": lambda state: {"module": {"state_dict": state}},
    "model and ema": lambda state: {"ema": {k: 2 * v for k, v in state.items()}, "model": state},
}
PREFIXED: dict[str, Callable[[State], State]] = {
    "module.": lambda state: {f"module.{k}": v for k, v in state.items()},
    "model.": lambda state: {f"model.{k}": v for k, v in state.items()},
    "module.model.": lambda state: {f"module.model.{k}": v for k, v in state.items()},
    "anything.": lambda state: {f"anything.{k}": v for k, v in state.items()},
    "_orig_mod.": lambda state: {f"_orig_mod.{k}": v for k, v in state.items()},
    "within": lambda state: {k.replace("aggregator.", "aggregator._orig_mod."): v for k, v in
                             state.items()},
}  # fmt: skip


@pytest.mark.parametrize("kind", WRAPPED)
def test_weights_in_a_wrapper_are_taken_out_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    path = saved(WRAPPED[kind](STATE), tmp_path / "training.pth")
    assert same(path)
    assert "the weights are those under '" in caplog.text


@pytest.mark.parametrize("kind", PREFIXED)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_prefixes_of_wrappers_are_taken_off_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, suffix: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    held = PREFIXED[kind](STATE)
    if suffix == ".pth":
        saved(held, path)
    else:
        save_file(held, path)
    assert same(path)
    name = "_orig_mod." if kind == "within" else kind
    assert f"taken without '{name}'" in caplog.text


def test_both_together(tmp_path: Path) -> None:
    held = WRAPPED["model"](PREFIXED["module."](STATE))
    assert same(saved(held, tmp_path / "training.pth"))


def test_numbers_beside_the_tensors_are_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert same(saved({**STATE, "epoch": 3, "note": "best"}, tmp_path / "weights.pth"))
    assert "left out is what is no tensor: epoch, note" in caplog.text


def test_plain_weights_are_read_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    read_checkpoint(str(saved(STATE, tmp_path / "weights.pth")))
    assert not caplog.messages


def test_names_that_would_collide_are_left_as_they_are(tmp_path: Path) -> None:
    held = {**STATE, **{f"_orig_mod.{k}": v for k, v in STATE.items()}}
    with pytest.raises(CheckpointError, match="unexpected: _orig_mod."):
        load_network(str(saved(held, tmp_path / "w.pth")), preset="tiny")


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "weights.pth")
    assert same(tmp_path / "weights.pth")
    saved(STATE, tmp_path / "weights.safetensors")
    assert same(tmp_path / "weights.safetensors")


def test_a_directory_names_what_it_holds(tmp_path: Path) -> None:
    saved(STATE, tmp_path / "best.pth")
    with pytest.raises(CheckpointError, match=r"it holds best\.pth"):
        read_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "is_id"),
    [("lch01/StreamVGGT", True), ("a/b:c.pth", True), ("a/b.pth", False), ("./a/b", False),
     ("a/b.ckpt", False), ("runs/best.pth.tar", False),
     ("weights.pth", False), ("/a/b", False), ("a/b/c", False)],
)  # fmt: skip
def test_what_is_an_id_of_the_hub(text: str, is_id: bool) -> None:
    assert is_hub_id(text) is is_id


def test_a_hub_that_is_not_reached_is_asked_once_and_fails_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []
    talkative = logging.getLogger("huggingface_hub.utils._http")

    def download(repository: str, file: str) -> None:
        for _ in range(5):
            asked.append(file)
            talkative.warning("'[Errno -2] no such name' thrown while requesting HEAD https://x")
        raise AssertionError("it went on")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    result = command_line.run("convert", "a/b", "x.safetensors")
    assert result.exit_code == 1
    assert len(asked) == 1
    assert "[Errno -2] no such name; check the name and the network" in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not talkative.filters


def test_a_download_that_breaks_off_is_taken_up_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = saved(STATE, tmp_path / "w.pth")

    def download(repository: str, file: str) -> str:
        logging.getLogger("huggingface_hub.utils._http").warning(
            "'reset' thrown while requesting GET https://x"
        )
        return str(path)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert len(read_checkpoint("a/b").tensors) == len(STATE)


FUZZ = settings(
    max_examples=examples(120),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
SMALL = {"aggregator.camera_token": torch.zeros(2, 3), "camera_head.x": torch.ones(4)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    directory = tmp_path_factory.mktemp("weights")
    torch.save(SMALL, directory / "old", _use_new_zipfile_serialization=False)
    save_file(SMALL, directory / "safe")
    return {
        "zip": saved(SMALL, directory / "zip").read_bytes(),
        "old": (directory / "old").read_bytes(),
        "safe": (directory / "safe").read_bytes(),
        "wrapped": saved({"model": SMALL, "epoch": 1}, directory / "wrapped").read_bytes(),
    }


@given(kind=st.sampled_from(["zip", "old", "safe", "wrapped"]),
       edits=st.lists(st.tuples(st.integers(0, 1 << 14), st.integers(0, 255)), max_size=10),
       cut=st.integers(0, 3000), suffix=st.sampled_from([".pth", ".safetensors"]))  # fmt: skip
@FUZZ
def test_no_damaged_file_brings_up_a_foreign_error(
    tmp_path: Path,
    files: dict[str, bytes],
    kind: str,
    edits: list[tuple[int, int]],
    cut: int,
    suffix: str,
) -> None:
    data = bytearray(files[kind])
    for place, value in edits:
        data[place % len(data)] = value
    path = tmp_path / f"w{suffix}"
    path.write_bytes(data[: len(data) - cut % len(data)])
    with suppress(CheckpointError):
        read_checkpoint(str(path))


@given(data=st.binary(max_size=200), suffix=st.sampled_from([".pth", ".safetensors", ".bin"]))
@FUZZ
def test_no_bytes_bring_up_a_foreign_error(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(str(path))
    assert not any(each in str(caught.value) for each in ADVICE)
