# SPDX-License-Identifier: Apache-2.0
"""Asymmetric uniform quantization: grids, codes, and how codes lie in bytes.

A value ``x`` of a group becomes ``code * scale + minimum`` with ``code`` in 0..2^bits - 1. The
minimum itself is stored, so a group far from zero keeps its values, and a constant group is exact:
there is no zero point that could be clamped.

What is here in plain PyTorch is the definition of the Triton kernels (`kernels/`), which give the
same codes, grids and numbers bit for bit. Products of a code and a float16 scale are exact in
float32, so it makes no difference whether the addition behind them is fused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

UNQUANTIZED = 16
"""The width that stands for: kept as it came, whatever its dtype."""

_HALF_STEP = 2.0**-10
_LEAST_HALF = 2.0**-24
_MOST_HALF = 65504.0


class Grid(NamedTuple):
    """The values that codes stand for; both float16 and of one shape."""

    scale: Tensor
    minimum: Tensor


def levels(bits: int) -> int:
    """Return the highest code of ``bits``."""
    return (1 << bits) - 1


def fit_grid(lowest: Tensor, highest: Tensor, bits: int) -> Grid:
    """Return the finest float16 grid that covers ``lowest`` to ``highest``, of any one shape.

    The minimum is rounded down and the scale up, so that float16 never cuts the range. What the
    minimum loses, the highest code wins back, so a constant group is exact, to 1e-5 of itself, from
    0.1 upwards; below, float16 ends at 6e-8, so 1e-5 is off by 1e-8. Beyond 65504, where float16
    ends, values are cut off.

    Args:
        lowest: of the values of each group, of any shape.
        highest: of the same shape.
        bits: of a code.

    """
    low = lowest.float().clamp(-_MOST_HALF, _MOST_HALF)
    high = highest.float().clamp(-_MOST_HALF, _MOST_HALF)
    minimum = _half_below(low)
    return Grid(_half_above((high - minimum.float()) / levels(bits)), minimum)


def encode(values: Tensor, grid: Grid, bits: int) -> Tensor:
    """Return the nearest codes, uint8 of the shape of ``values``; ``grid`` must broadcast to it.

    Args:
        values: of any shape.
        grid: broadcasts to it.
        bits: of a code.

    """
    scale = grid.scale.float()
    inverse = torch.where(scale > 0, scale.reciprocal(), torch.zeros_like(scale))
    codes = (values.float() - grid.minimum.float()) * inverse
    return codes.round_().clamp_(0, levels(bits)).to(torch.uint8)


def packed_width(channels: int, bits: int) -> int:
    """Return how many bytes hold ``channels`` codes."""
    return -(-channels * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack codes uint8 [..., channels] into uint8 [..., packed_width].

    Byte ``i`` holds channels ``i``, ``i + width``, ``i + 2 width``.. from its lowest bits up, so
    that packing and unpacking move whole runs of channels and never single ones.
    """
    width = packed_width(codes.shape[-1], bits)
    packed = codes[..., :width].clone()
    for plane in range(1, 8 // bits):
        part = codes[..., plane * width : (plane + 1) * width]
        packed[..., : part.shape[-1]] |= part << (plane * bits)
    return packed


def unpack_into(packed: Tensor, bits: int, codes: Tensor) -> None:
    """Write the codes of :func:`pack` into ``codes`` [..., channels], of any dtype.

    Args:
        packed: uint8 [..., width].
        bits: of a code.
        codes: takes them, [..., channels].

    """
    width, channels = packed.shape[-1], codes.shape[-1]
    if bits == 8:
        codes.copy_(packed)
        return
    mask = levels(bits)
    for start in range(0, channels, width):
        stop = min(start + width, channels)
        part = packed[..., : stop - start]
        shift = start // width * bits
        if shift:
            part = part >> shift
        if shift + bits < 8:
            part = part & mask
        codes[..., start:stop] = part


def _half_below(values: Tensor) -> Tensor:
    """Return the largest float16 not above each of ``values``, or a neighbour of it."""
    nearest = values.half()
    lower = (values - values.abs() * _HALF_STEP - _LEAST_HALF).half()
    return torch.where(nearest.float() > values, lower, nearest)


def _half_above(values: Tensor) -> Tensor:
    nearest = values.half()
    upper = (values + values.abs() * _HALF_STEP + _LEAST_HALF).half()
    return torch.where(nearest.float() < values, upper, nearest)


def decode_keys(
    codes: Tensor, scale: Tensor, minimum: Tensor, rows: Tensor, bits: int, out: Tensor
) -> None:
    """Decode the first ``out.shape[1]`` slots of keys.

    Args:
        codes: uint8 [lanes, slots, packed width].
        scale: table of the groups' scales, float16 [lanes, rows, channels].
        minimum: the same of minima.
        rows: the row of each slot, int16 or int32 [sets, slots].
        bits: width of a code.
        out: written to, [lanes, n, channels] of any floating type.

    """
    count = out.shape[1]
    lanes = out.shape[0] // rows.shape[0]
    own = rows[:, :count].int()
    for part, decoded in _decoding(out):
        unpack_into(codes[part, :count], bits, decoded)
        for lane in range(part.start, part.stop):
            row = own[lane // lanes]
            torch.addcmul(
                minimum[lane].float().index_select(0, row),
                decoded[lane - part.start],
                scale[lane].float().index_select(0, row),
                out=decoded[lane - part.start],
            )


def decode_values(codes: Tensor, scale: Tensor, minimum: Tensor, bits: int, out: Tensor) -> None:
    """Decode the first ``out.shape[1]`` slots of values.

    Args:
        codes: uint8 [lanes, slots, packed width].
        scale: of each token, float16 [lanes, slots, 1].
        minimum: of each token, the same.
        bits: width of a code.
        out: written to, [lanes, n, channels] of any floating type.

    """
    count = out.shape[1]
    for part, decoded in _decoding(out):
        unpack_into(codes[part, :count], bits, decoded)
        own = scale[part, :count].float()
        torch.addcmul(minimum[part, :count].float(), decoded, own, out=decoded)


def encode_keys(tokens: Tensor, group_size: int, bits: int) -> tuple[Tensor, Grid]:
    """Round runs of ``group_size`` keys, each run by grids of its own, one for each channel.

    Args:
        tokens: [lanes, n, channels].
        group_size: keys of a run; the last one may be shorter.
        bits: width of a code.

    Returns:
        Packed codes uint8 [lanes, n, packed width], and grids float16 [lanes, runs, channels].

    """
    count = tokens.shape[1]
    runs = -(-count // group_size)
    # A short last run is filled up with its own last token, which changes no minimum.
    padding = runs * group_size - count
    padded = torch.cat([tokens, tokens[:, -1:].expand(-1, padding, -1)], dim=1)
    grouped = padded.unflatten(1, (runs, group_size))
    grid = fit_grid(grouped.amin(2), grouped.amax(2), bits)
    codes = encode(grouped, Grid(grid.scale[:, :, None], grid.minimum[:, :, None]), bits)
    return pack(codes.flatten(1, 2)[:, :count], bits), grid


def encode_values(tokens: Tensor, bits: int) -> tuple[Tensor, Grid]:
    """Round each value by a grid of its own.

    Args:
        tokens: [lanes, n, channels].
        bits: width of a code.

    Returns:
        Packed codes uint8 [lanes, n, packed width], and grids float16 [lanes, n, 1].

    """
    grid = fit_grid(tokens.amin(-1, keepdim=True), tokens.amax(-1, keepdim=True), bits)
    return pack(encode(tokens, grid, bits), bits), grid


def _decoding(out: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield lanes and the float32 room to decode them in, and bring each to ``out``.

    On a CPU a lane at a time stays in the cache, which is several times faster; on a GPU all at
    once saves launches.
    """
    step = 1 if out.device.type == "cpu" else out.shape[0]
    for start in range(0, out.shape[0], step):
        lanes = slice(start, start + step)
        if out.dtype == torch.float32:
            yield lanes, out[lanes]
        else:
            decoded = torch.empty(out[lanes].shape, dtype=torch.float32, device=out.device)
            yield lanes, decoded
            out[lanes] = decoded
