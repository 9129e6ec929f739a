# SPDX-License-Identifier: Apache-2.0
"""``python -m xsvggt_ros.training``: what `xsvggt train` does, where only torch is installed.

Needs torch, numpy and safetensors. Options that are not given have the defaults of the recipe's
settings. ``torchrun --nproc-per-node 4 -m xsvggt_ros.training --recipe demo12`` learns on four
GPUs: each draws streams of its own, and gradients are averaged.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from xsvggt_ros.errors import XsvggtError
from xsvggt_ros.process import INTERRUPTED, ask_for_threads, stop_request
from xsvggt_ros.training import BEGAN
from xsvggt_ros.training.log import Progress
from xsvggt_ros.training.recipes import RECIPES, RoomTraining, training_named
from xsvggt_ros.training.scene_run import SceneRun
from xsvggt_ros.training.settings import CURRICULA
from xsvggt_ros.training.trainer import Trainer


def say(line: str) -> None:
    """Write a line at once, for whoever follows a log."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def parsed(arguments: list[str] | None = None) -> dict[str, Any]:
    """Return the options that were given, and recipe and output."""
    parser = argparse.ArgumentParser(
        prog="python -m xsvggt_ros.training",
        description=__doc__,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--recipe", choices=[*CURRICULA, *RECIPES], default="demo")
    parser.add_argument("--output", type=Path, default=Path("training"))
    parser.add_argument("--threads", type=_at_least_one, default=0)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--device")
    parser.add_argument("--start", help="weights to begin with")
    rooms = parser.add_argument_group(f"recipes for rooms ({', '.join(CURRICULA)})")
    for name, kind in (("preset", str), ("room", str), ("steps", int),
                       ("batch", int), ("learning-rate", float), ("score", str),
                       ("workers", int)):  # fmt: skip
        rooms.add_argument(f"--{name}", type=kind)
    rooms.add_argument("--bfloat16", action="store_true")
    rooms.add_argument("--compile", action="store_true")
    scenes = parser.add_argument_group(f"recipes for scenes ({', '.join(RECIPES)})")
    scenes.add_argument("--state", type=Path, help="where the earlier state is; default: --output")
    scenes.add_argument("--total-minutes", type=float,
                        help="minutes of training in all calls, over which learning rate and "
                        "stages are scheduled; default: it ends with this call")  # fmt: skip
    scenes.add_argument("--no-graph", dest="graph", action="store_false",
                        help="launch each operation of a step by itself on a GPU")  # fmt: skip
    scenes.add_argument("--streams", type=int, help="held-out streams that memory is measured on")
    scenes.add_argument("--validate-seconds", type=float)
    return vars(parser.parse_args(arguments))


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is too few; give at least 1")
    return number


def main(arguments: list[str] | None = None) -> int:
    """Train as the options say; return 0, 1 after an error, or 130 after a signal.

    A signal ends it after the step or the clip in hand, a second one at once; the same command goes
    on.
    """
    options = parsed(arguments)
    recipe, output, threads = (options.pop(name) for name in ("recipe", "output", "threads"))
    ask_for_threads(threads)
    try:
        with stop_request() as stop:
            asked = training_named(recipe, output, options)
            if isinstance(asked, RoomTraining):
                trainer = Trainer(asked.settings, output)
                outcome = trainer.train(asked.schedule, _say_progress, stop.is_set)
                say(f"weights: {outcome.weights}")
                say(outcome.line())
                return INTERRUPTED if outcome.scores is None else 0
            SceneRun(asked, say, BEGAN).run(stop.is_set)
            return INTERRUPTED if stop.is_set() else 0
    except XsvggtError as error:
        sys.stderr.write(f"xsvggt_ros.training: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("xsvggt_ros.training: interrupted\n")
        return INTERRUPTED


def _say_progress(progress: Progress) -> None:
    say(progress.line())


if __name__ == "__main__":
    sys.exit(main())
