# SPDX-License-Identifier: Apache-2.0
"""``python -m xsvggt_ros.synthetic``: the training where only torch, numpy and safetensors are."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from xsvggt_ros.errors import XsvggtError
from xsvggt_ros.synthetic.training import Progress, Schedule, Trainer, TrainingSettings


def say(line: str) -> None:
    """Write a line at once, for whoever follows a log."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options; their defaults are those of the settings."""
    base = TrainingSettings()
    parser = argparse.ArgumentParser(prog="python -m xsvggt_ros.synthetic", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("training"))
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--score", default=Schedule.score)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    for name in ("preset", "start", "curriculum", "room", "steps", "batch", "seed", "learning_rate",
                 "device", "workers"):  # fmt: skip
        value = getattr(base, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser.parse_args(arguments)


def _stop_request() -> Callable[[], bool]:
    """Take SIGINT and SIGTERM as a wish to stop after the step; a second one stops at once."""
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    return lambda: asked


def main(arguments: list[str] | None = None) -> int:
    """Train as the options say; return 0, 1 after an error, or 130 after a signal.

    A signal ends it after the step, and the same command goes on.
    """
    options = vars(parsed(arguments))
    folder, threads = options.pop("output"), options.pop("threads")
    minutes, score = options.pop("minutes"), options.pop("score")
    if threads:
        import torch

        torch.set_num_threads(threads)

    stop = _stop_request()

    def listen(progress: Progress) -> None:
        say(progress.line())

    try:
        schedule = Schedule(minutes=minutes, score=score)
        outcome = Trainer(TrainingSettings(**options), folder).train(schedule, listen, stop)
    except XsvggtError as error:
        sys.stderr.write(f"xsvggt_ros.synthetic: {error}\n")
        return 1
    say(f"weights: {outcome.weights}")
    say(outcome.line())
    return 130 if outcome.scores is None else 0


if __name__ == "__main__":
    sys.exit(main())
