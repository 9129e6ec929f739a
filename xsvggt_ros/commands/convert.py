# SPDX-License-Identifier: Apache-2.0
"""`xsvggt convert`: weights into safetensors."""

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
