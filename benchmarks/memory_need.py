# SPDX-License-Identifier: Apache-2.0
"""Whether a network needs its memory on a suite: without that, no cache can be judged there.

    python benchmarks/memory_need.py --checkpoint FILE                     # landmarks, 16 streams
    python benchmarks/memory_need.py --checkpoint FILE --suites house_100_lap100 --device cuda
    python benchmarks/memory_need.py --checkpoint FILE --suites landmarks_300_lap200 --streams 32

`chart_100` and `chart_300` are the world of the first bundled model: walk, drive, pan and handheld
in turn, each through a room of its own.

Every stream of a suite runs frame by frame with a memory of 2 frames (the anchor and the one
before: no history), with windows of 4, 8 and 16, and with everything, unrounded. Printed are means
with 95 % intervals from resampled streams, the errors in the quarter of a lap before and after the
first place comes back, and the need: errors without history as a multiple of those with everything,
where both are taken from the same streams. **A suite is a yardstick for a network only where the
path without history is at least 1.5 times as bad, and the whole interval lies above 1.**

Columns: ATE after Sim(3) in percent of the path's extent; rotation against the first frame and from
frame to frame, degrees; AbsRel of depth after one median scale per stream. Writes `need.md` and
`need.json` to --output.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from intervals import Array, Estimate, mean_of, ratio_of
from torch import Tensor
from torch.nn import functional

from xsvggt_ros.errors import ConfigurationError, XsvggtError
from xsvggt_ros.evaluation.provenance import machine, weights
from xsvggt_ros.model.checkpoint import load_network
from xsvggt_ros.model.config import BUNDLED
from xsvggt_ros.model.device import device_named
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.synthetic.cameras import truth_of
from xsvggt_ros.synthetic.motion import MotionSettings
from xsvggt_ros.synthetic.rooms import room_named
from xsvggt_ros.synthetic.scenes import (
    SEEDS,
    Streams,
    Suite,
    suite_named,
    suite_settings,
    suite_streams,
)
from xsvggt_ros.synthetic.sequence import (
    FIRST_HELD_OUT_SEED,
    Sequence,
    SequenceSettings,
    quality_for,
)
from xsvggt_ros.training.scores import (
    BUDGETS,
    EVERYTHING,
    StreamErrors,
    stream_errors,
)

NO_HISTORY = 2
NEEDED = 1.5
"""How much worse no history must be where a suite is to be a yardstick."""
COLUMNS = (("ate_sim3_percent", "ATE, Sim(3) %"), ("rotations_deg", "rotation °"),
           ("rpe_rotation_mean_deg", "rotation, frame to frame °"),
           ("abs_rel_median", "AbsRel, median scale"), ("before", "° before the place comes back"),
           ("after", "° after"))  # fmt: skip


CHART = "chart"
CHARTS = {
    f"{CHART}_{frames}": Suite(
        f"{CHART}_{frames}", FIRST_HELD_OUT_SEED + 50_000, CHART, frames, frames
    )
    for frames in (100, 300)
}
CHART_MOTIONS = ("walk", "drive", "pan", "handheld")


def chart_streams(
    suite: Suite, chosen: slice, size: tuple[int, int], device: torch.device
) -> Streams:
    """Return streams through rooms in which a colour tells a place."""
    images, depth, poses = [], [], []
    for index in range(chosen.start, chosen.stop):
        motion = MotionSettings(CHART_MOTIONS[index % len(CHART_MOTIONS)])
        sequence = Sequence(
            SequenceSettings(suite.first_seed + index, suite.frames, *size, room=room_named(CHART),
                             motion=motion, quality=quality_for(CHART))
        )  # fmt: skip
        frames = list(sequence)
        images.append(torch.from_numpy(np.stack([frame.color for frame in frames])))
        depth.append(torch.from_numpy(np.stack([frame.depth for frame in frames])))
        poses.append(sequence.poses)
        intrinsics = sequence.intrinsics
    truth = truth_of(torch.stack(depth).to(device), np.stack(poses), intrinsics).normalized()
    return Streams(
        torch.stack(images).to(device).movedim(-1, 2).float() / 255,
        truth,
        torch.ones_like(truth.depth, dtype=torch.bool),
        torch.from_numpy(np.stack(poses)).float().to(device),
        torch.ones(len(poses), device=device),
    )


class WindowStream:
    """Remembers the first frame and the newest ones, unrounded, of each stream of a batch.

    What the engine's cache does with policy ``sliding_window`` at 16 bits, for many streams at
    once; the camera head remembers as many frames.
    """

    def __init__(self, budget: int) -> None:
        """Begin streams; ``budget`` are the frames that are held after a step, 0 = all."""
        self._budget = budget
        self._held: dict[tuple[str, int, int], list[tuple[Tensor, Tensor]]] = {}
        self._frames = 0

    def begin_pass(self, frames: int) -> int:
        """Return 1 for the first frame, 0 for every other one."""
        return int(self._frames == 0)

    def times(self, frames: int, device: torch.device) -> Tensor:
        """Return the number of the present frame, float32 [1]."""
        return torch.full((frames,), float(self._frames), device=device)

    def end_frame(self) -> None:
        """Say that a frame is complete."""
        self._frames += 1

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend over what is held and the present frame, which is held from now on."""
        return self._attend(("global", layer, 0), query, key, value)

    def absorb(self, layer: int, update: Tensor) -> None:
        """Forget an update [batch, tokens, dim]: a window asks nobody what is worth keeping."""

    def attend_camera(
        self, iteration: int, block: int, query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """Attend over the camera tokens of the same frames."""
        return self._attend(("camera", iteration, block), query, key, value)

    def _attend(
        self, where: tuple[str, int, int], query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        held = self._held.setdefault(where, [])
        held.append((key, value))
        keys = torch.cat([pair[0] for pair in held], dim=2)
        values = torch.cat([pair[1] for pair in held], dim=2)
        if self._budget and len(held) > self._budget:
            # The first one is the anchor.
            del held[1 if self._budget > 1 else 0]
        elif not self._budget:
            held[:] = [(keys, values)]
        return functional.scaled_dot_product_attention(query, keys, values)


def streamed(network: StreamVggt, images: Tensor, budget: int) -> tuple[Tensor, Tensor]:
    """Return cameras [worlds, frames, 9] and depth [worlds, frames, H, W] of streams.

    Args:
        network: on the images' device.
        images: [worlds, frames, 3, H, W].
        budget: frames that are held after each step, 0 = all.

    """
    memory = WindowStream(budget)
    cameras, depths = [], []
    with torch.inference_mode():
        for frame in images.split(1, dim=1):
            found = network(frame, memory, ("camera", "depth"))
            memory.end_frame()
            assert found.pose_encodings is not None
            assert found.depth is not None
            cameras.append(found.pose_encodings[:, :, -1])
            depths.append(found.depth)
    return torch.cat(cameras, dim=1), torch.cat(depths, dim=1)


def measured(
    network: StreamVggt, suite: Suite, streams: int, batch: int, size: tuple[int, int]
) -> dict[int, dict[str, Array]]:
    """Return the errors of each stream for each budget, [streams] under the names of COLUMNS."""
    settings = suite_settings(suite, *size)
    parts: dict[int, list[dict[str, Array]]] = {budget: [] for budget in BUDGETS}
    for start in range(0, streams, batch):
        chosen = slice(start, min(start + batch, streams))
        if suite.world == CHART:
            seen = chart_streams(suite, chosen, size, network.device)
        else:
            seen = suite_streams(suite, settings, chosen, network.device)
        for budget in BUDGETS:
            cameras, depth = streamed(network, seen.images, budget)
            errors = stream_errors(cameras, depth, seen, network.config.pose_convention)
            parts[budget].append(_columns(errors, suite))
    return {
        budget: {name: np.concatenate([each[name] for each in found]) for name, _ in COLUMNS}
        for budget, found in parts.items()
    }


def _columns(errors: StreamErrors, suite: Suite) -> dict[str, Array]:
    quarter = max(suite.lap // 4, 1)
    # A path of exactly one lap never sees its first place again: its end is all there is.
    back = min(suite.lap, suite.frames - quarter)
    found = {each.name: getattr(errors, each.name) for each in fields(errors)}
    turns = errors.rotations_deg
    found["before"] = turns[:, back - quarter : back].mean(axis=1)
    found["after"] = turns[:, back : back + quarter].mean(axis=1)
    found["rotations_deg"] = turns.mean(axis=1)
    return {name: found[name] for name, _ in COLUMNS}


def verdict(need: Estimate) -> str:
    """Return what the need of memory on the path says about a suite."""
    if need.value >= NEEDED and need.low > 1:
        return "a yardstick"
    return f"no yardstick: {NEEDED} is wanted, and an interval above 1"


def table(found: dict[int, dict[str, Array]], suite: Suite) -> str:
    """Return the errors of a suite and the need as Markdown."""
    count = len(found[EVERYTHING]["ate_sim3_percent"])
    needs = {
        name: ratio_of(found[NO_HISTORY][name], found[EVERYTHING][name]) for name, _ in COLUMNS
    }
    lines = [
        f"### {suite.name}, {count} streams: {verdict(needs['ate_sim3_percent'])}",
        "",
        "| memory | " + " | ".join(title for _, title in COLUMNS) + " |",
        "|---|" + "---|" * len(COLUMNS),
    ]
    for budget, errors in found.items():
        name = {NO_HISTORY: "2 frames: no history", EVERYTHING: "everything"}.get(
            budget, f"{budget} frames"
        )
        cells = [mean_of(errors[column]).show() for column, _ in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("| **need** | " + " | ".join(needs[name].show() for name, _ in COLUMNS) + " |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """Return what reads the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", default=BUNDLED)
    parser.add_argument("--suites", nargs="+", default=["landmarks_100_lap50"])
    parser.add_argument("--streams", type=int, default=16, help=f"of each suite, up to {SEEDS}")
    parser.add_argument("--batch", type=int, default=16, help="streams that run side by side")
    parser.add_argument("--width", type=int, default=112)
    parser.add_argument("--height", type=int, default=84)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=Path("results/memory_need"))
    return parser


def run(options: argparse.Namespace) -> None:
    """Measure as the options say."""
    if not (1 <= options.streams <= SEEDS and options.batch >= 1):
        raise ConfigurationError(
            f"--streams {options.streams} and --batch {options.batch}: a suite has 1 to {SEEDS} "
            "streams, of which at least one runs at a time"
        )
    suites = [CHARTS.get(name) or suite_named(name) for name in options.suites]
    device = device_named(options.device)
    network = load_network(options.checkpoint, device=str(device)).eval()
    options.output.mkdir(parents=True, exist_ok=True)
    about = weights(network, options.checkpoint)
    head = (
        f"{options.checkpoint}, weights {about['sha256'][:12]}, {about['dtype']}, "
        f"{options.width}x{options.height}, {machine(device)['processor']}, {device.type}"
    )
    page, numbers = [head], {}
    for suite in suites:
        found = measured(
            network, suite, options.streams, options.batch, (options.width, options.height)
        )
        page.append(table(found, suite))
        print(page[-1], flush=True)
        numbers[suite.name] = {
            str(budget): {name: values.tolist() for name, values in errors.items()}
            for budget, errors in found.items()
        }
    (options.output / "need.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")
    (options.output / "need.json").write_text(json.dumps(numbers), encoding="utf-8")


def main() -> None:
    """Measure as the options say."""
    torch.set_grad_enabled(False)
    try:
        run(parser().parse_args())
    except XsvggtError as error:
        raise SystemExit(f"memory_need.py: {error}") from error


if __name__ == "__main__":
    main()
