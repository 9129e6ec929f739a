# SPDX-License-Identifier: Apache-2.0
"""What rounding costs, in bytes and in error, also after a thousand frames."""

from __future__ import annotations

import pytest
import torch
from selection import first_is_quick
from streams import (
    frame_tensors,
    layout,
    make_cache,
    relative_rms,
    run,
    segments,
    step,
    stored,
    updates,
)

from xsvggt_ros.cache.quantization import Grid, encode, fit_grid
from xsvggt_ros.cache.token_storage import PackedKeys

FULL_SIZE = layout(layers=1, heads=16, dim=64)
FRAME = 1041


@pytest.mark.slow
@pytest.mark.parametrize("budget", [4096, 8192])
@pytest.mark.parametrize(("bits", "most"), [(4, 4.6), (2, 2.6)])
def test_bits_an_element_at_full_size(budget: int, bits: int, most: float) -> None:
    cache = make_cache(FULL_SIZE, budget_tokens=budget, key_bits=bits, value_bits=bits)
    for seed in range(budget // FRAME + 2):
        step(cache, *frame_tensors(FRAME, seed, FULL_SIZE), updates(FRAME, seed))
    assert cache.statistics().tokens == budget
    assert 8 * cache.nbytes / (2 * budget * 1024) <= most
    # The layer that is decoded, and its newest frame, which waits for its rounding.
    assert cache.scratch_nbytes == 2 * (budget + 2 * FRAME) * 1024 * 4


def one_pass(keys: torch.Tensor, group: int, bits: int) -> torch.Tensor:
    """Round [n, channels] once, per channel over runs of ``group``."""
    runs = keys[: len(keys) // group * group].unflatten(0, (-1, group))
    grid = fit_grid(runs.amin(1), runs.amax(1), bits)
    grid = Grid(grid.scale[:, None], grid.minimum[:, None])
    decoded = encode(runs, grid, bits).float() * grid.scale.float() + grid.minimum.float()
    return decoded.flatten(0, 1)


@pytest.mark.parametrize(
    "policy", first_is_quick(["xstreamvggt", "random", "sliding_window", "key_diversity"])
)
def test_a_thousand_frames_of_pruning_round_no_more_than_one_pass(policy: str) -> None:
    sizes = layout(layers=1, heads=2, dim=16)
    frame, budget, frames = 133, 800, 1000
    cache = make_cache(sizes, budget_tokens=budget, key_bits=4, value_bits=4, policy=policy)
    for seed in range(frames):
        step(cache, *frame_tensors(frame, seed, sizes))
    tokens = stored(cache)
    assert len(tokens) == budget
    kept = torch.stack([tokens[number][0] for number in sorted(tokens)], 1)
    originals = torch.stack(
        [frame_tensors(frame, n // frame, sizes)[1][0, :, n % frame] for n in sorted(tokens)], 1
    )
    fresh = torch.cat([frame_tensors(frame, seed, sizes)[1][0, 0] for seed in range(40)])
    whole = fresh[: len(fresh) // 64 * 64]
    assert relative_rms(kept, originals) <= 1.1 * relative_rms(one_pass(whole, 64, 4), whole)


def test_biased_and_constant_channels_survive_a_thousand_frames() -> None:
    sizes = layout(layers=1, heads=1, dim=16)
    cache = make_cache(sizes, budget_tokens=400, key_bits=4, value_bits=4)

    def biased(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        query, key, value = frame_tensors(70, seed, sizes)
        key = key + 5.0
        key[..., 0] = 4.7
        return query, key, value

    for seed in range(1000):
        step(cache, *biased(seed))
    tokens = stored(cache)
    kept = torch.stack([tokens[number][0][0] for number in sorted(tokens)])
    originals = torch.stack([biased(n // 70)[1][0, 0, n % 70] for n in sorted(tokens)])
    assert (kept[:, 0] - 4.7).abs().max() <= 1e-5
    assert relative_rms(kept[:, 1:], originals[:, 1:]) <= 0.02


def test_the_table_of_grids_is_never_short_of_rows() -> None:
    # Frames of one more token than a group open two groups each: the tightest case.
    sizes = layout(layers=1)
    for tokens in (17, 33, 6, 16):
        cache = make_cache(
            sizes, budget_tokens=90, key_bits=4, value_bits=4, group_size=16, policy="random"
        )
        for seed in range(60):
            run(cache, [tokens], start=seed)
            for segment in segments(cache):
                if len(segment):
                    assert isinstance(segment.keys, PackedKeys)
                    occupancy = segment.keys.occupancy()
                    assert int(occupancy.max()) <= 16
                    assert int(occupancy.sum()) == len(segment)
