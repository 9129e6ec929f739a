# SPDX-License-Identifier: Apache-2.0
"""Where commands write what people read, and how they say what they have written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

console = Console()
errors = Console(stderr=True)

HOW_TO_LOOK = {
    "overview.png": "any picture viewer: frames, depth, the cloud from above and from the side",
    "cloud.ply": "MeshLab, CloudCompare, Blender, or open3d.visualization in Python",
    "trajectory.tum": "text: timestamp, position, quaternion; evo_traj tum --plot draws it",
    "depth": "one depth map per picture, and cameras.csv",
    "losses.csv": "table: step, losses, learning rate; losses.png draws it",
    "evaluation": "pictures: input, true depth, predicted depth, confidence",
    "weights.safetensors": "weights, for --checkpoint",
}


def say_written(paths: Sequence[Path]) -> None:
    """Say what lies where and how to look at it."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for path in paths:
        table.add_row(Text(str(path), "bold"), HOW_TO_LOOK.get(path.name, ""))
    console.print("\n[green]Written:[/]")
    console.print(table)
