# SPDX-License-Identifier: Apache-2.0
"""What is learned when: pairs of small pictures first, long streams of full ones last."""

from __future__ import annotations

from dataclasses import dataclass, field

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.model.network import ALL_HEADS, Head


@dataclass(frozen=True)
class Stage:
    """A part of the training.

    Attributes:
        name: for the log.
        share: of all steps, relative to the other stages.
        frames: per stream.
        streams: per step and unit of batch.
        stride: fewest and most tenths of a second between two frames.
        width: of a picture, pixels.
        height: of a picture, pixels.
        motions: kinds that are drawn from.
        heads: which parts of the network are trained.

    """

    name: str
    share: float
    frames: int
    streams: int
    stride: tuple[int, int]
    width: int
    height: int
    motions: tuple[str, ...] = ("drift",)
    heads: tuple[Head, ...] = field(default=ALL_HEADS)


CURRICULA: dict[str, tuple[Stage, ...]] = {
    "demo": (
        # Points in the first camera's frame need depth and motion both, and the one head that says
        # them costs half of two.
        Stage("pairs", 0.45, 2, 12, (2, 10), 56, 42, heads=("camera", "points")),
        Stage("quads", 0.25, 4, 4, (2, 6), 84, 63, ("drift", "drift", "pan")),
        Stage("clips", 0.2, 8, 2, (1, 5), 112, 84, ("drift", "walk", "pan", "loop")),
        Stage("streams", 0.1, 20, 1, (1, 3), 112, 84, ("walk", "drive", "pan", "loop", "handheld")),
    ),
    "test": (
        Stage("pairs", 0.6, 2, 2, (1, 3), 28, 28),
        Stage("clips", 0.4, 3, 1, (1, 2), 28, 28, ("drift",), ("camera", "depth")),
    ),
}
"""Named curricula: ``demo`` for the network of that name, ``test`` for tests."""


def curriculum_named(name: str) -> tuple[Stage, ...]:
    """Return a curriculum; raise ConfigurationError where there is none of that name."""
    if name not in CURRICULA:
        raise ConfigurationError(
            f"curriculum '{name}' is unknown; choose one of {', '.join(CURRICULA)}"
        )
    return CURRICULA[name]


def stage_at(stages: tuple[Stage, ...], step: int, steps: int) -> Stage:
    """Return what is learned at ``step`` of ``steps``, from 0."""
    whole = sum(stage.share for stage in stages)
    done = 0.0
    for stage in stages:
        done += stage.share / whole
        if step < round(done * steps):
            return stage
    return stages[-1]
