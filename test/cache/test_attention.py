# SPDX-License-Identifier: Apache-2.0
"""The attention backends agree, and say when they cannot serve."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from types import ModuleType
from unittest.mock import Mock

import pytest
import torch

from xsvggt_ros.cache import attention
from xsvggt_ros.cache.settings import BACKENDS
from xsvggt_ros.cuda import attention as operation
from xsvggt_ros.errors import ConfigurationError


def tensors(dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, 3, tokens, 64, generator=generator).to(device, dtype)
        for tokens in (20, 90, 90)
    ]


@pytest.mark.parametrize("name", [name for name in BACKENDS if name != "flash_attn"])
def test_backends_agree(name: str) -> None:
    query, keys, values = tensors()
    expected = (query @ keys.transpose(-2, -1) / 8).softmax(-1) @ values
    torch.testing.assert_close(attention.backend(name)(query, keys, values), expected)


Call = tuple[torch.Size, torch.Size, bool]
"""Shapes of queries and keys, and whether masked."""


@pytest.fixture
def flash_attn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Call]]:
    """A stand-in for the package, that takes tokens before heads as the real one does."""
    calls: list[Call] = []

    def flash_attn_func(
        query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, causal: bool
    ) -> torch.Tensor:
        calls.append((query.shape, keys.shape, causal))
        flipped = (each.transpose(1, 2) for each in (query, keys, values))
        return attention.attend_math(*flipped).transpose(1, 2)

    module = ModuleType("flash_attn")
    vars(module)["flash_attn_func"] = flash_attn_func
    module.__spec__ = sys.__spec__
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    for cached in (attention.flash_installed, attention._flash):
        cached.cache_clear()
    yield calls
    for cached in (attention.flash_installed, attention._flash):
        cached.cache_clear()


def test_flash_attn_is_handed_tokens_before_heads_and_no_mask(
    flash_attn: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "flash_applies", lambda query: True)
    query, keys, values = tensors()
    expected = attention.attend_math(query, keys, values)
    torch.testing.assert_close(attention.backend("flash_attn")(query, keys, values), expected)
    assert flash_attn == [((1, 20, 3, 64), (1, 90, 3, 64), False)]


def test_flash_attn_is_left_aside_where_it_does_not_apply(flash_attn: list[Call]) -> None:
    query, keys, values = tensors()
    expected = attention.attend_math(query, keys, values)
    torch.testing.assert_close(attention.backend("auto")(query, keys, values), expected)
    assert flash_attn == []
    with pytest.raises(ConfigurationError, match="not torch.float32 on cpu with 64; set .* auto"):
        attention.backend("flash_attn")(query, keys, values)


def test_flash_attn_that_is_not_installed_is_said_at_once() -> None:
    if attention.flash_installed():
        pytest.skip("flash_attn is installed here")
    with pytest.raises(ConfigurationError, match="flash-attn.* or choose auto"):
        attention.backend("flash_attn")


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mock]:
    """What the attention kernel's trial finds on an H100 that is not there; at first all right."""
    found = Mock(return_value=True)
    kernels = ModuleType("attention_kernels")
    vars(kernels)["attends_like_pytorch"] = found
    monkeypatch.setitem(sys.modules, "xsvggt_ros.cuda.attention_kernels", kernels)
    monkeypatch.setattr(operation, "triton_runs", lambda device: True)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    operation._kernel_runs.cache_clear()
    yield found
    operation._kernel_runs.cache_clear()


TRIED = torch.device("cuda"), torch.float16, 64


@pytest.mark.parametrize(("capability", "attends"), [((7, 5), False), ((8, 0), True)])
def test_cards_without_tensor_cores_in_triton_keep_pytorchs_attention(
    capability: tuple[int, int], attends: bool, trial: Mock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert operation._kernel_runs(*TRIED) == attends
    assert trial.called == attends


def test_a_trial_without_memory_says_nothing_about_the_kernel(trial: Mock) -> None:
    trial.side_effect = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(torch.OutOfMemoryError):
        operation._kernel_runs(*TRIED)
    trial.side_effect = None
    assert operation._kernel_runs(*TRIED)


@pytest.mark.gpu
@pytest.mark.skipif(not attention.flash_installed(), reason="needs the package flash-attn")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_real_flash_attn_agrees(dtype: torch.dtype) -> None:
    query, keys, values = tensors(dtype, "cuda")
    expected = attention.backend("sdpa")(query, keys, values)
    actual = attention.attend_flash(query, keys, values)
    torch.testing.assert_close(actual, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.gpu
@pytest.mark.parametrize(("count", "tokens"), [(1041, 5000), (593, 593), (64, 4096), (3, 40)])
def test_a_kernel_attends_like_pytorch(count: int, tokens: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query, keys, values = (
        torch.randn(1, 16, each, 64, generator=generator).to("cuda", torch.bfloat16)
        for each in (count, tokens, tokens)
    )
    expected = torch.nn.functional.scaled_dot_product_attention(query, keys, values)
    with torch.inference_mode():
        actual = attention.backend("auto")(query, keys, values)
    assert actual.transpose(1, 2).is_contiguous()
    atol = 2e-3 if tokens >= 4096 else 4e-3  # fewer keys, larger numbers
    torch.testing.assert_close(actual, expected, rtol=2e-2, atol=atol)
