# SPDX-License-Identifier: Apache-2.0
"""The state of a training, from which it goes on."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from xsvggt_ros.errors import CheckpointError, first_line
from xsvggt_ros.geometry.files import replacing

STATE = "training.pt"
"""What the file is called in the directory of a training."""


@dataclass(frozen=True)
class State:
    """A training as it was saved.

    ``settings`` and ``data`` are ``TrainingSettings`` and ``DataSettings`` as dictionaries,
    ``beginning`` is the digest of what it began with, empty for random weights. The last two are
    empty in states that were saved before they existed.
    """

    step: int
    skipped: int
    settings: dict[str, Any]
    network: dict[str, Any]
    guides: dict[str, Any]
    average: dict[str, Any]
    optimizer: dict[str, Any]
    data: dict[str, Any] = field(default_factory=dict)
    beginning: str = ""


def save_state(directory: Path, state: State) -> None:
    """Write the state, whole or not at all; raise OutputError where that fails."""
    with replacing(directory / STATE) as stream:
        torch.save({each.name: getattr(state, each.name) for each in fields(state)}, stream)


def load_state(directory: Path, device: torch.device) -> State | None:
    """Return the state that lies in a directory, None where there is none.

    Raises:
        CheckpointError: it is damaged.

    """
    path = directory / STATE
    if not path.exists():
        return None
    try:
        return State(**torch.load(path, map_location=device, weights_only=True))
    except Exception as error:
        # A damaged file fails in many ways.
        raise CheckpointError(
            f"'{path}' is no state of a training ({first_line(error)}); take another directory "
            "to start again, or empty this one"
        ) from error
