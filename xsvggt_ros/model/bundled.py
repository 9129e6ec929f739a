# SPDX-License-Identifier: Apache-2.0
"""The weights that come with the package."""

from __future__ import annotations

from pathlib import Path

from xsvggt_ros.errors import CheckpointError

BUNDLED = "demo"
"""What the bundled weights are called wherever a checkpoint is named."""

BUNDLED_NOTICE = (
    "These are the weights that come with the package. They know the made-up rooms of "
    "`xsvggt synthesize --room chart` and nothing else: of real pictures their depth, poses and "
    "points mean nothing."
)


def bundled_weights() -> Path:
    """Return the file; raise CheckpointError where this copy of the package has none."""
    path = Path(__file__).resolve().parents[1] / "weights" / f"{BUNDLED}.safetensors"
    if not path.is_file():
        raise CheckpointError(
            f"this copy of the package lacks '{path}'; install it anew, or name other weights"
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
    return "the bundled demo model" if name == BUNDLED else name
