# SPDX-License-Identifier: Apache-2.0
"""What weights and cache take, reckoned for the official networks without loading them.

python benchmarks/budgets.py
"""

from __future__ import annotations

import torch

from xsvggt_ros.cache.layer_plan import MIB, cache_nbytes, window_budget
from xsvggt_ros.cache.layout import CacheLayout
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.model.config import PRESETS
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.stream.processing import plan
from xsvggt_ros.stream.step_runner import cache_layout

WIDTHS = (518, 392, 280)
BUDGETS = (2048, 4096, 8192, 16384)
BITS = (16, 8, 4, 2)
WINDOWS = (8, 16, 32, 64)
DTYPES = (torch.float32, torch.float16)


def main() -> None:
    """Print all tables as Markdown."""
    for name in ("streamvggt", "lingbot"):
        with torch.device("meta"):
            parameters = sum(each.numel() for each in StreamVggt(PRESETS[name]).parameters())
        print(f"Weights of {name}: {parameters / 1e9:.2f} billion parameters")
        for dtype in DTYPES:
            print(f"  {dtype}: {parameters * dtype.itemsize / MIB / 1024:.1f} GiB")
    config = PRESETS["streamvggt"]
    print("\n| width | tokens a frame | budget |", *(f"{bits} bits |" for bits in BITS))
    print("|---|---|---|" + "---|" * len(BITS))
    for width in WIDTHS:
        mapping = plan(640, 480, width, config.patch_size)
        frame = config.tokens_per_frame(mapping.height, mapping.width)
        for budget in BUDGETS:
            cells = [f"{_mib(budget, frame, bits):.0f} |" for bits in BITS]
            print(f"| {mapping.width}x{mapping.height} | {frame} | {budget} |", *cells)
    print("\n| width | tokens a frame | window |", *(f"{bits} bits |" for bits in BITS))
    print("|---|---|---|" + "---|" * len(BITS))
    for width in WIDTHS:
        mapping = plan(640, 480, width, config.patch_size)
        frame = PRESETS["lingbot"].tokens_per_frame(mapping.height, mapping.width)
        for window in WINDOWS:
            cells = [f"{_window_mib(window, frame, bits):.0f} |" for bits in BITS]
            print(f"| {mapping.width}x{mapping.height} | {frame} | {window} |", *cells)


def _window_mib(window: int, frame: int, bits: int) -> float:
    """Return MiB of LingBot-Map's cache in 16 bits, scratch included: 8 anchors and a window."""
    layout = _layout("lingbot")
    settings = CacheSettings(window_frames=window, key_bits=bits, value_bits=bits).settled(layout)
    anchor = layout.anchor_frames * frame
    budget = window_budget(settings, layout, anchor=anchor, frames={frame})
    return cache_nbytes(settings, layout, budget=budget, anchor=anchor, frames={frame}) / MIB


def _mib(budget: int, frame: int, bits: int) -> float:
    """Return MiB of the cache of a network that computes in 16 bits, scratch included."""
    layout = _layout("streamvggt")
    settings = CacheSettings(budget_tokens=budget, key_bits=bits, value_bits=bits)
    return cache_nbytes(settings, layout, budget=budget, anchor=frame, frames={frame}) / MIB


def _layout(preset: str) -> CacheLayout:
    """Return the tokens of a network that computes in 16 bits."""
    with torch.device("meta"):
        network = StreamVggt(PRESETS[preset]).set_precision(torch.float16)
    return cache_layout(network)


if __name__ == "__main__":
    main()
