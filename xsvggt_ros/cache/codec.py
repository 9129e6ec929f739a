# SPDX-License-Identifier: Apache-2.0
"""Keys and values between their own type and packed codes, in plain PyTorch.

The definition that every kernel is held to: the Triton kernels (`kernels/`) give the same codes,
grids and numbers bit for bit. Products of a code and a float16 scale are exact in float32, so it
makes no difference whether the addition behind them is fused.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from xsvggt_ros.cache.quantization import Grid, encode, fit_grid, pack, unpack_into


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
