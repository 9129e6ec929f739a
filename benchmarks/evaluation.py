# SPDX-License-Identifier: Apache-2.0
"""What an evaluation costs beside the reconstruction that it judges.

    python benchmarks/evaluation.py                       # 300 frames, network preset demo
    python benchmarks/evaluation.py --checkpoint FILE --frames 100

Renders a made-up sequence to disk (TUM RGB-D), reconstructs its pictures with nothing else going
on, then evaluates it and writes the report. Seconds are of the processor, so that other work on the
machine matters little; wall time stands beside them. Overhead is what evaluation and report take
beyond the reconstruction, as a share of it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.evaluation.files import write_evaluation
from xsvggt_ros.evaluation.request import EvaluationRequest, NetworkOptions
from xsvggt_ros.evaluation.runner import evaluate
from xsvggt_ros.model.checkpoint import load_network
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings
from xsvggt_ros.stream.sources import open_source
from xsvggt_ros.stream.stepper import Stepper
from xsvggt_ros.synthetic.export import write_sequence
from xsvggt_ros.synthetic.motion import MotionSettings
from xsvggt_ros.synthetic.renderer import Quality
from xsvggt_ros.synthetic.rooms import room_named
from xsvggt_ros.synthetic.sequence import Sequence, SequenceSettings

WARM_UP = 5
"""Frames that are reconstructed before anything is timed."""


@dataclass
class Clock:
    """Seconds by name: of the processor, and of the wall."""

    busy: dict[str, float] = field(default_factory=dict)
    wall: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Add the time of a block to ``name``."""
        busy, wall = process_time(), perf_counter()
        yield
        self.busy[name] = self.busy.get(name, 0.0) + process_time() - busy
        self.wall[name] = self.wall.get(name, 0.0) + perf_counter() - wall


def render(folder: Path, frames: int, width: int, height: int) -> Path:
    """Write a sequence of a calm room."""
    settings = SequenceSettings(
        seed=1,
        frames=frames,
        width=width,
        height=height,
        room=room_named("calm"),
        motion=MotionSettings("loop"),
        quality=Quality(samples=1, shadows=False),
    )
    write_sequence(Sequence(settings), folder, "tum")
    return folder


def reconstruct(pictures: Path, request: EvaluationRequest) -> None:
    """Run the engine over pictures and keep nothing."""
    chosen = request.network
    network = load_network(
        chosen.checkpoint, preset=chosen.preset, device=chosen.device, dtype=chosen.dtype
    )
    width = chosen.width or network.config.image_size
    stepper = Stepper(Reconstructor(network, ReconstructorSettings(width, request.cache)))
    with open_source(pictures) as source:
        for frame in source:
            stepper.step(frame)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--width", type=int, default=320, help="of the pictures")
    parser.add_argument("--height", type=int, default=240, help="of the pictures")
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--preset", default=None, help="default: demo, or the checkpoint's own")
    parser.add_argument("--budget", type=int, default=8192)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="keeps the report there")
    arguments = parser.parse_args()
    preset = arguments.preset or (None if arguments.checkpoint else "demo")
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "sequence"
        with clock.timing("rendering"):
            render(folder, arguments.frames, arguments.width, arguments.height)
        request = EvaluationRequest(
            str(folder),
            network=NetworkOptions(arguments.checkpoint, preset, device=arguments.device),
            cache=CacheSettings(budget_tokens=arguments.budget),
        )
        warm = Path(scratch) / "warm"
        reconstruct(render(warm, WARM_UP, arguments.width, arguments.height) / "rgb", request)
        with clock.timing("reconstruction"):
            reconstruct(folder / "rgb", request)
        with clock.timing("evaluation"):
            evaluation = evaluate(request)
        with clock.timing("report"):
            write_evaluation(evaluation, arguments.output or Path(scratch) / "results")
    for name, busy in clock.busy.items():
        print(f"{name:15s} {busy:7.1f} s of processor {clock.wall[name]:7.1f} s of wall")
    bare = clock.busy["reconstruction"]
    whole = clock.busy["evaluation"] + clock.busy["report"]
    print(f"overhead        {100 * (whole - bare) / bare:7.1f} %")


if __name__ == "__main__":
    main()
