# SPDX-License-Identifier: Apache-2.0
"""The network's Triton kernels against their definitions; run by test_kernels.py."""

from __future__ import annotations

from inspect import unwrap

import pytest
import torch
from triton_interpreter import DEVICE, INTERPRETING

from xsvggt_ros.cuda import attention, attention_kernels, early_start
from xsvggt_ros.cuda.attention_kernels import attends_like_pytorch, doubled
from xsvggt_ros.model import kernels, operators
from xsvggt_ros.model.operators import grid_positions, rotation_for

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(shape, generator=generator) + 0.5).to(DEVICE, dtype)


def assert_near(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Float32 to some roundings; a half type to one step, where float32 fell on either side."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    step = torch.finfo(actual.dtype).eps
    relative, absolute = (2e-6, 4e-6) if actual.dtype == torch.float32 else (step, 1e-5)
    torch.testing.assert_close(actual.float(), expected.float(), rtol=relative, atol=absolute)


def test_the_probe() -> None:
    assert doubled(torch.ones(4, device=DEVICE)).tolist() == [2, 2, 2, 2]
    assert attends_like_pytorch(torch.device(DEVICE), torch.float16, 64)


def test_the_probe_notices_wrong_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    attend = attention_kernels.attend

    def wrong(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        few = attend(query, keys, values)
        return few if keys.shape[2] < 4096 else torch.zeros_like(few)

    monkeypatch.setattr(attention_kernels, "attend", wrong)
    assert not attends_like_pytorch(torch.device(DEVICE), torch.float16, 64)


@pytest.mark.parametrize(
    ("width", "tokens", "kibibytes", "blocks"),
    [
        (64, 9233, 227, (128, 3)),  # an H100
        (64, 9233, 99, (64, 3)),  # an RTX 4090
        (64, 1041, 227, (64, 3)),
        (64, 9233, 64, (64, 3)),  # a Turing card
        (128, 9233, 99, (64, 2)),
        (256, 100, 64, (32, 2)),  # nothing fits: the least
    ],
)
def test_blocks_of_keys_fit_into_shared_memory(
    width: int, tokens: int, kibibytes: int, blocks: tuple[int, int]
) -> None:
    assert attention_kernels.blocks_for(width, tokens, kibibytes * 1024) == blocks


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [64, 72, 192])
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm(dtype: torch.dtype, dim: int, affine: bool) -> None:
    tokens = random(2, 7, dim)[:1, 2:]  # rows that begin inside a buffer
    gain, bias = (random(dim, seed=1), random(dim, seed=2)) if affine else (None, None)
    expected = unwrap(operators.layer_norm)(tokens, gain, bias, 1e-6, dtype)
    assert_near(kernels.layer_norm(tokens, gain, bias, 1e-6, dtype), expected)


@pytest.mark.parametrize("source", DTYPES)
def test_layer_norm_of_other_types_and_strides(source: torch.dtype) -> None:
    tokens = random(2, 5, 48, dtype=source).transpose(0, 1)[:, :, ::2]
    expected = unwrap(operators.layer_norm)(tokens, None, None, 1e-5, torch.float32)
    assert_near(kernels.layer_norm(tokens, None, None, 1e-5, torch.float32), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_layer_norm(dtype: torch.dtype) -> None:
    tokens, update = random(2, 5, 72), random(2, 5, 72, dtype=dtype, seed=3)
    arguments = (tokens, update, random(72, seed=1), random(72, seed=2), 1e-5, dtype)
    total, normed = kernels.add_layer_norm(*arguments)
    expected = unwrap(operators.add_layer_norm)(*arguments)
    assert torch.equal(total, expected[0])
    assert_near(normed, expected[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "channels"), [(1, 64), (3, 64), (2, 12)])
@pytest.mark.parametrize("frames", [1, 2])
def test_normalize_and_rotate(dtype: torch.dtype, heads: int, channels: int, frames: int) -> None:
    turned = rotation_for(grid_positions(2, 3, 2, torch.device(DEVICE)), channels, 100.0)
    packed = random(2, 8 * frames, 3 * heads * channels, dtype=dtype)
    gains = [random(channels, seed=seed) for seed in range(1, 5)]
    query_gain, query_bias, key_gain, key_bias = gains
    given = operators.Projection(
        packed, heads, query_gain, query_bias, key_gain, key_bias, 1e-5, *turned
    )
    actual = kernels.normalize_and_rotate(given)
    expected = unwrap(operators.normalize_and_rotate)(given)
    for one, other in zip(actual, expected, strict=True):
        assert_near(one, other)
    query, key, value = actual
    assert query.transpose(1, 2).is_contiguous()  # token by token, the others head by head
    assert key.is_contiguous()
    assert value.is_contiguous()
    assert torch.equal(actual[2], expected[2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("channels", "size", "target"),
    [(128, (7, 5), (13, 31)), (6, (1, 4), (1, 9)), (48, (6, 6), (3, 5)), (32, (5, 1), (8, 1))],
)
@pytest.mark.parametrize("added", [True, False])
def test_resize(
    dtype: torch.dtype, channels: int, size: tuple[int, int], target: tuple[int, int], added: bool
) -> None:
    features = random(2, channels, *size, dtype=dtype)
    along: tuple[torch.Tensor, torch.Tensor] | tuple[None, None] = (None, None)
    if added:
        half = channels // 2
        along = (
            random(target[1], half, dtype=dtype, seed=1).T,
            random(target[0], half, dtype=dtype, seed=2).T,
        )
    columns, rows = (None if part is None else part.float() for part in along)
    expected = unwrap(operators.resize)(features.float(), *target, columns, rows).to(dtype)
    for laid_out in (features, features.contiguous(memory_format=torch.channels_last)):
        actual = kernels.resize(laid_out, *target, *along)
        assert actual.is_contiguous(memory_format=torch.channels_last)
        assert_near(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("inputs", "outputs"), [(9, 70), (130, 9), (1500, 8), (2500, 3)])
@pytest.mark.parametrize("gelu", [True, False])
def test_a_single_row(dtype: torch.dtype, inputs: int, outputs: int, gelu: bool) -> None:
    row, weight = random(1, 1, inputs), random(outputs, inputs, dtype=dtype, seed=1) / inputs
    for bias in (None, random(outputs, dtype=dtype, seed=2)):
        wide = (each if each is None else each.float() for each in (weight, bias))
        expected = unwrap(operators.linear_row)(row.to(dtype), *wide, gelu, torch.float32)
        actual = kernels.linear_row(row, weight, bias, gelu, dtype)
        assert actual.dtype == dtype
        assert actual.shape == (1, 1, outputs)
        step = _step(dtype)
        torch.testing.assert_close(
            actual.float(), expected, rtol=max(step, 1e-5), atol=max(step / 4, 1e-5)
        )


@pytest.mark.parametrize("gelu", [True, False])
def test_a_single_row_of_narrow_weights_in_any_layout(gelu: bool) -> None:
    row, bias = random(1, 1, 300), random(20, seed=2)
    weight = (random(300, 20, seed=1) / 300).half().t()
    expected = unwrap(operators.linear_row)(row, weight, bias, gelu, torch.float32)
    actual = kernels.linear_row(row, weight, bias, gelu, torch.float32)
    assert actual.dtype == torch.float32
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_no_kernel_starts_early_but_on_a_card_that_can() -> None:
    assert not early_start.can_start_early(torch.device("cpu"))
    assert early_start.launch_options(False) == {}
    if torch.cuda.is_available() and not INTERPRETING:
        can = torch.cuda.get_device_capability() >= (9, 0)
        assert early_start.can_start_early(torch.device("cuda", 0)) == can


@pytest.mark.parametrize(
    "dtype",
    [torch.float16] if INTERPRETING else [torch.float16, torch.bfloat16],  # has no such products
)
@pytest.mark.parametrize(
    ("count", "tokens", "channels"),
    [(64, 64, 64), (81, 150, 64), (17, 4500, 16), (200, 4100, 24), (128, 4096, 6), (70, 3, 16)],
)
def test_attention(dtype: torch.dtype, count: int, tokens: int, channels: int) -> None:
    frames, heads = 2, 3
    query = random(frames, count, heads, channels, dtype=dtype).transpose(1, 2)
    keys = random(frames, heads, tokens + 5, channels, dtype=dtype, seed=1)[:, :, 5:]
    values = random(frames, tokens, heads, channels, dtype=dtype, seed=2).transpose(1, 2)
    wide = [each.float() for each in (query, keys, values)]
    expected = unwrap(attention.attend)(*wide)
    actual = attention_kernels.attend(query, keys, values)
    assert actual.dtype == dtype
    assert actual.transpose(1, 2).is_contiguous()
    # Shares of the attention are rounded to the half type before they are multiplied.
    step = _step(dtype)
    torch.testing.assert_close(actual.float(), expected, rtol=4 * step, atol=8 * step)


def _step(dtype: torch.dtype) -> float:
    """Return how far a rounded number may be off; the interpreter cuts bfloat16 off."""
    cuts = INTERPRETING and dtype == torch.bfloat16
    return torch.finfo(dtype).eps * (4 if cuts else 1)
