# SPDX-License-Identifier: Apache-2.0
"""How far bfloat16 and float16 lie from float32, with the same weights on the same frames.

    python benchmarks/precision.py --preset streamvggt --width 518 --frames 3

Weights are random unless --checkpoint is given. Prints relative RMS deviations as Markdown.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import numpy as np
import torch

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.model.checkpoint import load_network
from xsvggt_ros.stream.frame import FrameResult
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings
from xsvggt_ros.stream.sources import open_source

SAMPLE = Path(__file__).parent.parent / "sample" / "room"


def run(arguments: argparse.Namespace, dtype: str) -> list[FrameResult]:
    """Reconstruct the first frames of the source in ``dtype``."""
    network = load_network(
        arguments.checkpoint, preset=arguments.preset, device=arguments.device, dtype=dtype
    )
    settings = ReconstructorSettings(arguments.width, CacheSettings(budget_tokens=arguments.budget))
    engine = Reconstructor(network, settings)
    with open_source(arguments.source) as source:
        frames = [frame.decode() for frame, _ in zip(source, range(arguments.frames), strict=False)]
    return [engine.step(picture) for picture in frames]


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

    exact = run(arguments, "float32")
    print(
        f"{platform.machine()}, torch {torch.__version__}, {arguments.device}, preset "
        f"{arguments.preset}, {exact[0].color.shape[1]}x{exact[0].color.shape[0]}, "
        f"{len(exact)} frames, budget {arguments.budget}\n"
    )
    print("| dtype | depth | log depth | translation | rotation | seconds a frame |")
    print("|---|---|---|---|---|---|")
    for dtype in ("float32", "bfloat16", "float16"):
        other = exact if dtype == "float32" else run(arguments, dtype)
        depths = [r.depth for r in exact], [r.depth for r in other]
        poses = [r.camera_to_world for r in exact], [r.camera_to_world for r in other]
        figures = (
            deviation(*depths),
            deviation(*([np.log(d) for d in side] for side in depths)),
            deviation(*([p[:3, 3] for p in side] for side in poses)),
            deviation(*([p[:3, :3] for p in side] for side in poses)),
        )
        seconds = float(np.median([r.timings.total for r in other[1:]]))
        print(f"| {dtype} | " + " | ".join(f"{f:.1e}" for f in figures) + f" | {seconds:.3f} |")


if __name__ == "__main__":
    main()
