# SPDX-License-Identifier: Apache-2.0
"""``python -m xsvggt_ros.synthetic``: the training where only torch, numpy and safetensors are."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from xsvggt_ros.errors import XsvggtError
from xsvggt_ros.interruption import INTERRUPTED, stop_request
from xsvggt_ros.synthetic.training import Trainer
from xsvggt_ros.synthetic.training_progress import Progress
from xsvggt_ros.synthetic.training_settings import Schedule, TrainingSettings
from xsvggt_ros.threads import ask_for_threads


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
    parser.add_argument("--threads", type=_at_least_one, default=None)
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    for name in ("preset", "start", "curriculum", "room", "steps", "batch", "seed", "learning_rate",
                 "device", "workers"):  # fmt: skip
        value = getattr(base, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser.parse_args(arguments)


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is too few; give at least 1")
    return number


def main(arguments: list[str] | None = None) -> int:
    """Train as the options say; return 0, 1 after an error, or 130 after a signal.

    A signal ends it after the step or the roll of images in hand, a second one at once; the same
    command goes on.
    """
    options = vars(parsed(arguments))
    directory, threads = options.pop("output"), options.pop("threads")
    minutes, score = options.pop("minutes"), options.pop("score")
    ask_for_threads(threads or 0)

    def listen(progress: Progress) -> None:
        say(progress.line())

    try:
        with stop_request() as stop:
            schedule = Schedule(minutes=minutes, score=score)
            trainer = Trainer(TrainingSettings(**options), directory)
            outcome = trainer.train(schedule, listen, stop.is_set)
    except XsvggtError as error:
        sys.stderr.write(f"xsvggt_ros.synthetic: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("xsvggt_ros.synthetic: interrupted\n")
        return INTERRUPTED
    say(f"weights: {outcome.weights}")
    say(outcome.line())
    return INTERRUPTED if outcome.scores is None else 0


if __name__ == "__main__":
    sys.exit(main())
