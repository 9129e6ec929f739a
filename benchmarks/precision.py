# SPDX-License-Identifier: Apache-2.0
"""How far half types and narrower weights lie from float32, on the same frames.

    python benchmarks/precision.py --checkpoint demo --width 112
    python benchmarks/precision.py --preset streamvggt --width 518 --frames 3

Weights are random unless --checkpoint is given. Prints relative RMS deviations as Markdown; rows of
weights with 8 bits only where torchao is installed.
"""

from __future__ import annotations

import argparse
import platform
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.model.checkpoint import load_network
from xsvggt_ros.stream.frame import FrameResult
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings
from xsvggt_ros.stream.sources import open_source

SAMPLE = Path(__file__).parent.parent / "sample" / "room"


EXACT = ("float32", "float32", "full")
KINDS = (
    EXACT,
    ("float32", "bfloat16", "full"),
    ("float32", "float16", "full"),
    ("bfloat16", "float32", "full"),
    ("float32", "float32", "float16_camera"),
    ("bfloat16", "float32", "float16_camera"),
    ("bfloat16", "bfloat16", "full"),
    ("bfloat16", "float16", "full"),
    ("float16", "float32", "full"),
    ("float16", "float16", "full"),
    ("float32", "float32", "int8_camera"),
    ("float32", "float32", "int8"),
    ("bfloat16", "float32", "int8_camera"),
    ("bfloat16", "float32", "int8"),
)
"""Dtype of the aggregator, of the heads, and how linear layers are stored. ``float16_camera`` is
how those of a float32 camera head are stored on CUDA, beside an aggregator in a half type."""


def run(arguments: argparse.Namespace, kind: tuple[str, str, str]) -> list[FrameResult]:
    """Reconstruct the first frames of the source in the dtypes and weights of ``kind``."""
    dtype, heads_dtype, weights = kind
    network = load_network(
        arguments.checkpoint,
        preset=None if arguments.checkpoint else arguments.preset,
        device=arguments.device,
        dtype=dtype,
        heads_dtype=heads_dtype,
        weights="full" if weights == "float16_camera" else weights,
    )
    if weights == "float16_camera":
        network.camera_head.store_in_float16()
    settings = ReconstructorSettings(arguments.width, CacheSettings(budget_tokens=arguments.budget))
    engine = Reconstructor(network, settings)
    with open_source(arguments.source) as source:
        frames = [frame.decode() for frame, _ in zip(source, range(arguments.frames), strict=False)]
    return [engine.step(image) for image in frames]


def deviation(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    """Return the RMS of the difference over that of ``first``."""
    exact, rounded = np.stack(first).astype(float), np.stack(second).astype(float)
    return float(np.sqrt(np.mean((exact - rounded) ** 2) / np.mean(exact**2)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--width", type=int, default=224)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--budget", type=int, default=8192)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--source", default=str(SAMPLE))
    arguments = parser.parse_args()

    exact = run(arguments, EXACT)
    height, width = exact[0].color.shape[:2]
    print(
        f"{platform.machine()}, torch {torch.__version__}, {arguments.device}, "
        f"{arguments.checkpoint or arguments.preset}, {width}x{height}, "
        f"{len(exact)} frames, budget {arguments.budget}\n"
    )
    print("| aggregator | heads | weights | depth | log depth | translation | rotation | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in KINDS:
        if kind[2].startswith("int8") and find_spec("torchao") is None:
            continue
        other = exact if kind == EXACT else run(arguments, kind)
        depths = [r.depth for r in exact], [r.depth for r in other]
        poses = [r.camera_to_world for r in exact], [r.camera_to_world for r in other]
        figures = (
            deviation(*depths),
            deviation(*([np.log(d) for d in side] for side in depths)),
            deviation(*([p[:3, 3] for p in side] for side in poses)),
            deviation(*([p[:3, :3] for p in side] for side in poses)),
        )
        seconds = float(np.median([r.timings.total for r in other[1:]]))
        numbers = " | ".join(f"{figure:.1e}" for figure in figures)
        print(f"| {' | '.join(kind)} | {numbers} | {seconds:.3f} |", flush=True)


if __name__ == "__main__":
    main()
