# SPDX-License-Identifier: Apache-2.0
"""Half precision: which parts are rounded, and that results stay near float32."""

from __future__ import annotations

from typing import Any

import pytest
import reference
import torch
from present import present
from streams import segments
from torch import nn

from xsvggt_ros.cache.kv_cache import KvCache
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.model import layers, operators
from xsvggt_ros.model.network import Prediction, StreamVggt
from xsvggt_ros.model.operators import Rotation, rotate

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.gpu),
]


def run(network: StreamVggt, device: str, frames: int = 4) -> tuple[list[Prediction], KvCache]:
    network = network.to(device)
    settings = CacheSettings(budget_tokens=reference.CONFIG["budget"], key_bits=16, value_bits=16)
    memory = reference.kv_cache(settings, network)
    predictions = []
    with torch.inference_mode():
        for frame in reference.frames()[:frames].to(device):
            predictions.append(network(frame[None, None], memory))
            memory.end_frame()
    return predictions, memory


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float16, 0.002)])
def test_half_precision_stays_near_float32(
    device: str, dtype: torch.dtype, tolerance: float
) -> None:
    exact, _ = run(reference.network(), "cpu")
    rounded, memory = run(reference.inference_network(dtype), device)
    assert segments(memory)[0].decoded_keys().dtype == dtype
    for field in ("depth", "points", "pose_encodings"):
        first = torch.cat([getattr(p, field) for p in exact])
        second = torch.cat([getattr(p, field) for p in rounded]).cpu()
        assert second.dtype == torch.float32
        assert 0 < reference.deviation(second, first) < tolerance, field


def test_norms_gains_tables_and_heads_stay_float32() -> None:
    network = reference.network().set_precision(torch.bfloat16)
    for name, parameter in network.named_parameters():
        module = network.get_submodule(name.rpartition(".")[0])
        rounded = name.startswith("aggregator.") and isinstance(module, (nn.Linear, nn.Conv2d))
        assert parameter.dtype == (torch.bfloat16 if rounded else torch.float32), name


def rounds(tensor: torch.Tensor) -> bool:
    return torch.equal(tensor, tensor.to(torch.bfloat16).float())


@pytest.mark.parametrize("prepared", [False, True])
def test_the_residual_stream_and_gains_are_not_rounded(prepared: bool) -> None:
    network = reference.network().set_precision(torch.bfloat16)
    if prepared:
        network = reference.inference_network(torch.bfloat16)
    seen: dict[str, torch.Tensor] = {}
    watched = (layers.Block, layers.AddLayerNorm, layers.LayerScale)
    for name, module in network.named_modules():
        if isinstance(module, watched) and not getattr(module, "folded", False):
            module.register_forward_hook(
                lambda _, inputs, output, name=name: seen.__setitem__(name, output)
            )
    run(network, "cpu", frames=2)
    kinds = watched[:2] if prepared else watched
    assert len(seen) == sum(isinstance(module, kinds) for module in network.modules())
    for name, output in seen.items():
        stream = output[0] if isinstance(output, tuple) else output
        assert stream.dtype == torch.float32, name
        assert not rounds(stream), name


def test_norms_compute_in_float32_and_answer_in_the_dtype_of_their_reader() -> None:
    network = reference.network().set_precision(torch.bfloat16)
    seen: dict[str, tuple[Any, ...]] = {}
    for name, module in network.named_modules():
        if isinstance(module, (layers.LayerNorm, layers.AddLayerNorm)):
            module.register_forward_hook(lambda *called, name=name: seen.__setitem__(name, called))
    run(network, "cpu", frames=2)
    assert "aggregator.global_blocks.0.norm1" in seen
    for name, (norm, inputs, output) in seen.items():
        normed = inputs[0]
        if isinstance(norm, layers.AddLayerNorm):
            normed, output = output
        exact = nn.functional.layer_norm(
            normed.float(), norm.normalized_shape, norm.weight, norm.bias, norm.eps
        )
        in_block = name.endswith(("norm1", "norm2"))
        half = name.startswith("aggregator.") and in_block
        if "patch_embed" not in name or in_block:
            assert output.dtype == (torch.bfloat16 if half else torch.float32), name
        assert torch.equal(output, exact.to(output.dtype)), name


def test_positions_rotate_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    rotated = []

    def watch(tokens: torch.Tensor, rotation: Rotation) -> torch.Tensor:
        result = rotate(tokens, rotation)
        rotated.append((tokens, rotation.cos, result))
        return result

    monkeypatch.setattr(operators, "rotate", watch)
    run(reference.network().set_precision(torch.bfloat16), "cpu", frames=2)
    assert rotated
    for tokens, cosines, result in rotated:
        assert {tokens.dtype, cosines.dtype, result.dtype} == {torch.float32}
        assert not rounds(tokens)
        assert not rounds(cosines)


def test_special_tokens_enter_unrounded() -> None:
    network = reference.network().set_precision(torch.bfloat16)
    with torch.no_grad():
        network.aggregator.camera_token.add_(1e-4)
    entering = []
    network.aggregator.frame_blocks[0].register_forward_pre_hook(
        lambda _, inputs: entering.append(inputs[0])
    )
    run(network, "cpu", frames=1)
    assert torch.equal(entering[0][0, 0], network.aggregator.camera_token[0, 0, 0])
    assert not rounds(entering[0][0, 0])


def test_every_norm_has_the_eps_of_the_reference() -> None:
    for name, module in reference.network().named_modules():
        if isinstance(module, nn.LayerNorm):
            small = name.startswith("aggregator.patch_embed.") or name.endswith("adaln_norm")
            assert module.eps == (1e-6 if small else 1e-5), name


def test_heads_are_rounded_on_request() -> None:
    network = reference.network().set_precision(torch.bfloat16, torch.bfloat16)
    assert network.get_parameter("depth_head.scratch.output_conv1.weight").dtype == torch.bfloat16
    assert network.depth_head.norm.weight.dtype == torch.float32
    exact, _ = run(reference.network(), "cpu", frames=2)
    rounded, _ = run(network, "cpu", frames=2)
    assert reference.deviation(present(rounded[1].depth), present(exact[1].depth)) < 0.1


def test_an_integer_dtype_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="dtype torch.int8 is not supported"):
        reference.network().set_precision(torch.int8)
