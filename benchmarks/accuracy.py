# SPDX-License-Identifier: Apache-2.0
"""What a cache costs in accuracy, against the full one: depth, path and cloud of held-out rooms.

    python benchmarks/accuracy.py                   # the bundled model, sequences of 300 frames
    python benchmarks/accuracy.py --sequences medium_walk --budgets 8 --policies xstreamvggt

Every sequence is rendered once and goes through the engine with each cache: the full one (policy
none, 16 bits), the released code's (compatibility published), every policy at every budget at 4/4
bits, and every width at every budget under the first policy. Budgets are in frames. Writes
`table.md`, `cells.csv` and `figure.png` to --output; cells that are there are not run again.
Times are medians within one run on one machine; compare them with each other only.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import mean, median

import matplotlib as mpl
import numpy as np
import torch
from scipy.spatial import cKDTree

from xsvggt_ros.cache.settings import POLICIES, CacheSettings
from xsvggt_ros.evaluation.frame import FrameTruth
from xsvggt_ros.evaluation.judge import SessionJudge
from xsvggt_ros.evaluation.request import JudgingOptions
from xsvggt_ros.geometry.alignment import align
from xsvggt_ros.model.bundled import BUNDLED
from xsvggt_ros.model.checkpoint import load_network
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings
from xsvggt_ros.synthetic.held_out import SUITE, held_out
from xsvggt_ros.synthetic.sequence import Sequence as Stream
from xsvggt_ros.synthetic.sequence import SyntheticFrame

mpl.use("Agg")
from matplotlib import pyplot as plt

OTHER_WIDTHS = (16, 8, 2)
CLOUD_POINTS = 20_000


@dataclass(frozen=True)
class Config:
    """One cache; ``budget`` in frames, 0 = all."""

    policy: str
    budget: int
    bits: int
    published: bool = False

    @property
    def name(self) -> str:
        """What the table calls it."""
        if self.published:
            return f"published, {self.budget} frames"
        if self.policy == "none":
            return "full cache"
        return f"{self.policy}, {self.budget} frames, {self.bits} bits"

    def settings(self, frame_tokens: int) -> CacheSettings:
        """Return the settings for frames of so many tokens."""
        return CacheSettings(
            policy=self.policy,
            budget_tokens=max(1, self.budget * frame_tokens),
            key_bits=self.bits,
            value_bits=self.bits,
            compatibility="published" if self.published else "none",
        )


@dataclass(frozen=True)
class Cell:
    """One cache on one sequence.

    Depth after one median scale per sequence; ``ate_sim3`` and ``ate_scaled`` (SE(3) after lengths
    were multiplied with the scale of depth) in percent of the path's extent; rotations in degrees
    per frame, translations in percent of the extent per frame; cloud errors in metres after Sim(3);
    milliseconds of the network per frame; KiB of the cache, scratch included.
    """

    name: str
    policy: str
    budget: int
    bits: int
    sequence: str
    abs_rel: float
    delta: float
    ate_sim3: float
    ate_scaled: float
    rpe_rotation: float
    rpe_translation: float
    cloud_accuracy: float
    cloud_completeness: float
    network_ms: float
    kib: float


METRICS = ("abs_rel", "delta", "ate_sim3", "ate_scaled", "rpe_rotation", "rpe_translation",
           "cloud_accuracy", "cloud_completeness", "network_ms", "kib")  # fmt: skip


def rendered(name: str, room: str, width: int, height: int) -> list[SyntheticFrame]:
    """Return the frames of a held-out sequence."""
    return list(Stream(held_out(name, room, width, height)))


def measure(
    network: StreamVggt, frames: Sequence[SyntheticFrame], config: Config, name: str
) -> Cell:
    """Run one cache over one sequence."""
    shape = frames[0].color.shape
    tokens = network.config.tokens_per_frame(*shape[:2])
    engine = Reconstructor(network, ReconstructorSettings(shape[1], config.settings(tokens)))
    judge = SessionJudge(JudgingOptions(cloud_points=CLOUD_POINTS))
    seconds = []
    for frame in frames:
        result = engine.step(frame.color)
        judge.add(result, FrameTruth(frame.camera_to_world, frame.depth, frame.intrinsics))
        seconds.append(result.timings.network)
    scores = judge.scores()
    estimated, true = judge.matched()
    extent = float(np.linalg.norm(np.ptp(true[:, :3, 3], axis=0)))
    similarity = align(estimated[:, :3, 3], true[:, :3, 3], scale=True)
    depth = scores.depth["median"]
    scaled = depth.alignment.scale * estimated[:, :3, 3]
    rigid = align(scaled, true[:, :3, 3], scale=False)
    path = scores.trajectory["sim3"]
    assert judge.cloud is not None
    cloud = judge.cloud.points()
    ours = similarity.points(cloud.estimated)
    return Cell(
        name=config.name,
        policy=config.policy,
        budget=config.budget,
        bits=config.bits,
        sequence=name,
        abs_rel=depth.errors.abs_rel,
        delta=depth.errors.delta_1,
        ate_sim3=100 * path.ate.rmse / extent,
        ate_scaled=100 * _rms(rigid.points(scaled) - true[:, :3, 3]) / extent,
        rpe_rotation=path.rpe_rotation.mean,
        rpe_translation=100 * path.rpe_translation.rmse / extent,
        cloud_accuracy=float(cKDTree(cloud.true).query(ours)[0].mean()),
        cloud_completeness=float(cKDTree(ours).query(cloud.true)[0].mean()),
        network_ms=1e3 * median(seconds[len(seconds) // 2 :]),
        kib=(result.cache.nbytes + result.cache.scratch_nbytes) / 1024,
    )


def _rms(differences: np.ndarray) -> float:
    return float(np.sqrt((differences**2).sum(axis=-1).mean()))


def configurations(policies: Sequence[str], budgets: Sequence[int]) -> Iterator[Config]:
    """Yield the caches to compare, the full one first."""
    yield Config("none", 0, 16)
    for budget in budgets:
        yield Config("xstreamvggt", budget, 4, published=True)
        for policy in policies:
            yield Config(policy, budget, 4)
        for width in OTHER_WIDTHS:
            yield Config(policies[0], budget, width)


def known_cells(path: Path) -> list[Cell]:
    """Return the cells of an earlier run."""
    if not path.exists():
        return []
    kinds = {field.name: field.type for field in fields(Cell)}
    make = {"str": str, "int": int, "float": float}
    with path.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return [Cell(**{name: make[str(kinds[name])](row[name]) for name in kinds}) for row in rows]


def write_cells(cells: Sequence[Cell], path: Path) -> None:
    """Write all cells so far."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Cell)])
        writer.writeheader()
        writer.writerows(asdict(cell) for cell in cells)


def means(cells: Sequence[Cell]) -> dict[str, dict[str, float]]:
    """Return the mean of each metric over the sequences, by the name of the cache."""
    names = list(dict.fromkeys(cell.name for cell in cells))
    return {
        name: {
            metric: mean(getattr(cell, metric) for cell in cells if cell.name == name)
            for metric in METRICS
        }
        for name in names
    }


def table(cells: Sequence[Cell]) -> str:
    """Return the means as Markdown."""
    lines = [
        "| cache | AbsRel | δ<1.25 | ATE Sim(3) % | ATE SE(3) % | RPE rot. ° | RPE trans. % "
        "| accuracy m | completeness m | network ms | KiB |",
        "|---|" + "---:|" * len(METRICS),
    ]
    for name, row in means(cells).items():
        digits = (4, 3, 2, 2, 3, 2, 3, 3, 1, 0)
        numbers = [f"{row[m]:.{d}f}" for m, d in zip(METRICS, digits, strict=True)]
        lines.append(f"| {name} | " + " | ".join(numbers) + " |")
    return "\n".join(lines)


def draw(cells: Sequence[Cell], path: Path) -> None:
    """Draw error against bytes, a line per policy or width, and the full cache as a level."""
    rows = means(cells)
    series: dict[str, list[tuple[float, str]]] = {}
    for cell in {cell.name: cell for cell in cells}.values():
        if cell.policy == "none":
            continue
        label = (
            "published" if cell.name.startswith("published") else f"{cell.policy} {cell.bits} bit"
        )
        series.setdefault(label, []).append((rows[cell.name]["kib"], cell.name))
    shown = (("abs_rel", "depth AbsRel"), ("ate_sim3", "ATE after Sim(3), % of extent"),
             ("rpe_rotation", "rotation error, degrees per frame"))  # fmt: skip
    figure, axes = plt.subplots(1, 3, figsize=(15, 5), layout="constrained")
    for place, (metric, label) in zip(axes, shown, strict=True):
        for number, (name, points) in enumerate(series.items()):
            points = sorted(points)
            place.plot([kib for kib, _ in points], [rows[each][metric] for _, each in points],
                       "o-" if number < 10 else "o--", label=name,
                       color=f"C{number % 10}")  # fmt: skip
        if "full cache" in rows:
            place.axhline(rows["full cache"][metric], color="black", lw=1, label="full cache")
        place.set(xlabel="KiB of cache and scratch", ylabel=label, xscale="log")
        place.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure as the options say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default=BUNDLED)
    parser.add_argument("--sequences", nargs="+", help="names, or lengths such as long",
                        default=["long"])  # fmt: skip
    parser.add_argument("--room", default="chart")
    parser.add_argument("--width", type=int, default=112)
    parser.add_argument("--height", type=int, default=84)
    parser.add_argument("--budgets", nargs="+", type=int, default=[4, 8, 16], help="in frames")
    parser.add_argument("--policies", nargs="+", default=[p for p in POLICIES if p != "none"])
    parser.add_argument("--output", type=Path, default=Path("results/accuracy"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "cells.csv"
    network = load_network(options.checkpoint, device="cpu")
    cells = known_cells(path)
    done = {(cell.name, cell.sequence) for cell in cells}
    chosen = [
        each.name
        for each in SUITE
        if any(
            each.name == asked or each.name.startswith(f"{asked}_") for asked in options.sequences
        )
    ]
    for sequence in chosen:
        frames = rendered(sequence, options.room, options.width, options.height)
        for config in configurations(options.policies, options.budgets):
            if (config.name, sequence) in done:
                continue
            cells.append(measure(network, frames, config, sequence))
            write_cells(cells, path)
            print(json.dumps(asdict(cells[-1])), flush=True)
    head = (
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, "
        f"PyTorch {torch.__version__}; {options.checkpoint}, {options.width}x{options.height}, "
        f"room {options.room}: {', '.join(chosen)}"
    )
    (options.output / "table.md").write_text(f"{head}\n\n{table(cells)}\n", encoding="utf-8")
    draw(cells, options.output / "figure.png")
    print(table(cells))


if __name__ == "__main__":
    main()
