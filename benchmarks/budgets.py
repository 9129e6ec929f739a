# SPDX-License-Identifier: Apache-2.0
"""What weights and cache take, reckoned for the official network without loading it.

python benchmarks/budgets.py
"""

from __future__ import annotations

import torch

from xsvggt_ros.cache.byte_budget import MIB, cache_nbytes
from xsvggt_ros.cache.layout import CacheLayout, TokenShape
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.model.config import PRESETS
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.stream.preprocessing import plan

WIDTHS = (518, 392, 280)
BUDGETS = (2048, 4096, 8192, 16384)
BITS = (16, 8, 4, 2)
DTYPES = (torch.float32, torch.float16)


def main() -> None:
    """Print both tables as Markdown."""
    config = PRESETS["streamvggt"]
    with torch.device("meta"):
        parameters = sum(each.numel() for each in StreamVggt(config).parameters())
    print(f"Weights: {parameters / 1e9:.2f} billion parameters")
    for dtype in DTYPES:
        print(f"  {dtype}: {parameters * dtype.itemsize / MIB / 1024:.1f} GiB")
    print("\n| width | tokens a frame | budget |", *(f"{bits} bits |" for bits in BITS))
    print("|---|---|---|" + "---|" * len(BITS))
    for width in WIDTHS:
        mapping = plan(640, 480, width, config.patch_size)
        frame = config.tokens_per_frame(mapping.height, mapping.width)
        for budget in BUDGETS:
            cells = [f"{_mib(budget, frame, bits):.0f} |" for bits in BITS]
            print(f"| {mapping.width}x{mapping.height} | {frame} | {budget} |", *cells)


def _mib(budget: int, frame: int, bits: int) -> float:
    """Return MiB of the cache of a network that computes in 16 bits, scratch included."""
    config = PRESETS["streamvggt"]
    layout = CacheLayout(
        layers=config.depth,
        token=TokenShape(config.num_heads, config.head_dim, torch.float16, torch.device("cpu")),
        special_tokens=config.special_tokens,
        camera_blocks=config.camera.depth,
        camera_iterations=config.camera.iterations,
    )
    settings = CacheSettings(budget_tokens=budget, key_bits=bits, value_bits=bits)
    return cache_nbytes(settings, layout, budget=budget, anchor=frame, frames={frame}) / MIB


if __name__ == "__main__":
    main()
