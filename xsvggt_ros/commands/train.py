# SPDX-License-Identifier: Apache-2.0
"""`xsvggt train`: trains a network on made-up rooms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xsvggt_ros.commands.options import Device, Threads
from xsvggt_ros.commands.speaking import console, say_written
from xsvggt_ros.interruption import INTERRUPTED, stop_request


def train(
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Directory of the training; one that holds one goes on."
        ),
    ] = Path("training"),
    *,
    preset: Annotated[str, typer.Option(help="Sizes of the network.")] = "demo",
    start: Annotated[
        str,
        typer.Option(
            help="What to begin with: directory of another training, a file of weights, a Hugging "
            "Face file as owner/name:file, or demo, the bundled ones. Default: random ones."
        ),
    ] = "",
    curriculum: Annotated[
        str, typer.Option(help="What is learned when: demo, demo_long or test.")
    ] = "demo",
    room: Annotated[str, typer.Option(help="Kind of room: chart, calm or rich.")] = "chart",
    steps: Annotated[int, typer.Option(min=1, help="Steps of the optimiser, in all.")] = 7_000,
    batch: Annotated[
        int, typer.Option(min=1, help="Factor on the streams per step; 1 suits a CPU.")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and data.")] = 0,
    learning_rate: Annotated[float, typer.Option(help="Highest, after the warm-up.")] = 8e-4,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop after this long, to go on another time.")
    ] = None,
    score: Annotated[
        str, typer.Option(help="Held-out sequences to score at the end: short, medium or long.")
    ] = "medium",
    device: Device = "auto",
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="Compute the aggregator in bfloat16, for a GPU.")
    ] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Apply torch.compile to the aggregator.")
    ] = False,
    threads: Threads = 0,
    workers: Annotated[
        int,
        typer.Option(
            min=0, help="Processes that shoot images ahead on a CPU; 0 = none but this one."
        ),
    ] = 0,
) -> None:
    """Train a network on made-up rooms; the same command continues a stopped training."""
    from xsvggt_ros.progress import training_progress
    from xsvggt_ros.synthetic.training import Trainer
    from xsvggt_ros.synthetic.training_settings import Schedule, TrainingSettings

    settings = TrainingSettings(
        preset=preset,
        start=start,
        curriculum=curriculum,
        room=room,
        steps=steps,
        batch=batch,
        seed=seed,
        learning_rate=learning_rate,
        device=device,
        bfloat16=bfloat16,
        compile=compiled,
        workers=workers,
    )
    schedule = Schedule(minutes=minutes, score=score)
    trainer = Trainer(settings, output)
    if trainer.step:
        console.print(f"going on after step {trainer.step}", highlight=False)
    with stop_request() as stop, training_progress(console, steps, trainer.step) as show:
        outcome = trainer.train(schedule, lambda p: show(p.step, p.line()), stop.is_set)
    say_written([outcome.weights, output / "losses.csv", output / "evaluation"])
    console.print(outcome.line(), markup=False, highlight=False, soft_wrap=True)
    if outcome.scores is None:
        raise typer.Exit(INTERRUPTED)
