# SPDX-License-Identifier: Apache-2.0
"""`xsvggt demo`: the node in a process of its own, fed and recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xsvggt_ros.commands.options import (
    Budget,
    BudgetMib,
    Checkpoint,
    Device,
    Dtype,
    KeyBits,
    Policy,
    Preset,
    Topic,
    ValueBits,
    Width,
    cache_settings,
)
from xsvggt_ros.commands.speaking import console, say_written
from xsvggt_ros.stream.interruption import INTERRUPTED


def demo(
    source: Annotated[
        Path | None,
        typer.Argument(help="Folder of pictures, video or bag; default: the sample pictures."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path(
        "demo_output"
    ),
    *,
    checkpoint: Checkpoint = "",
    preset: Preset = None,
    width: Width = None,
    device: Device = "auto",
    dtype: Dtype = "float32",
    policy: Policy = "xstreamvggt",
    budget: Budget = 8192,
    budget_mib: BudgetMib = 0.0,
    key_bits: KeyBits = 4,
    value_bits: ValueBits = 4,
    max_frames: Annotated[int, typer.Option(min=1, help="Stop after this many pictures.")] = 200,
    topic: Topic = None,
    patience: Annotated[
        float, typer.Option(min=1, help="Seconds without any progress before giving up.")
    ] = 300.0,
) -> None:
    """Run the ROS node in a process of its own, send it pictures, and keep what it publishes."""
    from xsvggt_ros.doctor import require_ros

    require_ros()
    from functools import partial

    from xsvggt_ros.progress import frame_progress
    from xsvggt_ros.ros.demo import Demo, DemoOptions

    cache = cache_settings(policy, budget, budget_mib, key_bits, value_bits)
    chosen = DemoOptions(
        source=source,
        output=output,
        checkpoint=checkpoint,
        preset=preset or "",
        width=width,
        device=device,
        dtype=dtype,
        cache=cache,
        max_frames=max_frames,
        topic=topic,
        patience=patience,
    )
    running = Demo(chosen, console, partial(frame_progress, console))
    say_written(running.run())
    if running.interrupted:
        raise typer.Exit(INTERRUPTED)
