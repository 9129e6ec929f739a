# SPDX-License-Identifier: Apache-2.0
"""Grids, codes and packing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from streams import relative_rms

from xsvggt_ros.cache.published import rounded
from xsvggt_ros.cache.quantization import (
    Grid,
    encode,
    fit_grid,
    levels,
    pack,
    packed_width,
    unpack_into,
)

PACKED_BITS = (2, 4, 8)


def rounded_by_grid(values: torch.Tensor, bits: int) -> torch.Tensor:
    grid = fit_grid(values.amin(-1, keepdim=True), values.amax(-1, keepdim=True), bits)
    return encode(values, grid, bits).float() * grid.scale.float() + grid.minimum.float()


@given(
    bits=st.sampled_from(PACKED_BITS), channels=st.integers(1, 70), seed=st.integers(0, 2**31 - 1)
)
def test_packing_loses_nothing(bits: int, channels: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(
        0, levels(bits) + 1, (3, 4, channels), generator=generator, dtype=torch.uint8
    )
    packed = pack(codes, bits)
    assert packed.shape == (3, 4, packed_width(channels, bits))
    assert packed.nbytes == 12 * -(-channels * bits // 8)
    unpacked = torch.full((3, 4, channels), -1.0)
    unpack_into(packed, bits, unpacked)
    assert torch.equal(unpacked, codes.float())


@given(
    bits=st.sampled_from(PACKED_BITS),
    center=st.floats(-1e3, 1e3),
    width=st.floats(0, 1e3),
    seed=st.integers(0, 2**31 - 1),
)
def test_no_value_is_further_off_than_half_a_step(
    bits: int, center: float, width: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = center + width * (torch.rand(4, 64, generator=generator) - 0.5)
    lowest, highest = values.amin(-1, keepdim=True), values.amax(-1, keepdim=True)
    grid = fit_grid(lowest, highest, bits)
    assert grid.scale.dtype == grid.minimum.dtype == torch.float16
    # The grid covers the range, so no value is cut off, and hardly more than it.
    assert (grid.minimum.float() <= lowest).all()
    top = grid.minimum.float() + grid.scale.float() * levels(bits)
    assert (top >= highest - 1e-5 * highest.abs() - 2e-7).all()
    step = grid.scale.float()
    error = (rounded_by_grid(values, bits) - values).abs()
    # Below 6e-8 float16 ends.
    assert (error <= step * 0.501 + 2e-6 * values.abs() + 1e-7).all()
    loosest = ((highest - lowest) + 2e-3 * values.abs().amax()) / levels(bits) * 1.01 + 1e-6
    assert (step <= loosest).all()


@pytest.mark.parametrize("bits", PACKED_BITS)
def test_constant_channels_are_exact(bits: int) -> None:
    for constant in (0.0, 0.1, -1 / 3, 4.7, 1234.567, -65504.0):
        values = torch.full((1, 64), constant)
        error = (rounded_by_grid(values, bits) - values).abs().max()
        assert error <= 1e-5 * abs(constant)


@pytest.mark.parametrize(("bits", "limit"), [(8, 0.002), (4, 0.02), (2, 0.095)])
def test_a_biased_channel_keeps_its_place_for_ever(bits: int, limit: float) -> None:
    values = torch.randn(200, 64, generator=torch.Generator().manual_seed(0)) + 5.0
    ours, published = values, values
    for _ in range(30):
        ours = rounded_by_grid(ours, bits)
        published = rounded(published, bits)
    assert relative_rms(ours, values) <= limit
    assert relative_rms(published, values) > 0.9  # its clamped zero point erases such a channel


def test_rounding_twice_on_the_same_values_changes_nothing_more() -> None:
    values = torch.randn(50, 64, generator=torch.Generator().manual_seed(1))
    once = rounded_by_grid(values, 4)
    assert relative_rms(once, values) == pytest.approx(0.09, abs=0.005)
    assert relative_rms(rounded_by_grid(once, 4), once) <= 1e-3


def test_numbers_beyond_float16_are_cut_off_and_stay_finite() -> None:
    values = torch.tensor([[-1e6, 0.0, 1e6]])
    assert torch.isfinite(rounded_by_grid(values, 4)).all()
    grid = fit_grid(values[:, :1], values[:, 2:], 8)
    assert isinstance(grid, Grid)
    assert float(grid.minimum) == -65504.0
