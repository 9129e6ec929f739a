# SPDX-License-Identifier: Apache-2.0
"""`xsvggt train`: a network learns from synthetic streams."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xsvggt_ros.commands.options import Device, Threads
from xsvggt_ros.commands.speaking import console, say_written
from xsvggt_ros.interruption import INTERRUPTED, stop_request

if TYPE_CHECKING:
    from xsvggt_ros.training.options import RoomTraining
    from xsvggt_ros.training.scene_run import SceneRunSettings

ROOMS, SCENES = "Recipes for rooms", "Recipes for scenes"


def train(
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Directory of the training; one that holds one is continued."
        ),
    ] = Path("training"),
    *,
    recipe: Annotated[
        str,
        typer.Option(
            help="What is learned when. On clips of rooms: demo, demo_long or test. On scenes that "
            "are rendered for every step, which need memory: demo12, medium12, thin8 or "
            "test_scenes."
        ),
    ] = "demo",
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0, help="Stop after this long, to continue another time. Scenes: 7 by default."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and data.")] = 0,
    device: Device = "auto",
    threads: Threads = 0,
    preset: Annotated[
        str | None,
        typer.Option(help="Sizes of the network; demo by default.", rich_help_panel=ROOMS),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="What to start from: directory of another training, a file of weights, a Hugging "
            "Face file as owner/name:file, or demo, the bundled ones. Default: random ones.",
            rich_help_panel=ROOMS,
        ),
    ] = None,
    room: Annotated[
        str | None,
        typer.Option(
            help="Kind of room: chart, calm or rich; chart by default.", rich_help_panel=ROOMS
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Steps of the optimiser, in all; 7000 by default.", rich_help_panel=ROOMS
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Factor on the streams per step; 1, the default, suits a CPU.",
            rich_help_panel=ROOMS,
        ),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Highest, after the warm-up; 0.0008 by default.", rich_help_panel=ROOMS),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            help="Held-out sequences to score at the end: short, medium (default) or long.",
            rich_help_panel=ROOMS,
        ),
    ] = None,
    bfloat16: Annotated[
        bool,
        typer.Option(
            "--bfloat16",
            help="Compute the aggregator in bfloat16, for a GPU.",
            rich_help_panel=ROOMS,
        ),
    ] = False,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile", help="Apply torch.compile to the aggregator.", rich_help_panel=ROOMS
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Processes that render clips ahead on a CPU; none by default.",
            rich_help_panel=ROOMS,
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the state to continue, where it is not the output.",
            rich_help_panel=SCENES,
        ),
    ] = None,
    total_minutes: Annotated[
        float | None,
        typer.Option(
            help="Of learning in all calls, by which rate and stages go; by default they end with "
            "this call.",
            rich_help_panel=SCENES,
        ),
    ] = None,
    graph: Annotated[
        bool,
        typer.Option(
            "--graph/--no-graph",
            help="Capture a step as a CUDA graph on a GPU.",
            rich_help_panel=SCENES,
        ),
    ] = True,
    streams: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Held-out streams that memory is measured on; 16 by default.",
            rich_help_panel=SCENES,
        ),
    ] = None,
    validate_seconds: Annotated[
        float | None,
        typer.Option(
            help="From one validation to the next; 90 by default.", rich_help_panel=SCENES
        ),
    ] = None,
) -> None:
    """Train a network on synthetic streams; a call with equal options continues an earlier one."""
    # First of all: the minutes of a call count from here.
    from xsvggt_ros.training import BEGAN
    from xsvggt_ros.training.options import RoomTraining, training_named

    given = {
        "minutes": minutes, "preset": preset, "start": start, "room": room, "steps": steps,
        "batch": batch, "learning_rate": learning_rate, "score": score,
        "bfloat16": bfloat16 or None, "compile": compiled or None, "workers": workers,
        "state": state, "total_minutes": total_minutes, "graph": None if graph else False,
        "streams": streams, "validate_seconds": validate_seconds,
    }  # fmt: skip
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    asked = training_named(recipe, output, {"seed": seed, "device": device, **options})
    if isinstance(asked, RoomTraining):
        _train_on_rooms(asked, output)
    else:
        _train_on_scenes(asked, BEGAN)


def _train_on_rooms(asked: RoomTraining, output: Path) -> None:
    from xsvggt_ros.progress import training_progress
    from xsvggt_ros.training.trainer import Trainer

    trainer = Trainer(asked.settings, output)
    if trainer.step:
        console.print(f"continuing after step {trainer.step}", highlight=False)
    with (
        stop_request() as stop,
        training_progress(console, asked.settings.steps, trainer.step) as show,
    ):
        outcome = trainer.train(asked.schedule, lambda p: show(p.step, p.line()), stop.is_set)
    say_written([outcome.weights, output / "losses.csv", output / "evaluation"])
    console.print(outcome.line(), markup=False, highlight=False, soft_wrap=True)
    if outcome.scores is None:
        raise typer.Exit(INTERRUPTED)


def _train_on_scenes(asked: SceneRunSettings, began: float) -> None:
    from xsvggt_ros.training.scene_run import NEED, WEIGHTS, SceneRun

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    with stop_request() as stop:
        run = SceneRun(asked, say, began)
        try:
            run.run(stop.is_set)
        finally:
            run.ranks.end()
        if stop.is_set():
            raise typer.Exit(INTERRUPTED)
    say_written([asked.output / WEIGHTS, asked.output / NEED])
