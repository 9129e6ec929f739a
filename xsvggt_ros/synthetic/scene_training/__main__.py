# SPDX-License-Identifier: Apache-2.0
"""``python -m xsvggt_ros.synthetic.scene_training``: train for some minutes, go on another time.

Needs torch, numpy and safetensors. Reads the state of an earlier piece from --state (by default
from --output), writes the state, `weights.safetensors` and what memory is worth to --output.
``torchrun --nproc-per-node 4 -m xsvggt_ros.synthetic.scene_training`` learns on four GPUs: each
draws streams of its own, and gradients are averaged.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from xsvggt_ros.errors import XsvggtError
from xsvggt_ros.interruption import INTERRUPTED, stop_request
from xsvggt_ros.synthetic.scene_training import BEGAN
from xsvggt_ros.synthetic.scene_training.piece import Piece, PieceSettings
from xsvggt_ros.synthetic.scene_training.recipes import RECIPES


def say(line: str) -> None:
    """Write a line at once, for whoever follows a log."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def parsed(arguments: list[str] | None = None) -> PieceSettings:
    """Return the options."""
    base = PieceSettings()
    parser = argparse.ArgumentParser(
        prog="python -m xsvggt_ros.synthetic.scene_training", description=__doc__
    )
    parser.add_argument("--recipe", choices=list(RECIPES), default=base.recipe)
    parser.add_argument("--output", type=Path, default=base.output)
    parser.add_argument("--state", type=Path, default=None)
    parser.add_argument("--minutes", type=float, default=base.minutes,
                        help="of this piece, all that it does included")  # fmt: skip
    parser.add_argument("--total-minutes", type=float, default=None,
                        help="of learning in all pieces, by which rate and stages go; default: "
                        "they end with this piece")  # fmt: skip
    parser.add_argument("--seed", type=int, default=base.seed)
    parser.add_argument("--device", default=base.device)
    parser.add_argument("--no-graph", dest="graph", action="store_false",
                        help="launch each operation of a step by itself on a GPU")  # fmt: skip
    parser.add_argument("--streams", type=int, default=base.streams,
                        help="held-out streams that memory is measured on")  # fmt: skip
    parser.add_argument("--validate-seconds", type=float, default=base.validate_seconds)
    return PieceSettings(**vars(parser.parse_args(arguments)))


def main(arguments: list[str] | None = None) -> int:
    """Train as the options say; return 0, 1 after an error, or 130 after a signal."""
    try:
        with stop_request() as stop:
            piece = Piece(parsed(arguments), say, BEGAN)
            try:
                piece.run(stop.is_set)
            finally:
                piece.ranks.end()
            return INTERRUPTED if stop.is_set() else 0
    except XsvggtError as error:
        sys.stderr.write(f"scene_training: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
