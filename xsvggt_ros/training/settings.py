# SPDX-License-Identifier: Apache-2.0
"""How a network is trained, and for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.synthetic.sequence import LENGTHS
from xsvggt_ros.training.learning import LossWeights, cosine


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
        clip_frames: frames that are rendered in one room along one way.
        first_clips: clips that there are at the first step.
        steps_per_clip: steps after which there is one more.

    """

    stages: tuple[Stage, ...]
    width: int
    height: int
    clip_frames: int
    first_clips: int
    steps_per_clip: int


CURRICULA: dict[str, Curriculum] = {
    "demo": Curriculum(
        (
            Stage("short", 0.45, 8, 4),
            Stage("walks", 0.25, 16, 2),
            Stage("streams", 0.2, 32, 1, dense_every=3, gaps=0.5),
            Stage("tours", 0.1, 80, 1, dense_every=4, gaps=0.5),
        ),
        width=112,
        height=84,
        clip_frames=48,
        first_clips=60,
        steps_per_clip=4,
    ),
    "demo_long": Curriculum(
        (
            Stage("walks", 0.25, 16, 2, gaps=0.5),
            Stage("streams", 0.4, 40, 1, dense_every=3, gaps=0.5),
            Stage("tours", 0.35, 80, 1, dense_every=4, gaps=0.5),
        ),
        width=112,
        height=84,
        clip_frames=80,
        first_clips=60,
        steps_per_clip=4,
    ),
    "test": Curriculum(
        (Stage("pairs", 0.6, 2, 2, 1), Stage("short", 0.4, 3, 1, 2, gaps=0.5)),
        width=28,
        height=28,
        clip_frames=4,
        first_clips=2,
        steps_per_clip=2,
    ),
}
"""Recipes for rooms: ``demo`` for the network of that name, ``demo_long`` for one that has been
through it and is to see long streams, ``test`` for tests."""


def curriculum_named(name: str) -> Curriculum:
    """Return a curriculum; raise ConfigurationError where there is none of that name."""
    if name not in CURRICULA:
        raise ConfigurationError(
            f"recipe '{name}' is unknown; choose one of {', '.join(CURRICULA)}"
        )
    return CURRICULA[name]


def stage_at(stages: tuple[Stage, ...], step: int, steps: int) -> Stage:
    """Return what is learned at a step.

    Args:
        stages: in their order.
        step: from 0.
        steps: of the training.

    """
    whole = sum(stage.share for stage in stages)
    done = 0.0
    for stage in stages:
        done += stage.share / whole
        if step < round(done * steps):
            return stage
    return stages[-1]


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained; a resumed training must have equal ones, but for the last four.

    Whether images look as they did is compared as well: the contents of the curriculum, not only
    its name.

    Attributes:
        preset: sizes of the network.
        start: what it begins with, as :class:`~xsvggt_ros.training.state.StartSettings` takes it.
        recipe: what is learned when, one of CURRICULA.
        room: kind of room.
        steps: of the optimiser, in all.
        batch: factor on the streams per step of the recipe; 1 suits a CPU.
        seed: of weights and data.
        learning_rate: highest, after the warm-up.
        warmup: steps until then.
        weight_decay: of matrices.
        average: decay per step of the averaged weights, which are what is saved and scored.
        device: as PyTorch spells it, or ``auto``.
        bfloat16: whether the aggregator computes in it; heads stay in float32.
        compile: whether torch.compile is applied to the aggregator.
        workers: processes that render clips ahead on a CPU; 0 = none but this one.

    Raises:
        ConfigurationError: numbers that cannot work.

    """

    preset: str = "demo"
    start: str = ""
    recipe: str = "demo"
    room: str = "chart"
    steps: int = 7_000
    batch: int = 1
    seed: int = 0
    learning_rate: float = 8e-4
    warmup: int = 150
    weight_decay: float = 0.02
    average: float = 0.998
    weights: LossWeights = field(default_factory=LossWeights)
    device: str = "auto"
    bfloat16: bool = False
    compile: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        positive = {"steps": self.steps, "batch": self.batch, "learning_rate": self.learning_rate}
        for name, value in positive.items():
            if not (math.isfinite(value) and value > 0):
                raise ConfigurationError(f"training {name} is {value}; it must be positive")
        for name in ("seed", "warmup", "weight_decay", "workers"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigurationError(
                    f"training {name} is {getattr(self, name)}; it must not be negative"
                )
        if not 0 <= self.average < 1:
            raise ConfigurationError(
                f"training average is {self.average}; it must be at least 0 and below 1"
            )

    def rate_at(self, step: int) -> float:
        """Return the rate of a step: a linear rise, then half a cosine down to a hundredth."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        share = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.learning_rate * cosine(share, 0.01)

    def fixed(self) -> TrainingSettings:
        """Return what must not change when a training is continued; the rest has its defaults."""
        return replace(self, device="auto", bfloat16=False, compile=False, workers=0)


@dataclass(frozen=True)
class Schedule:
    """How long a call trains, and how often it does other things.

    Attributes:
        minutes: after which it stops, to be continued another time; None = to the last step.
            One step is taken at least.
        checkpoint_seconds: between two checkpoints.
        evaluation_seconds: between two evaluations on short held-out sequences.
        score: up to which length held-out sequences are scored at the end: one of LENGTHS.

    Raises:
        ConfigurationError: an unknown length, or times that are negative or no numbers.

    """

    minutes: float | None = None
    checkpoint_seconds: float = 60.0
    evaluation_seconds: float = 900.0
    score: str = "medium"

    def __post_init__(self) -> None:
        for name in ("minutes", "checkpoint_seconds", "evaluation_seconds"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ConfigurationError(
                    f"training {name} is {value}; it must be a number from 0 on"
                )
        if self.score not in LENGTHS:
            raise ConfigurationError(
                f"score '{self.score}' is unknown; choose one of {', '.join(LENGTHS)}"
            )
