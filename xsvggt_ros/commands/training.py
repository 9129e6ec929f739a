# SPDX-License-Identifier: Apache-2.0
"""What the extra `train` is for: `xsvggt synthesize`, `train`, `convert` and `average`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xsvggt_ros.commands.options import Device, Group, StoredPreset, Threads, takes_options
from xsvggt_ros.commands.terminal import (
    console,
    frame_progress,
    print_weights,
    print_written,
    training_progress,
)
from xsvggt_ros.process import INTERRUPTED, stop_request

if TYPE_CHECKING:
    from xsvggt_ros.synthetic.sequence import SequenceSettings
    from xsvggt_ros.training.recipes import RoomTraining, SceneRunSettings


_FIXED_BY_HELD_OUT = (
    "seed", "frames", "field_of_view", "motion", "rate", "speed", "samples", "shadows", "movers",
    "motion_blur", "exposure", "noise", "drops",
)  # fmt: skip


@takes_options
def synthesize(
    context: typer.Context,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Directory for the sequence; must be empty or new."),
    ] = Path("synthetic"),
    *,
    output_format: Annotated[
        str,
        typer.Option(
            "--format", help="directory (images), bag (rosbag2, mcap) or tum (TUM RGB-D)."
        ),
    ] = "directory",
    seed: Annotated[int, typer.Option(min=0, help="Seed of room, motion and effects.")] = 0,
    frames: Annotated[int, typer.Option(min=1, help="Images.")] = 100,
    width: Annotated[
        int | None, typer.Option(help="Pixels; default: 320, with --held-out 112.")
    ] = None,
    height: Annotated[
        int | None, typer.Option(help="Pixels; default: 240, with --held-out 84.")
    ] = None,
    field_of_view: Annotated[float, typer.Option(help="Horizontal field of view, degrees.")] = 75.0,
    room: Annotated[
        str | None,
        typer.Option(
            help="rich (like a home), calm (slow colours) or chart (the demo model's); default: "
            "rich, with --held-out chart."
        ),
    ] = None,
    motion: Annotated[
        str, typer.Option(help="walk, drive, pan, loop, stop, handheld or drift.")
    ] = "walk",
    rate: Annotated[float, typer.Option(help="Images per second, up to 1000.")] = 10.0,
    speed: Annotated[
        float | None, typer.Option(help="Metres per second; default: what suits the motion.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Rays per pixel, 1 or 4.")] = 4,
    shadows: Annotated[bool, typer.Option(help="Whether things cast shadows.")] = True,
    movers: Annotated[
        int, typer.Option(min=0, help="People who walk to and fro, up to 12, where there is room.")
    ] = 0,
    motion_blur: Annotated[float, typer.Option(help="Share of the time the shutter is open.")] = 0,
    exposure: Annotated[float, typer.Option(help="Stops by which brightness swings.")] = 0,
    noise: Annotated[float, typer.Option(help="Noise of a pixel, 8-bit levels.")] = 0,
    drops: Annotated[float, typer.Option(help="Share of frames that get lost.")] = 0,
    held_out: Annotated[
        str | None,
        typer.Option(
            help="A sequence of the held-out suite, on which everything is measured; only --room, "
            "--width and --height may be chosen beside it."
        ),
    ] = None,
    device: Device = "cpu",
) -> None:
    """Render a stream of a synthetic room, with exact depth and poses."""
    from xsvggt_ros.geometry.files import require_writable
    from xsvggt_ros.synthetic.motion import MotionSettings
    from xsvggt_ros.synthetic.renderer import Quality
    from xsvggt_ros.synthetic.rooms import room_named
    from xsvggt_ros.synthetic.sequence import EffectSettings, SequenceSettings

    require_writable(output)
    if held_out is not None:
        _refuse_beside_held_out(context)
        settings = _held_out_settings(held_out, room, width, height)
    else:
        settings = SequenceSettings(
            seed=seed,
            frames=frames,
            width=320 if width is None else width,
            height=240 if height is None else height,
            field_of_view=field_of_view,
            room=replace(room_named("rich" if room is None else room), movers=movers),
            motion=MotionSettings(motion, rate, speed),
            quality=Quality(samples, shadows),
            effects=EffectSettings(motion_blur, exposure, noise, drops),
        )
    _render(settings, output, output_format, device)


def _held_out_settings(
    name: str, room: str | None, width: int | None, height: int | None
) -> SequenceSettings:
    from xsvggt_ros.synthetic.sequence import DEFAULT_ROOM, held_out

    suite = held_out(name, DEFAULT_ROOM if room is None else room)
    return replace(
        suite,
        width=suite.width if width is None else width,
        height=suite.height if height is None else height,
    )


def _render(settings: SequenceSettings, output: Path, output_format: str, device: str) -> None:
    from xsvggt_ros.model.device import device_named
    from xsvggt_ros.synthetic.export import write_sequence
    from xsvggt_ros.synthetic.sequence import Sequence

    sequence = Sequence(settings, device_named(device))
    with frame_progress(console, len(sequence)) as progress:
        write_sequence(sequence, output, output_format, lambda done: progress(done, "rendering"))
        progress(len(sequence), "rendered")
    print_written([output])


def _refuse_beside_held_out(context: typer.Context) -> None:
    """Refuse options that a held-out sequence fixes by itself.

    Raises:
        ConfigurationError: some were given.

    """
    from xsvggt_ros.errors import ConfigurationError

    given = [
        f"--{name.replace('_', '-')}"
        for name in _FIXED_BY_HELD_OUT
        if (source := context.get_parameter_source(name)) and source.name != "DEFAULT"
    ]
    if given:
        raise ConfigurationError(
            f"{', '.join(given)} would be ignored beside --held-out, which fixes what is seen; "
            "leave them out, or --held-out"
        )


@takes_options
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
    print_weights(path)


@takes_options
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
    print_weights(path)


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


@takes_options
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
    from xsvggt_ros.training.trainer import Trainer

    trainer = Trainer(asked.settings, output)
    if trainer.step:
        console.print(f"continuing after step {trainer.step}", highlight=False)
    with (
        stop_request() as stop,
        training_progress(console, asked.settings.steps, trainer.step) as show,
    ):
        outcome = trainer.train(asked.schedule, lambda p: show(p.step, p.line()), stop.is_set)
    print_written([outcome.weights, output / "losses.csv", output / "evaluation"])
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
    print_written([asked.output / WEIGHTS, asked.output / NEED])
