# SPDX-License-Identifier: Apache-2.0
"""What `auto` means on which device, TF32, weights of 8 bits, and torch.compile."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import reference
import torch
from present import present

from xsvggt_ros.errors import CheckpointError, ConfigurationError
from xsvggt_ros.evaluation.provenance import weights, weights_bytes
from xsvggt_ros.model import checkpoint, heads
from xsvggt_ros.model import device as devices
from xsvggt_ros.model.checkpoint import load_network, save_network
from xsvggt_ros.model.layers import Linear
from xsvggt_ros.model.network import StreamVggt

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
needs_torchao = pytest.mark.skipif(
    find_spec("torchao") is None,
    reason="needs the package torchao: pip install -r scripts/requirements/test.txt",
)


def answers(network: StreamVggt, size: tuple[int, int] = (28, 42)) -> torch.Tensor:
    images = torch.rand(1, 2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return present(network.forward_sequence(images).pose_encodings)


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        ((7, 0), torch.float16),
        ((7, 5), torch.float16),
        ((8, 0), torch.bfloat16),
        ((8, 7), torch.bfloat16),
        ((12, 1), torch.bfloat16),
    ],
)
def test_auto_is_what_a_card_computes_in(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert devices.dtype_named("auto", CUDA) == dtype
    assert devices.dtype_named("float32", CUDA) == torch.float32


def test_auto_is_float32_on_a_cpu_and_in_the_heads() -> None:
    assert devices.dtype_named("auto", CPU) == torch.float32
    assert devices.heads_dtype_named("auto") == torch.float32
    assert devices.heads_dtype_named("float16") == torch.float16
    network = load_network("", preset="tiny", device="cpu")
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("dtype", "fast"), [(torch.float32, False), (torch.bfloat16, True), (torch.float16, True)]
)
def test_float32_means_float32_and_heads_beside_a_half_type_may_use_tf32(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, fast: bool
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", asked.append)
    cudnn = SimpleNamespace(allow_tf32=None, benchmark=None)
    monkeypatch.setattr(torch.backends, "cudnn", cudnn)
    devices.choose_arithmetic(CPU, dtype)
    assert asked == []
    devices.choose_arithmetic(CUDA, dtype)
    assert asked == ["high" if fast else "highest"]
    assert cudnn == SimpleNamespace(allow_tf32=fast, benchmark=False)


def test_heads_compute_in_their_own_dtype() -> None:
    network = load_network("", preset="tiny", dtype="bfloat16", heads_dtype="float16", device="cpu")
    assert network.dtype == torch.bfloat16
    assert network.depth_head.dtype == torch.float16
    assert network.camera_head.embed_pose.weight.dtype == torch.float16
    assert answers(network).dtype == torch.float32


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="weights 'int4' are unknown; .* full, int8_camer"):
        load_network("", preset="tiny", weights="int4")


def test_weights_of_8_bits_without_torchao_are_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"torchao.*pip install 'xsvggt_ros\[int8\]'"):
        load_network("no such file", weights="int8")


@needs_torchao
@pytest.mark.parametrize("kind", ["int8_camera", "int8"])
def test_weights_of_8_bits_take_less_and_answer_nearly_the_same(tmp_path: Path, kind: str) -> None:
    full, packed = (
        load_network("", preset="tiny", device="cpu", weights=stored) for stored in ("full", kind)
    )
    assert weights_bytes(packed) < (0.6 if kind == "int8" else 0.9) * weights_bytes(full)
    assert devices.is_quantized(packed.get_parameter("camera_head.trunk.0.mlp.fc1.weight"))
    encoder = packed.get_parameter("aggregator.patch_embed.blocks.0.mlp.fc1.weight")
    assert devices.is_quantized(encoder) == (kind == "int8")
    assert packed.dtype == torch.float32
    assert 0 < reference.deviation(answers(packed), answers(full)) < 0.03
    described = weights(packed, "", "tiny")
    assert described["bytes"] == weights_bytes(packed)
    assert described["sha256"] != weights(full, "", "tiny")["sha256"]
    with pytest.raises(CheckpointError, match="weights of 8 bits are for inference alone"):
        save_network(packed, tmp_path / "w.safetensors")


def test_the_camera_head_beside_a_half_type_on_a_gpu_is_stored_in_float16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As far as a CPU can tell: what TF32 is there, decides the device."""
    monkeypatch.setattr(heads, "_LARGE", 64)
    whole = load_network("", preset="tiny", device="cpu")
    monkeypatch.setattr(checkpoint, "takes_tf32", lambda device, dtype: True)
    narrow = load_network("", preset="tiny", device="cpu")
    assert 0 < reference.deviation(answers(narrow), answers(whole)) < 1e-3  # as TF32's
    head, other = narrow.camera_head, whole.camera_head
    assert _bytes_of(head) < 0.6 * _bytes_of(other)
    for name, module in head.named_modules():
        if isinstance(module, Linear):
            assert module.dtype == torch.float32
            narrow_kind = torch.float16 if module.weight.numel() >= 64 else torch.float32
            assert module.weight.dtype == narrow_kind, name
            assert module(torch.ones(3, module.in_features)).dtype == torch.float32
    others = {p.dtype for n, p in narrow.named_parameters() if not n.startswith("camera_head")}
    assert others == {torch.float32}


def _bytes_of(module: torch.nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())


@pytest.mark.parametrize(
    ("gain", "largest", "stored"),
    [(1.0, 1.0, True), (1.0, 65504.0, True), (1.0, 65600.0, False), (1e-2, 1e-2, True),
     (1e-5, 1e-5, False), (0.0, 0.0, True), (1.0, torch.nan, False)],
)  # fmt: skip
def test_weights_that_float16_cannot_hold_stay_as_they_are(
    gain: float, largest: float, stored: bool
) -> None:
    layer = Linear(64, 32).requires_grad_(False)
    layer.weight.mul_(gain)[0, 0] = largest
    before = layer.weight.clone()
    layer.store_in_float16()
    assert layer.dtype == torch.float32
    assert layer.weight.dtype == (torch.float16 if stored else torch.float32)
    if stored:
        assert (layer.weight.float() - before).norm() <= 2**-11 * before.norm()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32])
def test_what_is_stored_narrow_converts_like_any_other(kind: torch.dtype) -> None:
    layer = Linear(64, 32).requires_grad_(False)
    expected = layer(torch.ones(3, 64))
    layer.store_in_float16()
    layer.to(kind)
    assert layer.dtype == layer.weight.dtype == kind
    torch.testing.assert_close(layer(torch.ones(3, 64)).float(), expected, rtol=0.02, atol=0.02)


def test_half_types_are_not_stored_narrower() -> None:
    layer = Linear(3, 2).requires_grad_(False).to(torch.bfloat16)
    layer.store_in_float16()
    assert layer.dtype == layer.weight.dtype == torch.bfloat16


def test_compiled_parts_answer_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_module, compiled = torch.nn.Module.compile, []

    def quickly(module: torch.nn.Module, **options: bool) -> None:
        compiled.append(module)
        compile_module(module, backend="eager", **options)

    monkeypatch.setattr(torch.nn.Module, "compile", quickly)
    monkeypatch.setattr(torch._dynamo.config, "fail_on_recompile_limit_hit", True)
    plain, made = (
        load_network("", preset="tiny", device="cpu", compiled=wanted) for wanted in (False, True)
    )
    config = plain.config
    assert len(compiled) == config.encoder.depth + config.depth + 2 * (4 + 3)
    for size in ((28, 42), (42, 56), (28, 28)):
        torch.testing.assert_close(answers(made, size), answers(plain, size))
