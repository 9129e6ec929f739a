# SPDX-License-Identifier: Apache-2.0
"""What a cache costs in accuracy, against the full one: depth, path and cloud of held-out rooms.

    python benchmarks/accuracy.py                   # the bundled model, sequences of 300 frames
    python benchmarks/accuracy.py --sequences medium_walk --budgets 8 --policies xstreamvggt
    python benchmarks/accuracy.py --sequences very_long --without-full

Every sequence is rendered once and goes through the engine with each cache: the full one (policy
none, 16 bits), the released code's (compatibility published), every policy at every budget at 4/4
bits, and every width at every budget under the first policy, which is the package's default unless
--policies says otherwise. Budgets are in frames. The engine is ours throughout: poses that the
network leaves open are held with every cache, the released code's too. Writes `table.md`,
`cells.csv` and `figure.png` to --output.

Cells that are in `cells.csv` are not run again where weights, size, pictures, true poses, cache
settings, PyTorch, processor and threads are the same. That the network's or the cache's code has
changed is not noticed: name another --output then. Times are medians within one run; compare them
with each other only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from accuracy_cells import FULL, Cell, Config, means, published, read_cells, write_cells
from accuracy_report import comparisons, draw, table
from scipy.spatial import cKDTree

from xsvggt_ros.cache.settings import POLICIES, CacheSettings
from xsvggt_ros.errors import ConfigurationError, XsvggtError
from xsvggt_ros.evaluation.frame import FrameTruth
from xsvggt_ros.evaluation.identity import fingerprint, machine, software, weights
from xsvggt_ros.evaluation.judge import SessionJudge
from xsvggt_ros.evaluation.request import JudgingOptions
from xsvggt_ros.evaluation.trajectory import score_trajectory
from xsvggt_ros.geometry.alignment import Similarity, align
from xsvggt_ros.geometry.rigid import invert
from xsvggt_ros.model.bundled import BUNDLED
from xsvggt_ros.model.checkpoint import load_network
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings
from xsvggt_ros.synthetic.held_out import DEFAULT_ROOM, SUITE, held_out
from xsvggt_ros.synthetic.rooms import room_named
from xsvggt_ros.synthetic.sequence import Sequence as Stream
from xsvggt_ros.synthetic.sequence import SyntheticFrame

DEFAULT_POLICY = CacheSettings().policy
POLICY_ORDER = [DEFAULT_POLICY, *(p for p in POLICIES if p not in (DEFAULT_POLICY, FULL.policy))]
BITS = 4
OTHER_WIDTHS = (16, 8, 2)
CLOUD_POINTS = 20_000
MEASURE = 3
"""Another number where `measure` computes something else, so that no older cell is taken for it."""


def measure(
    network: StreamVggt, frames: Sequence[SyntheticFrame], config: Config, name: str, identity: str
) -> Cell:
    """Run one cache over one sequence."""
    engine = engine_for(network, config, *frames[0].color.shape[:2])
    judge = SessionJudge(JudgingOptions(cloud_points=CLOUD_POINTS))
    seconds = []
    for frame in frames:
        result = engine.step(frame.color)
        judge.add(result, FrameTruth(frame.camera_to_world, frame.depth, frame.intrinsics))
        seconds.append(result.timings.network)
    scores = judge.scores()
    estimated, true = judge.matched()
    # A box's diagonal depends on its axes: those of the first camera, as in the model card.
    places = (invert(true[0]) @ true)[:, :3, 3]
    percent = 100 / float(np.linalg.norm(np.ptp(places, axis=0)))
    depth = scores.depth["median"]
    similar = scores.trajectory["sim3"]
    scaled = score_trajectory(Similarity(depth.alignment.scale).poses(estimated), true, "se3")
    assert judge.cloud is not None
    cloud = judge.cloud.points()
    ours = align(estimated[:, :3, 3], true[:, :3, 3], scale=True).points(cloud.estimated)
    return Cell(
        identity=identity,
        name=config.name,
        sequence=name,
        abs_rel=depth.errors.abs_rel,
        delta=depth.errors.delta_1,
        ate_sim3=percent * similar.ate.rmse,
        ate_scaled=percent * scaled.ate.rmse,
        rpe_rotation=similar.rpe_rotation.mean,
        rpe_sim3=percent * similar.rpe_translation.rmse,
        rpe_scaled=percent * scaled.rpe_translation.rmse,
        cloud_accuracy=float(cKDTree(cloud.true).query(ours)[0].mean()),
        cloud_completeness=float(cKDTree(ours).query(cloud.true)[0].mean()),
        network_ms=1e3 * median(seconds[len(seconds) // 2 :]),
        kib=(result.cache.nbytes + result.cache.scratch_nbytes) / 1024,
    )


def engine_for(network: StreamVggt, config: Config, height: int, width: int) -> Reconstructor:
    """Return an engine with a cache; raise ConfigurationError where these cannot go together."""
    patch = network.config.patch_size
    if height % patch or width % patch:
        raise ConfigurationError(
            f"pictures of {width}x{height} pixels do not divide into the network's patches; "
            f"--width and --height must be multiples of {patch}"
        )
    tokens = network.config.tokens_per_frame(height, width)
    return Reconstructor(network, ReconstructorSettings(width, config.settings(tokens)))


def configurations(
    policies: Sequence[str], budgets: Sequence[int], *, full: bool = True
) -> list[Config]:
    """Return the caches to compare, each once, the full one first where it is wanted."""

    def every() -> Iterator[Config]:
        if full:
            yield FULL
        bounded = [policy for policy in policies if policy != FULL.policy]
        for budget in budgets:
            yield published(budget)
            for policy in bounded:
                yield Config(policy, budget, BITS)
            for width in OTHER_WIDTHS if bounded else ():
                yield Config(bounded[0], budget, width)

    return list(dict.fromkeys(every()))


def chosen_sequences(asked: Sequence[str]) -> list[str]:
    """Return the names of the sequences that are asked for by name or by length.

    Raises:
        ConfigurationError: names that are neither.

    """
    names = [each.name for each in SUITE]
    lengths = list(dict.fromkeys(name.rpartition("_")[0] for name in names))
    unknown = [each for each in asked if each not in (*names, *lengths)]
    if unknown:
        raise ConfigurationError(
            f"--sequences {', '.join(unknown)}: unknown; choose lengths ({', '.join(lengths)}) or "
            f"names ({', '.join(names)})"
        )
    return [name for name in names if name in asked or name.rpartition("_")[0] in asked]


def check_caches(policies: Sequence[str], budgets: Sequence[int]) -> None:
    """Raise ConfigurationError for policies and budgets that there are not."""
    unknown = [each for each in policies if each not in POLICIES]
    if unknown:
        raise ConfigurationError(
            f"--policies {', '.join(unknown)}: unknown; choose of {', '.join(POLICIES)}"
        )
    if min(budgets) < 1:
        raise ConfigurationError(f"--budgets {min(budgets)}: must be at least 1 frame")


def digest(stream: Stream) -> str:
    """Return a hash of a sequence: of its true poses, and of its first picture and depth."""
    first = next(iter(stream))
    found = hashlib.sha256(np.ascontiguousarray(stream.poses))
    found.update(np.ascontiguousarray(first.color))
    found.update(np.ascontiguousarray(first.depth))
    return found.hexdigest()


def surroundings(network: StreamVggt, checkpoint: str) -> dict[str, Any]:
    """Return all that decides numbers and times, beside sequence and cache."""
    known = weights(network, checkpoint)
    computer = machine(network.device)
    return {
        "measure": MEASURE,
        "weights": known["sha256"],
        "dtype": known["dtype"],
        "torch": software()["torch"],
        "processor": computer["processor"],
        "threads": computer["threads"],
    }


def run(options: argparse.Namespace) -> None:
    """Measure what is missing, and write tables and figure."""
    check_caches(options.policies, options.budgets)
    names = chosen_sequences(options.sequences)
    room_named(options.room)
    network = load_network(options.checkpoint, device="cpu")
    configs = configurations(options.policies, options.budgets, full=not options.without_full)
    size = (options.height, options.width)
    for config in configs:
        engine_for(network, config, *size)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "cells.csv"
    cells = read_cells(path)
    around = surroundings(network, options.checkpoint)
    tokens = network.config.tokens_per_frame(*size)
    found: dict[Config, list[Cell]] = {config: [] for config in configs}
    for name in names:
        stream = Stream(held_out(name, options.room, options.width, options.height))
        pictures = digest(stream)
        frames: list[SyntheticFrame] = []
        for config in configs:
            identity = fingerprint(
                {**around, "pictures": pictures, "cache": asdict(config.settings(tokens))}
            )
            if identity not in cells:
                frames = frames or list(stream)
                cells[identity] = measure(network, frames, config, name, identity)
                write_cells(cells.values(), path)
                print(json.dumps(asdict(cells[identity])), flush=True)
            found[config].append(cells[identity])
    rows = means(found)
    what = f"{options.checkpoint}, {options.width}x{options.height}, room {options.room}"
    head = (
        f"{around['processor']}, {around['threads']} threads, PyTorch {around['torch']}; {what}, "
        f"weights {around['weights'][:12]}: means over {', '.join(names)}"
    )
    page = f"{head}\n\n{table(rows)}\n\n{comparisons(rows)}\n"
    (options.output / "table.md").write_text(page, encoding="utf-8")
    draw(rows, options.output / "figure.png", f"{what}: means over {', '.join(names)}")
    print(f"\n{page}")


def parser() -> argparse.ArgumentParser:
    """Return what reads the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default=BUNDLED)
    parser.add_argument("--sequences", nargs="+", help="names, or lengths such as long",
                        default=["long"])  # fmt: skip
    parser.add_argument("--room", default=DEFAULT_ROOM)
    parser.add_argument("--width", type=int, default=112)
    parser.add_argument("--height", type=int, default=84)
    parser.add_argument("--budgets", nargs="+", type=int, default=[4, 8, 16], help="in frames")
    parser.add_argument("--policies", nargs="+", default=POLICY_ORDER,
                        help="the first one is measured at other widths too")  # fmt: skip
    parser.add_argument("--without-full", action="store_true",
                        help="leave the full cache out, whose cost grows with the square of the "
                        "length")  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("results/accuracy"))
    return parser


def main() -> None:
    """Measure as the options say."""
    try:
        run(parser().parse_args())
    except XsvggtError as error:
        raise SystemExit(f"accuracy.py: {error}") from error


if __name__ == "__main__":
    main()
