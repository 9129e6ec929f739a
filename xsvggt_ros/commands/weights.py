# SPDX-License-Identifier: Apache-2.0
"""`xsvggt train`, `xsvggt convert` and `xsvggt average`: commands that make weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xsvggt_ros.commands.options import Device, Group, StoredPreset, Threads, takes_groups
from xsvggt_ros.commands.speaking import console, say_weights, say_written
from xsvggt_ros.interruption import INTERRUPTED, stop_request

if TYPE_CHECKING:
    from xsvggt_ros.training.recipes import RoomTraining, SceneRunSettings


def convert(
    source: Annotated[str, typer.Argument(help="Weights: a .pth file or a Hugging Face id.")],
    destination: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    preset: StoredPreset = None,
    dtype: Annotated[
        str,
        typer.Option(
            help="Data type of the large layers: float32, or bfloat16 or float16 for half a file."
        ),
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


def _option(text: str) -> Any:
    return field(default=None, metadata={"text": text})


@dataclass(frozen=True)
class RoomOptions:
    """Options of recipes for rooms; None = the recipe's own."""

    preset: str | None = _option("Sizes of the network; demo by default.")
    room: str | None = _option("Kind of room: chart, calm or rich; chart by default.")
    steps: int | None = _option("Steps of the optimizer, in all; 7000 by default.")
    batch: int | None = _option("Factor on the streams per step; 1, the default, suits a CPU.")
    learning_rate: float | None = _option("Highest, after the warm-up; 0.0008 by default.")
    score: str | None = _option(
        "Held-out sequences to score at the end: short, medium (default) or long."
    )
    bfloat16: bool | None = _option("Compute the aggregator in bfloat16, for a GPU.")
    compile: bool | None = _option("Apply torch.compile to the aggregator.")
    workers: int | None = _option("Processes that render clips ahead on a CPU; none by default.")


@dataclass(frozen=True)
class SceneOptions:
    """Options of recipes for scenes; None = the recipe's own."""

    state: Path | None = _option(  # noqa: RUF009 - a field
        "Directory of the state to continue, where it is not the output."
    )
    total_minutes: float | None = _option(
        "Minutes of training in all calls, over which learning rate and stages are scheduled; by "
        "default, the schedule ends with this call."
    )
    graph: bool | None = _option("Capture a step as a CUDA graph on a GPU; on by default.")
    streams: int | None = _option("Held-out streams that memory is measured on; 16 by default.")
    validate_seconds: float | None = _option("From one validation to the next; 90 by default.")


ROOMS = Group(
    panel="Recipes for rooms", names={"bfloat16": ("--bfloat16",), "compile": ("--compile",)}
)
SCENES = Group(panel="Recipes for scenes", names={"graph": ("--graph/--no-graph",)})


@takes_groups
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
            help="Stages and data of the training. On clips of rooms: demo, demo_long or test. "
            "On scenes that are rendered for every step, which need memory: demo12, medium12, "
            "thin8, demo12_pruned (with --start) or test_scenes."
        ),
    ] = "demo",
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0, help="Stop after this long, to continue another time. Scenes: 7 by default."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights and data.")] = 0,
    start: Annotated[
        str | None,
        typer.Option(
            help="What to start from: directory of another training, a file of weights, a Hugging "
            "Face file as owner/name:file, or bundled weights: demo, landmarks. Default: random "
            "ones."
        ),
    ] = None,
    device: Device = "auto",
    threads: Threads = 0,
    rooms: Annotated[RoomOptions, ROOMS],
    scenes: Annotated[SceneOptions, SCENES],
) -> None:
    """Train a network on synthetic streams; a call with equal options continues an earlier one."""
    # First of all: the minutes of a call count from here.
    from xsvggt_ros.training import BEGAN
    from xsvggt_ros.training.recipes import RoomTraining, training_named

    given = {"minutes": minutes, "start": start, **asdict(rooms), **asdict(scenes)}
    options = {name: value for name, value in given.items() if value is not None}
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
    from xsvggt_ros.training.learning import WEIGHTS
    from xsvggt_ros.training.scene_run import NEED, SceneRun

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    with stop_request() as stop:
        SceneRun(asked, say, began).run(stop.is_set)
        if stop.is_set():
            raise typer.Exit(INTERRUPTED)
    say_written([asked.output / WEIGHTS, asked.output / NEED])
