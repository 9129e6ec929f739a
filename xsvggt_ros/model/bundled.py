# SPDX-License-Identifier: Apache-2.0
"""The weights that come with the package."""

from __future__ import annotations

from pathlib import Path

from xsvggt_ros.errors import CheckpointError

BUNDLED = "demo"
"""What the bundled weights of the demo are called wherever a checkpoint is named."""

LANDMARKS = "landmarks"
"""What those are called that need their memory, for judging caches."""

BUNDLED_NOTICE = (
    "These are the weights that come with the package. They know the made-up rooms of "
    "`xsvggt synthesize --room chart` and nothing else: of real images their depth, poses and "
    "points mean nothing."
)

_LANDMARKS_NOTICE = (
    "These weights come with the package to judge caches by. They know made-up landmarks (the "
    "suites `landmarks_*`) and nothing else: of real images their depth, poses and points mean "
    "nothing."
)

NOTICES = {BUNDLED: BUNDLED_NOTICE, LANDMARKS: _LANDMARKS_NOTICE}
"""The weights that come with the package, and what whoever loads them must know."""


def bundled_weights(name: str = BUNDLED) -> Path:
    """Return the file of one of NOTICES.

    Raises:
        CheckpointError: this copy of the package lacks it.

    """
    path = Path(__file__).resolve().parents[1] / "weights" / f"{name}.safetensors"
    if not path.is_file():
        raise CheckpointError(
            f"this copy of the package lacks '{path}'; install it again, or name other weights"
        )
    return path


def named_weights(checkpoint: str, preset: str | None) -> str:
    """Return the name of the weights that are meant; empty = random ones of ``preset``."""
    return checkpoint or ("" if preset else BUNDLED)


def weights_in_words(checkpoint: str, preset: str | None) -> str:
    """Return which weights these are, for a heading."""
    name = named_weights(checkpoint, preset)
    if not name:
        return f"random weights ({preset}): geometry means nothing"
    return f"the bundled {name} model" if name in NOTICES else name
