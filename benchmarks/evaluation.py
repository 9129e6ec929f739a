# SPDX-License-Identifier: Apache-2.0
"""What an evaluation costs beside the reconstruction that it scores.

    python benchmarks/evaluation.py                       # 300 frames, the bundled model
    python benchmarks/evaluation.py --checkpoint FILE --frames 100

Renders a made-up sequence to disk (TUM RGB-D), evaluates it and writes the report. What `xsvggt
reconstruct` would do as well (read, decode, run the engine, collect cloud and path, write and draw
them) is timed within the very same run, so that whatever else the machine does meets both alike.
Seconds are of the processor; the wall's stand beside them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.evaluation import evaluator, runner
from xsvggt_ros.evaluation.request import EvaluationRequest, NetworkOptions
from xsvggt_ros.evaluation.results import write_evaluation
from xsvggt_ros.stream.frame import Frame, FrameUpdate
from xsvggt_ros.stream.pipeline import FramePipeline
from xsvggt_ros.stream.recording import Recording
from xsvggt_ros.stream.results import write_results
from xsvggt_ros.synthetic.export import write_sequence
from xsvggt_ros.synthetic.motion import MotionSettings
from xsvggt_ros.synthetic.renderer import Quality
from xsvggt_ros.synthetic.rooms import room_named
from xsvggt_ros.synthetic.sequence import Sequence, SequenceSettings

ENGINE, RECORDING, DRAWING = "engine", "recording", "drawing"
RECONSTRUCTION = (ENGINE, RECORDING, DRAWING)


class Clock:
    """Seconds of the processor and of the wall, by name."""

    def __init__(self) -> None:
        self.busy: dict[str, float] = {}
        self.wall: dict[str, float] = {}

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Add the time of a block to ``name``."""
        busy, wall = process_time(), perf_counter()
        yield
        self.busy[name] = self.busy.get(name, 0.0) + process_time() - busy
        self.wall[name] = self.wall.get(name, 0.0) + perf_counter() - wall


def time_parts(clock: Clock) -> None:
    """Let the parts of a run that a reconstruction has, too, be timed wherever they are made."""
    process = FramePipeline.process

    def timed(pipeline: FramePipeline, frame: Frame) -> FrameUpdate | None:
        with clock.timing(ENGINE):
            return process(pipeline, frame)

    class TimedRecording(Recording):
        def add(self, frame: Any) -> None:
            with clock.timing(RECORDING):
                super().add(frame)

    FramePipeline.process = timed  # type: ignore[assignment,method-assign]
    evaluator.Recording = TimedRecording  # type: ignore[attr-defined]


def render(directory: Path, frames: int, width: int, height: int) -> None:
    """Write a sequence of a room that the bundled model knows."""
    settings = SequenceSettings(
        seed=1,
        frames=frames,
        width=width,
        height=height,
        room=room_named("chart"),
        motion=MotionSettings("loop"),
        quality=Quality(samples=1, shadows=False),
    )
    write_sequence(Sequence(settings), directory, "tum")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--width", type=int, default=320, help="of the images")
    parser.add_argument("--height", type=int, default=240, help="of the images")
    parser.add_argument("--checkpoint", default="", help="default: the bundled model")
    parser.add_argument("--budget", type=int, default=8192)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="keeps the report there")
    arguments = parser.parse_args()
    clock = Clock()
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "sequence"
        render(directory, arguments.frames, arguments.width, arguments.height)
        request = EvaluationRequest(
            str(directory),
            network=NetworkOptions(arguments.checkpoint, device=arguments.device),
            cache=CacheSettings(budget_tokens=arguments.budget),
        )
        time_parts(clock)
        with clock.timing("evaluation"):
            evaluation = runner.evaluate(request)
        with clock.timing("report"):
            write_evaluation(evaluation, arguments.output or Path(scratch) / "results")
        with clock.timing(DRAWING):
            write_results(evaluation.session.recording, Path(scratch) / "drawn", "")
    for name, busy in clock.busy.items():
        print(f"{name:12s} {busy:7.1f} s of processor {clock.wall[name]:7.1f} s of wall")
    whole = clock.busy["evaluation"] + clock.busy["report"]
    engine = clock.busy[ENGINE]
    reconstruction = sum(clock.busy[name] for name in RECONSTRUCTION)
    print(f"over what xsvggt reconstruct does: {100 * (whole / reconstruction - 1):.1f} %")
    print(f"over the engine alone:             {100 * (whole / engine - 1):.1f} %")


if __name__ == "__main__":
    main()
