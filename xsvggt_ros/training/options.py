# SPDX-License-Identifier: Apache-2.0
"""One way to name a training: a recipe, and the options that its kind of training has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.training.recipes import RECIPES, SceneRunSettings
from xsvggt_ros.training.settings import CURRICULA, Schedule, TrainingSettings

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
