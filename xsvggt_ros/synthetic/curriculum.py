# SPDX-License-Identifier: Apache-2.0
"""What is learned when: many short streams first, few long ones last."""

from __future__ import annotations

from dataclasses import dataclass

from xsvggt_ros.errors import ConfigurationError


@dataclass(frozen=True)
class Stage:
    """A part of the training.

    Attributes:
        name: for the log.
        share: of all steps, relative to the other stages.
        frames: per stream.
        streams: per step and unit of batch.
        dense_every: steps from one to the next in which the dense heads learn too, on one stream.
        gaps: share of the steps in which the memory has gaps, as a pruned cache's.

    """

    name: str
    share: float
    frames: int
    streams: int
    dense_every: int = 2
    gaps: float = 0.0


@dataclass(frozen=True)
class Curriculum:
    """Stages one after the other, and the images that they are taught with.

    Attributes:
        width: of an image, pixels.
        height: of an image, pixels.
        roll: frames that are shot in one room along one way.
        first_rolls: rolls that there are at the first step.
        steps_per_roll: steps after which there is one more.

    """

    stages: tuple[Stage, ...]
    width: int
    height: int
    roll: int
    first_rolls: int
    steps_per_roll: int


CURRICULA: dict[str, Curriculum] = {
    "demo": Curriculum(
        (
            Stage("clips", 0.45, 8, 4),
            Stage("walks", 0.25, 16, 2),
            Stage("streams", 0.2, 32, 1, dense_every=3, gaps=0.5),
            Stage("tours", 0.1, 80, 1, dense_every=4, gaps=0.5),
        ),
        width=112,
        height=84,
        roll=48,
        first_rolls=60,
        steps_per_roll=4,
    ),
    "demo_long": Curriculum(
        (
            Stage("walks", 0.25, 16, 2, gaps=0.5),
            Stage("streams", 0.4, 40, 1, dense_every=3, gaps=0.5),
            Stage("tours", 0.35, 80, 1, dense_every=4, gaps=0.5),
        ),
        width=112,
        height=84,
        roll=80,
        first_rolls=60,
        steps_per_roll=4,
    ),
    "test": Curriculum(
        (Stage("pairs", 0.6, 2, 2, 1), Stage("clips", 0.4, 3, 1, 2, gaps=0.5)),
        width=28,
        height=28,
        roll=4,
        first_rolls=2,
        steps_per_roll=2,
    ),
}
"""Named curricula: ``demo`` for the network of that name, ``demo_long`` for one that has been
through it and is to see long streams, ``test`` for tests."""


def curriculum_named(name: str) -> Curriculum:
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
