# SPDX-License-Identifier: Apache-2.0
"""What a cache costs in accuracy, against the full one: depth, path and cloud of held-out rooms.

    python benchmarks/accuracy.py                   # the bundled model, sequences of 300 frames
    python benchmarks/accuracy.py --sequences medium_walk --budgets 8 --policies xstreamvggt
    python benchmarks/accuracy.py --sequences very_long --without-full
    python benchmarks/accuracy.py --checkpoint FILE --sequences landmarks_100_lap50 --jobs 2
    python benchmarks/accuracy.py --policies xstreamvggt --changes anchor_bits=8 group_size=16

Every sequence is rendered once and goes through the engine with each cache: the full one (policy
none, 16 bits), two frames (no history: its errors as a multiple of the full one's are the need of
memory, see `memory_need.py`), the released code's (compatibility published), every policy at every
budget at 4/4 bits, and every width at every budget under the first policy, which is the package's
default unless --policies says otherwise, and every one of --changes, too. Budgets are in frames.
The engine is ours throughout: poses that the network leaves open are held with every cache, the
released code's too. Writes `table.md`, `cells.csv` and `figure.png` to --output. Of several
sequences the means have 95 % intervals (`intervals.png`), and so have paths over the full cache's
and the differences from it and from the first cache, which are taken sequence by sequence.

Cells that are in `cells.csv` are not run again where weights, size, images, true poses, cache
settings, PyTorch, processor and threads are the same. That the network's or the cache's code has
changed is not noticed: name another --output then. Times are medians within one run; compare them
with each other only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from accuracy_cells import (
    FULL,
    NO_HISTORY,
    Cell,
    Config,
    changes_of,
    means,
    published,
    read_cells,
    write_cells,
)
from accuracy_report import comparisons, draw, draw_intervals, paired, table
from scipy.spatial import cKDTree
from side_by_side import in_parallel

from xsvggt_ros.cache.settings import DEFAULT_POLICY, POLICIES
from xsvggt_ros.errors import ConfigurationError, XsvggtError
from xsvggt_ros.evaluation.evaluator import SessionEvaluator
from xsvggt_ros.evaluation.provenance import machine, software, weights
from xsvggt_ros.evaluation.request import ScoringOptions, fingerprint
from xsvggt_ros.evaluation.sources.base import FrameTruth
from xsvggt_ros.geometry.rigid import Similarity, align
from xsvggt_ros.metrics.trajectory import score_trajectory
from xsvggt_ros.model.checkpoint import load_network
from xsvggt_ros.model.config import BUNDLED
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings
from xsvggt_ros.synthetic.rooms import room_named
from xsvggt_ros.synthetic.scenes import SEEDS, SEPARATOR, SUITES, SceneSequence
from xsvggt_ros.synthetic.sequence import DEFAULT_ROOM, SUITE, SyntheticFrame, held_out
from xsvggt_ros.synthetic.sequence import Sequence as Stream

POLICY_ORDER = [
    DEFAULT_POLICY,
    *(each for each in POLICIES if each not in (DEFAULT_POLICY, FULL.policy, "lingbot")),
]
"""All but ``lingbot``, which counts frames instead of the tokens of a budget."""
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
    evaluator = SessionEvaluator(ScoringOptions(cloud_points=CLOUD_POINTS))
    seconds = []
    for frame in frames:
        result = engine.step(frame.color)
        evaluator.add(result, FrameTruth(frame.camera_to_world, frame.depth, frame.intrinsics))
        seconds.append(result.timings.network)
    scores = evaluator.scores()
    estimated, true = evaluator.matched()
    depth = scores.depth["median"]
    similar = scores.trajectory["sim3"]
    percent = 100 / similar.extent
    scaled = score_trajectory(Similarity(depth.alignment.scale).poses(estimated), true, "se3")
    assert evaluator.cloud is not None
    cloud = evaluator.cloud.points()
    ours = align(estimated[:, :3, 3], true[:, :3, 3], scale=True).points(cloud.estimated)
    return Cell(
        identity=identity,
        name=config.name,
        sequence=name,
        abs_rel_median=depth.errors.abs_rel,
        delta_1_median=depth.errors.delta_1,
        ate_sim3=percent * similar.ate.rmse,
        ate_se3_depth_scale=percent * scaled.ate.rmse,
        rpe_rotation_mean=similar.rpe_rotation.mean,
        rpe_translation_sim3=percent * similar.rpe_translation.rmse,
        rpe_translation_se3_depth_scale=percent * scaled.rpe_translation.rmse,
        accuracy_path_sim3=float(cKDTree(cloud.true).query(ours)[0].mean()),
        completeness_path_sim3=float(cKDTree(ours).query(cloud.true)[0].mean()),
        network_ms=1e3 * median(seconds[len(seconds) // 2 :]),
        kib=(result.cache.nbytes + result.cache.scratch_nbytes) / 1024,
    )


def engine_for(network: StreamVggt, config: Config, height: int, width: int) -> Reconstructor:
    """Return an engine with a cache; raise ConfigurationError where these cannot go together."""
    patch = network.config.patch_size
    if height % patch or width % patch:
        raise ConfigurationError(
            f"images of {width}x{height} pixels do not divide into the network's patches; "
            f"--width and --height must be multiples of {patch}"
        )
    tokens = network.config.tokens_per_frame(height, width)
    return Reconstructor(network, ReconstructorSettings(width, config.settings(tokens)))


def configurations(
    policies: Sequence[str],
    budgets: Sequence[int],
    *,
    full: bool = True,
    changes: Sequence[str] = (),
) -> list[Config]:
    """Return the caches to compare, each once, the full one first where it is wanted."""
    changed = [changes_of(text) for text in changes]

    def every() -> Iterator[Config]:
        if full:
            yield FULL
        yield NO_HISTORY
        bounded = [policy for policy in policies if policy != FULL.policy]
        for budget in budgets:
            yield published(budget)
            for policy in bounded:
                yield Config(policy, budget, BITS)
            for width in OTHER_WIDTHS if bounded else ():
                yield Config(bounded[0], budget, width)
            for each in changed if bounded else ():
                yield Config(bounded[0], budget, BITS, changes=each)

    return list(dict.fromkeys(every()))


def chosen_sequences(asked: Sequence[str], streams: int = 16) -> list[str]:
    """Return the names of the sequences that are asked for by name or by length.

    Raises:
        ConfigurationError: names that are neither.

    """
    if asked and all(each in SUITES for each in asked):
        if not 1 <= streams <= SEEDS:
            raise ConfigurationError(f"--streams {streams}: a suite has 1 to {SEEDS}")
        return [f"{suite}{SEPARATOR}{number}" for suite in asked for number in range(streams)]
    names = [each.name for each in SUITE]
    lengths = list(dict.fromkeys(name.rpartition("_")[0] for name in names))
    unknown = [each for each in asked if each not in (*names, *lengths)]
    if unknown:
        raise ConfigurationError(
            f"--sequences {', '.join(unknown)}: unknown; choose lengths ({', '.join(lengths)}) or "
            f"names ({', '.join(names)}), or suites alone ({', '.join(SUITES)})"
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


def digest(stream: Stream | SceneSequence) -> str:
    """Return a hash of a sequence: of its true poses, and of its first image and depth."""
    first = next(iter(stream))
    found = hashlib.sha256(np.ascontiguousarray(stream.poses).data)
    found.update(np.ascontiguousarray(first.color).data)
    found.update(np.ascontiguousarray(first.depth).data)
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


@dataclass(frozen=True)
class Task:
    """All caches on one sequence, for whoever measures it: this process or one of its own.

    Attributes:
        name: of the sequence, or suite and number.
        checkpoint: weights.
        room: of a sequence; a suite has worlds of its own.
        height: of an image, pixels.
        width: of an image, pixels.
        configs: the caches.
        known: identities of cells that are there already.
        threads: of PyTorch; 0 = as it is.

    """

    name: str
    checkpoint: str
    room: str
    height: int
    width: int
    configs: tuple[Config, ...]
    known: frozenset[str]
    threads: int = 0


@cache
def _network(checkpoint: str) -> StreamVggt:
    return load_network(checkpoint, device="cpu")


def measure_sequence(task: Task) -> list[tuple[Config, str, Cell | None]]:
    """Return each cache with the identity of its cell, and the cell where it was not there yet."""
    if task.threads:
        torch.set_num_threads(task.threads)
    network = _network(task.checkpoint)
    around = surroundings(network, task.checkpoint)
    tokens = network.config.tokens_per_frame(task.height, task.width)
    stream = open_stream(task.name, task.room, task.width, task.height)
    images = digest(stream)
    frames: list[SyntheticFrame] = []
    found: list[tuple[Config, str, Cell | None]] = []
    for config in task.configs:
        identity = fingerprint(
            {**around, "images": images, "cache": asdict(config.settings(tokens))}
        )
        cell = None
        if identity not in task.known:
            frames = frames or list(stream)
            cell = measure(network, frames, config, task.name, identity)
        found.append((config, identity, cell))
    return found


def open_stream(name: str, room: str, width: int, height: int) -> Stream | SceneSequence:
    """Return a held-out sequence, or a stream of a suite."""
    if SEPARATOR in name:
        return SceneSequence(name, width, height)
    return Stream(held_out(name, room, width, height))


def run(options: argparse.Namespace) -> None:
    """Measure what is missing, and write tables and figure."""
    check_caches(options.policies, options.budgets)
    names = chosen_sequences(options.sequences, options.streams)
    room_named(options.room)
    network = _network(options.checkpoint)
    size = (options.height, options.width)
    configs = configurations(
        options.policies,
        options.budgets,
        full=not options.without_full,
        changes=options.changes,
    )
    for config in configs:
        engine_for(network, config, *size)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "cells.csv"
    cells = read_cells(path)
    threads = max(1, torch.get_num_threads() // options.jobs) if options.jobs > 1 else 0
    tasks = [
        Task(name, options.checkpoint, options.room, *size, tuple(configs), frozenset(cells),
             threads)
        for name in names
    ]  # fmt: skip
    found: dict[Config, list[Cell]] = {config: [] for config in configs}
    for done in in_parallel(measure_sequence, tasks, options.jobs):
        for config, identity, cell in done:
            if cell is not None:
                cells[identity] = cell
                print(json.dumps(asdict(cell)), flush=True)
            found[config].append(cells[identity])
        write_cells(cells.values(), path)
    report(options, names, found, surroundings(network, options.checkpoint))


def report(
    options: argparse.Namespace,
    names: Sequence[str],
    found: dict[Config, list[Cell]],
    around: dict[str, Any],
) -> None:
    """Write tables and figure."""
    rows = means(found)
    suites = SEPARATOR in names[0]
    where = "" if suites else f", room {options.room}"
    what = f"{options.checkpoint}, {options.width}x{options.height}{where}"
    over = f"{', '.join(options.sequences)}, {len(names)} streams" if suites else ", ".join(names)
    head = (
        f"{around['processor']}, {around['threads']} threads, PyTorch {around['torch']}; {what}, "
        f"weights {around['weights'][:12]}: means over {over}"
    )
    page = f"{head}\n\n{table(rows)}\n\n{comparisons(rows)}\n"
    if len(names) > 1:
        page += f"\n{paired(found)}\n"
        draw_intervals(found, options.output / "intervals.png", f"{what}: means over {over}")
    (options.output / "table.md").write_text(page, encoding="utf-8")
    draw(rows, options.output / "figure.png", f"{what}: means over {over}")
    print(f"\n{page}")


def parser() -> argparse.ArgumentParser:
    """Return what reads the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default=BUNDLED)
    parser.add_argument("--sequences", nargs="+", help="names, lengths such as long, or suites",
                        default=["long"])  # fmt: skip
    parser.add_argument("--streams", type=int, default=16, help="of each suite, where one is named")
    parser.add_argument("--jobs", type=int, default=1, help="sequences that run side by side")
    parser.add_argument("--room", default=DEFAULT_ROOM)
    parser.add_argument("--width", type=int, default=112)
    parser.add_argument("--height", type=int, default=84)
    parser.add_argument("--budgets", nargs="+", type=int, default=[4, 8, 16], help="in frames")
    parser.add_argument("--policies", nargs="+", default=POLICY_ORDER,
                        help="the first one is measured at other widths too")  # fmt: skip
    parser.add_argument("--changes", nargs="+", default=[], metavar="NAME=VALUE[,...]",
                        help="other settings of the first policy, such as anchor_bits=8 "
                        "group_size=16 adaptive=both")  # fmt: skip
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
