# SPDX-License-Identifier: Apache-2.0
"""What is learned when on scenes, and what training a recipe's name means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.synthetic.scenes import StreamSettings
from xsvggt_ros.synthetic.scenes.layouts import Pace
from xsvggt_ros.training.learning import LossWeights, cosine
from xsvggt_ros.training.settings import CURRICULA, Schedule, TrainingSettings

Mix = tuple[float, float, float, float]
"""How often each of WORLDS is."""


@dataclass(frozen=True)
class SceneStage:
    """A part of a training.

    Attributes:
        share: of the whole time, relative to the other stages.
        frames: of a stream.
        streams: per step.
        worlds: how often each of WORLDS is.
        gaps: share of the steps in which the memory forgets at random.
        pruned: share of the steps in which the memory prunes as policy ``xstreamvggt`` does.
        budgets: frames that such a memory holds, drawn for each step.
        dense: streams of a step that the dense heads learn from.
        dense_frames: frames of each of these.
        laps: fewest and most rounds that a camera goes in a stream.

    """

    share: float
    frames: int
    streams: int
    worlds: Mix
    gaps: float = 0.0
    pruned: float = 0.0
    budgets: tuple[int, ...] = (8,)
    dense: int = 8
    dense_frames: int = 8
    laps: tuple[float, float] = (0.3, 1.6)


_WEIGHTS = LossWeights(depth=0.5, points=0.5, camera=2.0, auxiliary=1.0)


@dataclass(frozen=True)
class Recipe:
    """A training.

    Attributes:
        preset: sizes of the network.
        width: of an image, pixels.
        height: of an image, pixels.
        stages: one after the other.
        samples: rays of a pixel.
        learning_rate: the highest.
        warmup: share of the whole time until then.
        weight_decay: of matrices.
        average: decay per step of the averaged weights.
        weights: of the parts of the loss.
        needs_start: whether it only goes on from weights that were trained before.

    """

    preset: str
    width: int
    height: int
    stages: tuple[SceneStage, ...]
    samples: int = 3
    learning_rate: float = 1e-3
    warmup: float = 0.02
    weight_decay: float = 0.02
    average: float = 0.999
    weights: LossWeights = _WEIGHTS
    needs_start: bool = False

    def stage_at(self, progress: float) -> SceneStage:
        """Return what is learned at a progress from 0 to 1."""
        whole = sum(stage.share for stage in self.stages)
        done = 0.0
        for stage in self.stages:
            done += stage.share / whole
            if progress < done:
                return stage
        return self.stages[-1]

    def rate_at(self, progress: float) -> float:
        """Return the learning rate: a linear rise, then half a cosine down to a fiftieth."""
        if progress < self.warmup:
            return self.learning_rate * max(progress / self.warmup, 0.02)
        return self.learning_rate * cosine((progress - self.warmup) / (1 - self.warmup), 0.02)

    def streams_of(self, stage: SceneStage) -> StreamSettings:
        """Return what the streams of a stage are made of."""
        return StreamSettings(
            worlds=stage.worlds,
            width=self.width,
            height=self.height,
            samples=self.samples,
            pace=Pace(stage.laps, least_period=20.0),
        )


_LANDMARKS: Mix = (1.0, 0.0, 0.0, 0.0)
_MIXED: Mix = (0.55, 0.1, 0.15, 0.2)

RECIPES: dict[str, Recipe] = {
    "demo12": Recipe(
        "demo12", 112, 84,
        (
            SceneStage(0.20, 8, 40, _LANDMARKS, dense=6, laps=(0.03, 0.35)),
            SceneStage(0.40, 16, 22, _LANDMARKS, dense=6, laps=(0.1, 0.9)),
            SceneStage(0.20, 24, 16, _LANDMARKS, gaps=0.4, dense=6, laps=(0.15, 1.3)),
            SceneStage(0.20, 48, 8, _LANDMARKS, gaps=0.5, dense=6, laps=(0.3, 1.6)),
        ),
        samples=1,
    ),
    "demo12_pruned": Recipe(
        "demo12", 112, 84,
        (
            SceneStage(
                1.0, 64, 3, _LANDMARKS, pruned=0.8, budgets=(5, 6, 8, 8, 8, 8, 10, 12), dense=1,
                laps=(0.4, 1.2),
            ),
        ),
        samples=1,
        learning_rate=7e-5,
        warmup=0.05,
        average=0.99,
        weights=replace(_WEIGHTS, auxiliary=0.0),
        needs_start=True,
    ),
    "demo12_long": Recipe(
        "demo12", 112, 84,
        (
            SceneStage(
                0.4, 48, 12, _LANDMARKS, gaps=0.4, pruned=0.3, budgets=(6, 8, 8, 12), dense=4,
                laps=(0.3, 1.6),
            ),
            SceneStage(
                0.6, 100, 6, _LANDMARKS, gaps=0.2, pruned=0.7, budgets=(6, 8, 8, 8, 10), dense=2,
                laps=(0.5, 2.0),
            ),
        ),
        samples=1,
        learning_rate=4e-4,
        warmup=0.05,
        weights=replace(_WEIGHTS, auxiliary=0.5),
        needs_start=True,
    ),
    "medium12": Recipe(
        "medium12", 168, 126,
        (
            SceneStage(0.25, 8, 48, _MIXED, dense=8),
            SceneStage(0.30, 16, 24, _MIXED, gaps=0.2, dense=4),
            SceneStage(0.25, 32, 12, _MIXED, gaps=0.4, dense=4),
            SceneStage(0.20, 64, 6, _MIXED, gaps=0.5, dense=4),
        ),
        learning_rate=5e-4,
    ),
    "thin8": Recipe(
        "thin8", 70, 42,
        (
            SceneStage(0.4, 8, 8, _LANDMARKS, dense=1, laps=(0.03, 0.3)),
            SceneStage(0.6, 16, 4, _LANDMARKS, gaps=0.3, dense=1, laps=(0.1, 0.9)),
        ),
        samples=1,
        learning_rate=1.5e-3,
    ),
    "test_scenes": Recipe(
        "tiny", 28, 28,
        (
            SceneStage(0.5, 2, 2, _MIXED, dense=1, dense_frames=2),
            SceneStage(
                0.5, 4, 2, _MIXED, gaps=0.5, pruned=0.4, budgets=(2, 3), dense=1, dense_frames=2
            ),
        ),
        samples=1,
    ),
}  # fmt: skip
"""Named trainings, called like the presets that they are for: ``thin8`` for a CPU,
``test_scenes`` for tests. ``demo12_pruned`` goes on from weights that know a whole memory, and
teaches them to live with what a cache keeps."""


def recipe_named(name: str) -> Recipe:
    """Return a recipe; raise ConfigurationError where there is none of that name."""
    if name not in RECIPES:
        raise ConfigurationError(f"recipe '{name}' is unknown; choose one of {', '.join(RECIPES)}")
    return RECIPES[name]


@dataclass(frozen=True)
class SceneRunSettings:
    """What one call does.

    Attributes:
        recipe: what is learned when.
        output: where the state goes.
        state: where the state of the piece before lies; None = in ``output``.
        start: weights that a training begins with: the directory of another one, a file, one on the
            Hugging Face hub as ``owner/name:file``, or bundled ones by name; empty = random ones.
        minutes: of the call, which takes one step at least.
        total_minutes: of learning, over all calls; None = it ends with this one.
        seed: of a training that begins.
        device: as PyTorch spells it, or ``auto``.
        graph: whether a step is captured as a CUDA graph; means nothing without a GPU.
        streams: held-out streams that memory is measured on.
        validate_seconds: from one validation to the next.

    Raises:
        ConfigurationError: numbers that cannot work.

    """

    recipe: str = "demo12"
    output: Path = Path("training_state")
    state: Path | None = None
    start: str = ""
    minutes: float = 7.0
    total_minutes: float | None = None
    seed: int = 0
    device: str = "auto"
    graph: bool = True
    streams: int = 16
    validate_seconds: float = 90.0

    def __post_init__(self) -> None:
        for name in ("minutes", "total_minutes", "streams", "validate_seconds"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigurationError(
                    f"training {name} is {getattr(self, name)}; it must be positive"
                )
        if self.seed < 0:
            raise ConfigurationError(f"training seed is {self.seed}; it must not be negative")


ROOM_OPTIONS = frozenset(
    {each.name for each in fields(TrainingSettings)} - {"recipe", "weights"} | {"minutes", "score"}
)
"""What recipes for rooms take: those that `xsvggt train` renders clips of rooms for."""

SCENE_OPTIONS = frozenset({each.name for each in fields(SceneRunSettings)} - {"recipe", "output"})
"""What recipes for scenes take: those whose worlds are rendered for every step."""


@dataclass(frozen=True)
class RoomTraining:
    """A training on clips of rooms."""

    settings: TrainingSettings
    schedule: Schedule


def training_named(
    recipe: str, output: Path, options: Mapping[str, Any]
) -> RoomTraining | SceneRunSettings:
    """Return the settings of a training.

    Args:
        recipe: its name, one of CURRICULA (rooms) or RECIPES (scenes).
        output: directory of the training.
        options: those that were given, by the names of the fields.

    Raises:
        ConfigurationError: an unknown recipe, an option that its kind does not have, or a value out
            of range.

    """
    if recipe in CURRICULA:
        _require_known(recipe, "rooms", options, ROOM_OPTIONS)
        schedule = {name: options[name] for name in ("minutes", "score") if name in options}
        rest = {name: value for name, value in options.items() if name not in schedule}
        return RoomTraining(TrainingSettings(recipe=recipe, **rest), Schedule(**schedule))
    if recipe in RECIPES:
        _require_known(recipe, "scenes", options, SCENE_OPTIONS)
        return SceneRunSettings(recipe=recipe, output=output, **options)
    raise ConfigurationError(
        f"recipe '{recipe}' is unknown; choose one of {', '.join(CURRICULA)} (rooms), "
        f"{', '.join(RECIPES)} (scenes)"
    )


def _require_known(
    recipe: str, kind: str, options: Mapping[str, Any], known: frozenset[str]
) -> None:
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ConfigurationError(
            f"recipe '{recipe}' trains on {kind} and takes no "
            f"{', '.join('--' + name.replace('_', '-') for name in unknown)}; it takes "
            f"{', '.join('--' + name.replace('_', '-') for name in sorted(known))}"
        )
