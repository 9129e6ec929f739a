# SPDX-License-Identifier: Apache-2.0
"""How latency and memory of a session go with its length, compressed against uncompressed.

    python benchmarks/growth.py                  # small preset, 2000 frames: about ten minutes
    python benchmarks/growth.py --preset wide    # full width, few layers, 300 frames
    python benchmarks/growth.py --preset tiny_lingbot

Runs the whole engine on moving noise with random weights. Writes `table.md`, `frames.csv` and
`figure.png` to --output. Compare times within a run only.
"""

from __future__ import annotations

import argparse
import csv
import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.model.checkpoint import random_network
from xsvggt_ros.model.config import (
    CameraHeadConfig,
    DenseHeadConfig,
    EncoderConfig,
    NetworkConfig,
    preset,
)
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings

mpl.use("Agg")
from matplotlib import pyplot as plt

LEAST_FRAMES = 10
"""Below, there is no early and no late."""

WIDE = NetworkConfig(
    image_size=224,
    depth=2,
    encoder=EncoderConfig(depth=2),
    camera=CameraHeadConfig(depth=1),
    dense=DenseHeadConfig(features=64, out_channels=(64, 64, 128, 128), layers=(0, 0, 1, 1)),
)
"""Tokens as wide as those of the official network, in few layers."""


@dataclass(frozen=True)
class Run:
    """One session: milliseconds in the network and bytes held, frame by frame."""

    name: str
    milliseconds: list[float]
    cache: list[int]
    beside: list[int]


def images(width: int, height: int, count: int) -> Iterator[NDArray[np.uint8]]:
    """Yield noise that drifts, so that frames resemble their neighbours."""
    generator = np.random.default_rng(0)
    canvas = generator.integers(0, 256, (height, 4 * width, 3), np.uint8)
    for index in range(count):
        yield np.ascontiguousarray(np.roll(canvas, -3 * index, axis=1)[:, :width])


def run(
    network: StreamVggt,
    settings: dict[str, ReconstructorSettings],
    shape: tuple[int, int],
    frames: int,
) -> list[Run]:
    """Reconstruct ``frames`` images with every cache.

    Turn by turn, so that whatever else the machine does meets all of them alike.
    """
    engines = {name: Reconstructor(network, each) for name, each in settings.items()}
    runs = [Run(name, [], [], []) for name in settings]
    for index, image in enumerate(images(*shape, frames)):
        for each in runs:
            for result in engines[each.name].take(image, stamp=index):
                each.milliseconds.append(1e3 * result.timings.network)
                each.cache.append(result.cache.nbytes)
                each.beside.append(result.cache.scratch_nbytes + result.cache.camera_nbytes)
        if index % 100 == 99:
            now = (f"{median(each.milliseconds[-50:]):.1f} ms {each.name}" for each in runs)
            print(f"frame {index + 1}: " + ", ".join(now), flush=True)
    return runs


def caches(
    config: NetworkConfig, bounded: CacheSettings, *, every_frame: bool
) -> dict[str, CacheSettings]:
    """Return the caches to compare, by name."""
    uncompressed = CacheSettings("none", key_bits=16, value_bits=16)
    found = {
        "compressed, 4/4 bits": bounded,
        "pruned, 16/16 bits": replace(bounded, key_bits=16, value_bits=16),
        "published, simulated 4/4": replace(bounded, compatibility="published"),
        "uncompressed": uncompressed,
    }
    if config.stream.window_frames:
        # Special tokens of so few older frames that both are full soon.
        window = CacheSettings("lingbot", trajectory_frames=32)
        found = {
            "window, 4/4 bits": window,
            "window, 16/16 bits": replace(window, key_bits=16, value_bits=16),
            "xstreamvggt, 4/4 bits": bounded,
            "uncompressed": uncompressed,
        }
    interval = 1 if every_frame else 0
    return {name: replace(each, keyframe_interval=interval) for name, each in found.items()}


def undisturbed(milliseconds: list[float]) -> float:
    """Return the lowest tenth's bound: what a step takes while nothing else runs."""
    return float(np.quantile(milliseconds, 0.1))


def table(runs: list[Run], frames: int, head: str) -> str:
    """Return latency and bytes early and late, as Markdown."""
    early = min(100, frames // 3)
    span = min(100, max(10, frames // 10), early)
    lines = [
        head,
        "",
        f"| cache | ms at frame {early} | ms at frame {frames} | ratio | MiB at frame {early} "
        f"| MiB at frame {frames} | scratch and camera MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in runs:
        first = undisturbed(each.milliseconds[early - span // 2 : early + span // 2])
        last = undisturbed(each.milliseconds[-span:])
        lines.append(
            f"| {each.name} | {first:.1f} | {last:.1f} | {last / first:.2f} "
            f"| {each.cache[early] / 2**20:.2f} | {each.cache[-1] / 2**20:.2f} "
            f"| {each.beside[-1] / 2**20:.2f} |"
        )
    return "\n".join(lines) + "\n"


def draw(path: Path, runs: list[Run], title: str) -> None:
    """Draw latency and bytes over the frame number."""
    figure, (time, memory) = plt.subplots(1, 2, figsize=(13, 4.8))
    for each in runs:
        smooth = np.convolve(each.milliseconds, np.ones(9) / 9, mode="valid")
        time.plot(np.arange(len(smooth)) + 5, smooth, label=each.name, lw=1.2)
        memory.plot([n / 2**20 for n in each.cache], label=each.name, lw=1.6)
    for axes, label in ((time, "network, ms a frame"), (memory, "cache, MiB allocated")):
        axes.set_xlabel("frame")
        axes.set_ylabel(label)
        axes.set_yscale("log")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--preset", default="small", help="small, tiny, tiny_lingbot, or wide")
    parser.add_argument("--frames", type=int, help="default: 2000, with wide 300")
    parser.add_argument("--width", type=int, help="default: 112, with wide 140")
    parser.add_argument("--budget-frames", type=float, default=8, help="budget, in frames' tokens")
    parser.add_argument(
        "--every-frame",
        action="store_true",
        help="store every frame, as with a key-frame interval"
        " of 1; only LingBot-Map stores fewer by itself",
    )
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, default=Path("results/growth"))
    arguments = parser.parse_args()
    wide = arguments.preset == "wide"
    frames = (300 if wide else 2000) if arguments.frames is None else arguments.frames
    if frames < LEAST_FRAMES:
        raise SystemExit(f"growth.py: --frames {frames}: must be at least {LEAST_FRAMES}")
    width = arguments.width or (140 if wide else 112)
    height = width * 3 // 4 // 14 * 14
    config = WIDE if wide else preset(arguments.preset)
    network = random_network(config, 0).eval().requires_grad_(False)
    network = network.to(arguments.device).set_precision(getattr(torch, arguments.dtype))
    tokens = config.tokens_per_frame(height, width)
    budget = int(arguments.budget_frames * tokens)
    bounded = CacheSettings("xstreamvggt", budget_tokens=budget)
    settings = caches(config, bounded, every_frame=arguments.every_frame)
    runs = run(
        network,
        {name: ReconstructorSettings(width, cache) for name, cache in settings.items()},
        (width, height),
        frames,
    )
    head = (
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"{arguments.device}, {arguments.dtype}; preset {arguments.preset}, {width}x{height} "
        f"({tokens} tokens a frame), budget {budget}"
    )
    arguments.output.mkdir(parents=True, exist_ok=True)
    text = table(runs, frames, head)
    print("\n" + text)
    (arguments.output / "table.md").write_text(text, encoding="utf-8")
    with (arguments.output / "frames.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["cache", "frame", "milliseconds", "cache_bytes", "other_bytes"])
        for each in runs:
            rows = zip(each.milliseconds, each.cache, each.beside, strict=True)
            writer.writerows([each.name, index, *row] for index, row in enumerate(rows))
    draw(arguments.output / "figure.png", runs, head)


if __name__ == "__main__":
    main()
