# SPDX-License-Identifier: Apache-2.0
"""`xsvggt convert` and `xsvggt average`: files of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xsvggt_ros.commands.options import StoredPreset
from xsvggt_ros.commands.speaking import say_weights


def convert(
    source: Annotated[str, typer.Argument(help="Weights: a .pth file or a Hugging Face id.")],
    destination: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    preset: StoredPreset = None,
    dtype: Annotated[
        str,
        typer.Option(help="Of the large layers: float32, or bfloat16 or float16 for half a file."),
    ] = "float32",
) -> None:
    """Convert weights to safetensors, checked name by name."""
    from xsvggt_ros.model.checkpoint import convert_checkpoint

    path = convert_checkpoint(source, destination, preset=preset, dtype=dtype)
    say_weights(path)


def average(
    first: Annotated[
        str, typer.Argument(help="Weights: a file, a Hugging Face id, or demo = the bundled ones.")
    ],
    second: Annotated[str, typer.Argument(help="Weights that were trained on from the first.")],
    destination: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    share: Annotated[float, typer.Option(help="Share of the second, 0 to 1.")] = 0.5,
    preset: StoredPreset = None,
) -> None:
    """Average weights with those that were trained on from them: often better than either."""
    from xsvggt_ros.model.checkpoint import average_checkpoints

    path = average_checkpoints(first, second, share, destination, preset=preset)
    say_weights(path)
