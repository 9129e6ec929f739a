# SPDX-License-Identifier: Apache-2.0
"""How a network is trained, and for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.synthetic.held_out import LENGTHS
from xsvggt_ros.synthetic.losses import LossWeights


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained; a resumed training must have equal ones, but for the last four.

    Whether images look as they did is compared as well: the contents of the curriculum, not only
    its name.

    Attributes:
        preset: sizes of the network.
        start: what it begins with, as :class:`~xsvggt_ros.synthetic.beginning.Beginning` takes it.
        curriculum: what is learned when.
        room: kind of room.
        steps: of the optimiser, in all.
        batch: factor on the streams per step of the curriculum; 1 suits a CPU.
        seed: of weights and data.
        learning_rate: highest, after the warm-up.
        warmup: steps until then.
        weight_decay: of matrices.
        average: decay per step of the averaged weights, which are what is saved and scored.
        device: as PyTorch spells it, or ``auto``.
        bfloat16: whether the aggregator computes in it; heads stay in float32.
        compile: whether torch.compile is applied to the aggregator.
        workers: processes that shoot rolls of images ahead on a CPU; 0 = none but this one.

    Raises:
        ConfigurationError: numbers that cannot work.

    """

    preset: str = "demo"
    start: str = ""
    curriculum: str = "demo"
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

    def fixed(self) -> TrainingSettings:
        """Return what must not change when a training goes on; the rest is as by default."""
        return replace(self, device="auto", bfloat16=False, compile=False, workers=0)


@dataclass(frozen=True)
class Schedule:
    """How long a call trains, and how often it does other things.

    Attributes:
        minutes: after which it stops, to go on another time; None = to the last step.
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
