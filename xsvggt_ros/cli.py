# SPDX-License-Identifier: Apache-2.0
"""The command `xsvggt`; every command imports what it needs itself, so that help comes at once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console
from typer.core import TyperGroup

from xsvggt_ros.errors import XsvggtError
from xsvggt_ros.stream.interruption import INTERRUPTED, interruptible, stop_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xsvggt_ros.cache.settings import CacheSettings
    from xsvggt_ros.ros.replay_options import Transport
    from xsvggt_ros.stream.depth_files import DepthFiles
    from xsvggt_ros.stream.frame import Frame
    from xsvggt_ros.stream.reconstructor import Reconstructor
    from xsvggt_ros.stream.recording import LongestSession
    from xsvggt_ros.stream.sources import Source

console = Console()
errors = Console(stderr=True)


class ReadableErrors(TyperGroup):
    """Turns errors raised on purpose into one sentence and exit code 1, and signals into 130."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; `--debug` lets the traceback through."""
        try:
            with interruptible():
                return super().invoke(ctx)
        except KeyboardInterrupt as signalled:
            errors.print("xsvggt: interrupted", style="bold red")
            raise typer.Exit(INTERRUPTED) from signalled
        except XsvggtError as error:
            if ctx.params.get("debug"):
                raise
            errors.print(
                f"xsvggt: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True
            )
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=ReadableErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Streaming 3D reconstruction from pictures, with a compressed KV cache.",
)

SourceArgument = Annotated[Path, typer.Argument(help="Folder of pictures, video, or ROS 1/2 bag.")]
Checkpoint = Annotated[
    str, typer.Option(help="Weights: a file or a Hugging Face id; none = random weights.")
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Sizes of the network (streamvggt, small, demo, tiny); default: the weights' own."
    ),
]
Width = Annotated[
    int | None,
    typer.Option(help="Width of the network's input, a multiple of 14; default: the network's."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, ... or auto = cuda where there is one.")]
Dtype = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
Policy = Annotated[
    str,
    typer.Option(
        help="What chooses the history: xstreamvggt, ffn_residual, value_aware, key_diversity, "
        "sliding_window, random or none."
    ),
]
Budget = Annotated[int, typer.Option(help="Most tokens that a layer holds after a frame.")]
BudgetMib = Annotated[
    float, typer.Option(help="Most MiB that the cache allocates, instead of --budget; 0 = off.")
]
KeyBits = Annotated[int, typer.Option(help="Width of cached keys: 2, 4, 8, or 16 = as they come.")]
ValueBits = Annotated[int, typer.Option(help="Width of cached values, likewise.")]
MaxFrames = Annotated[
    int | None,
    typer.Option(min=1, help="Stop after this many pictures."),
]
Topic = Annotated[
    str | None,
    typer.Option(help="Image topic of a bag, needed where it holds several."),
]


def _print_version(asked: bool) -> None:
    if asked:
        from xsvggt_ros.version import version

        console.print(f"xsvggt {version()}", highlight=False)
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug logs.")] = False,
) -> None:
    """Set up logging for all commands."""
    from rich.logging import RichHandler

    handler = RichHandler(console=errors, show_path=debug, show_time=debug)
    level = logging.DEBUG if debug else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.getLogger("xsvggt_ros").setLevel(level)


@app.command()
def reconstruct(
    source: SourceArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path(
        "reconstruction"
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
    max_frames: MaxFrames = None,
    topic: Topic = None,
    depth: Annotated[
        str | None,
        typer.Option(help="Write each depth map too: png (16 bit, 1/1000 units) or npy (float32)."),
    ] = None,
) -> None:
    """Reconstruct a recorded stream without ROS: cloud, trajectory and an overview picture."""
    from xsvggt_ros.geometry.files import require_writable
    from xsvggt_ros.model.checkpoint import load_network
    from xsvggt_ros.stream.depth_files import DepthFiles
    from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings
    from xsvggt_ros.stream.recording import LongestSession
    from xsvggt_ros.stream.results import title, write_results
    from xsvggt_ros.stream.sources import open_source

    require_writable(output)
    cache = _cache_settings(policy, budget, budget_mib, key_bits, value_bits)
    depths = DepthFiles(output / "depth", depth) if depth else None
    recorded = LongestSession()
    with open_source(source, topic=topic) as stream:
        network = load_network(checkpoint, preset=preset, device=device, dtype=dtype)
        settings = ReconstructorSettings(width or network.config.image_size, cache)
        engine = Reconstructor(network, settings)
        interrupted = _run(stream, engine, recorded, depths, max_frames)
    _say_left_out(recorded, interrupted=interrupted)
    weights = checkpoint or f"random weights ({preset or 'small'}): geometry means nothing"
    heading = title(str(source), weights, cache, len(recorded.recording))
    written = write_results(recorded.recording, output, heading)
    _say_written([*written, *([depths.close()] if depths else [])])
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def _cache_settings(
    policy: str, budget: int, budget_mib: float, key_bits: int, value_bits: int
) -> CacheSettings:
    from xsvggt_ros.cache.settings import CacheSettings

    return CacheSettings(
        policy=policy,
        budget_tokens=budget,
        budget_mib=budget_mib,
        key_bits=key_bits,
        value_bits=value_bits,
    )


def _run(
    stream: Source,
    reconstructor: Reconstructor,
    recorded: LongestSession,
    depths: DepthFiles | None,
    max_frames: int | None,
) -> bool:
    """Reconstruct a stream under a progress bar; return whether a signal ended it early.

    Raises:
        SourceError: not a single frame was usable.
        KeyboardInterrupt: a signal came before the first frame, or came twice.

    """
    from itertools import islice, takewhile

    from xsvggt_ros.errors import SourceError
    from xsvggt_ros.progress import frame_progress, known_total
    from xsvggt_ros.stream.offline import reconstruct as results
    from xsvggt_ros.stream.recording import RecordedFrame

    log = logging.getLogger(__name__)
    refused: list[str] = []

    def refuse(frame: Frame, error: Exception) -> None:
        log.warning("the picture of stamp %d was refused: %s", frame.stamp, error)
        refused.append(str(error))

    total = known_total(stream.frame_count, max_frames)
    with stop_request() as stop, frame_progress(console, total) as progress:
        frames = takewhile(lambda _: not stop.is_set(), islice(stream, max_frames))
        for result in results(frames, reconstructor, refuse):
            recorded.add(RecordedFrame.from_result(result))
            if depths:
                depths.write(result)
            progress(recorded.frames, stream.name)
    if not recorded.frames:
        if stop.is_set():
            raise KeyboardInterrupt
        reason = f"the first one: {refused[0]}" if refused else "it is empty"
        raise SourceError(f"{stream.name} holds no usable picture ({reason}); give another one")
    return stop.is_set()


def _say_left_out(recorded: LongestSession, *, interrupted: bool) -> None:
    """Say what the results do not hold."""
    if interrupted:
        console.print(
            f"[yellow]Interrupted: the results hold what came out of {recorded.frames} frames.[/]"
        )
    if recorded.left_out:
        console.print(f"[yellow]{recorded.left_out}[/]")


def _say_written(paths: Sequence[Path]) -> None:
    """Say what lies where and how to look at it."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for path in paths:
        table.add_row(Text(str(path), "bold"), HOW_TO_LOOK.get(path.name, ""))
    console.print("\n[green]Written:[/]")
    console.print(table)


HOW_TO_LOOK = {
    "overview.png": "any picture viewer: frames, depth, the cloud from above and from the side",
    "cloud.ply": "MeshLab, CloudCompare, Blender, or open3d.visualization in Python",
    "trajectory.tum": "text: timestamp, position, quaternion; evo_traj tum --plot draws it",
    "depth": "one depth map per picture, and cameras.csv",
    "losses.csv": "table: step, losses, learning rate; losses.png draws it",
    "evaluation": "pictures: input, true depth, predicted depth, confidence",
    "weights.safetensors": "weights, for --checkpoint",
}


@app.command()
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

    cache = _cache_settings(policy, budget, budget_mib, key_bits, value_bits)
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
    _say_written(running.run())
    if running.interrupted:
        raise typer.Exit(INTERRUPTED)


@app.command()
def replay(
    source: SourceArgument,
    *,
    topic: Topic = None,
    frame_id: Annotated[
        str | None,
        typer.Option(help="Replaces the name of the camera's optical frame."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Pictures per second of a folder or video."),
    ] = None,
    speed: Annotated[float, typer.Option(help="Factor on the recording's own pace.")] = 1.0,
    fixed_rate: Annotated[
        float | None,
        typer.Option(help="Pictures per second instead of the recording's pace."),
    ] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Start again at the end.")] = False,
    paused: Annotated[
        bool, typer.Option("--paused", help="Start paused, until ~/pause says false.")
    ] = False,
    wait_for: Annotated[int, typer.Option(help="Subscribers to wait for.")] = 1,
    restamp: Annotated[
        bool, typer.Option("--restamp", help="Stamp with the time of publishing.")
    ] = False,
    clock: Annotated[
        bool, typer.Option("--clock", help="Publish the recording's time on /clock.")
    ] = False,
    transport: Annotated[str, typer.Option(help="raw, compressed or both.")] = "both",
    image_topic: Annotated[str, typer.Option(help="Name of the raw pictures.")] = "image",
    best_effort: Annotated[
        bool, typer.Option("--best-effort", help="Publish like a camera driver.")
    ] = False,
    depth: Annotated[int, typer.Option(help="Pictures kept for a slow subscriber.")] = 10,
    follow: Annotated[
        str, typer.Option(help="Node, such as /xsvggt, to wait for, so that no picture is lost.")
    ] = "",
) -> None:
    """Publish a recording on ROS topics, as its camera would have."""
    from xsvggt_ros.doctor import require_ros

    require_ros()
    from xsvggt_ros.ros.replay import replay as publish
    from xsvggt_ros.ros.replay_options import ReplayOptions
    from xsvggt_ros.stream.sources import open_source

    chosen = ReplayOptions(
        speed=speed,
        fixed_rate=fixed_rate,
        loop=loop,
        paused=paused,
        wait_for=wait_for,
        restamp=restamp,
        clock=clock,
        transport=cast("Transport", transport),
        image_topic=image_topic,
        best_effort=best_effort,
        depth=depth,
        follow=follow,
    )
    with open_source(source, rate=rate, topic=topic, frame_id=frame_id) as stream:
        publish(stream, chosen)


@app.command()
def synthesize(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the sequence; must be empty or new.")
    ] = Path("synthetic"),
    *,
    output_format: Annotated[
        str,
        typer.Option("--format", help="folder (pictures), bag (rosbag2, mcap) or tum (TUM RGB-D)."),
    ] = "folder",
    seed: Annotated[int, typer.Option(min=0, help="Of room, motion and effects.")] = 0,
    frames: Annotated[int, typer.Option(min=1, help="Pictures.")] = 100,
    width: Annotated[int, typer.Option(help="Pixels.")] = 320,
    height: Annotated[int, typer.Option(help="Pixels.")] = 240,
    field_of_view: Annotated[float, typer.Option(help="Horizontal, degrees.")] = 75.0,
    room: Annotated[
        str, typer.Option(help="rich (like a home) or calm (what the small network learns).")
    ] = "rich",
    motion: Annotated[
        str, typer.Option(help="walk, drive, pan, loop, stop, handheld or drift.")
    ] = "walk",
    rate: Annotated[float, typer.Option(help="Pictures per second.")] = 10.0,
    speed: Annotated[
        float | None, typer.Option(help="Metres per second; default: what suits the motion.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Rays per pixel, 1 or 4.")] = 4,
    shadows: Annotated[bool, typer.Option(help="Whether things cast shadows.")] = True,
    movers: Annotated[int, typer.Option(min=0, help="People who walk to and fro.")] = 0,
    motion_blur: Annotated[float, typer.Option(help="Share of the time the shutter is open.")] = 0,
    exposure: Annotated[float, typer.Option(help="Stops by which brightness swings.")] = 0,
    noise: Annotated[float, typer.Option(help="Of a pixel, 8-bit levels.")] = 0,
    drops: Annotated[float, typer.Option(help="Share of frames that get lost.")] = 0,
    held_out: Annotated[
        str | None,
        typer.Option(
            help="A sequence of the held-out suite: its seed, motion, frames and quality."
        ),
    ] = None,
    device: Device = "cpu",
) -> None:
    """Make a stream of a room that does not exist, with exact depth and poses."""
    from dataclasses import replace

    from xsvggt_ros.geometry.files import require_writable
    from xsvggt_ros.model.device import device_named
    from xsvggt_ros.progress import frame_progress
    from xsvggt_ros.synthetic.effects import EffectSettings
    from xsvggt_ros.synthetic.export import write_sequence
    from xsvggt_ros.synthetic.held_out import held_out as named_sequence
    from xsvggt_ros.synthetic.motion import MotionSettings
    from xsvggt_ros.synthetic.renderer import Quality
    from xsvggt_ros.synthetic.rooms import room_named
    from xsvggt_ros.synthetic.sequence import Sequence as SyntheticSequence
    from xsvggt_ros.synthetic.sequence import SequenceSettings

    require_writable(output)
    settings = SequenceSettings(
        seed=seed,
        frames=frames,
        width=width,
        height=height,
        field_of_view=field_of_view,
        room=replace(room_named(room), movers=movers),
        motion=MotionSettings(motion, rate, speed),
        quality=Quality(samples, shadows),
        effects=EffectSettings(motion_blur, exposure, noise, drops),
    )
    if held_out:
        settings = named_sequence(held_out, room, width, height)
    sequence = SyntheticSequence(settings, device_named(device))
    with frame_progress(console, len(sequence)) as progress:
        write_sequence(sequence, output, output_format, lambda done: progress(done, "rendering"))
        progress(len(sequence), "rendered")
    _say_written([output])


@app.command()
def train(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder of the training; one that holds one goes on."),
    ] = Path("training"),
    *,
    preset: Annotated[str, typer.Option(help="Sizes of the network.")] = "demo",
    curriculum: Annotated[str, typer.Option(help="What is learned when: demo or test.")] = "demo",
    room: Annotated[str, typer.Option(help="Kind of room: calm or rich.")] = "calm",
    steps: Annotated[int, typer.Option(min=1, help="Steps of the optimiser, in all.")] = 20_000,
    batch: Annotated[
        int, typer.Option(min=1, help="Factor on the streams per step; 1 suits a CPU.")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and data.")] = 0,
    learning_rate: Annotated[float, typer.Option(help="Highest, after the warm-up.")] = 6e-4,
    minutes: Annotated[
        float | None, typer.Option(help="Stop after this long, to go on another time.")
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
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that make the data; 0 = none but this one.")
    ] = 0,
) -> None:
    """Train a network on made-up rooms; a call with equal options goes on where one stopped."""
    from xsvggt_ros.progress import training_progress
    from xsvggt_ros.synthetic.training import Schedule, Trainer, TrainingSettings

    settings = TrainingSettings(
        preset=preset,
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
    _say_written([outcome.weights, output / "losses.csv", output / "evaluation"])
    console.print(outcome.line(), markup=False, highlight=False, soft_wrap=True)
    if outcome.scores is None:
        raise typer.Exit(INTERRUPTED)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="Weights: a .pth file or a Hugging Face id.")],
    destination: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    preset: Annotated[
        str | None,
        typer.Option(help="Sizes that the weights have; default: their own, or the official ones."),
    ] = None,
) -> None:
    """Convert weights to safetensors, checked name by name."""
    from xsvggt_ros.model.checkpoint import convert_checkpoint

    path = convert_checkpoint(source, destination, preset=preset)
    console.print(f"[green]Written:[/] {path} ({path.stat().st_size / 2**20:.1f} MiB)")


@app.command()
def doctor(
    ros: Annotated[bool, typer.Option(help="Also examine what the node needs.")] = True,
) -> None:
    """Say what is installed, what is missing, and what to do about it."""
    from xsvggt_ros.doctor import examine

    findings = examine(ros=ros)
    for finding in findings:
        mark = "[red]✘[/]" if finding.fault else "[yellow]![/]" if finding.remedy else "[green]✔[/]"
        console.print(f"{mark} [bold]{finding.subject}[/]: ", end="")
        console.print(finding.state, markup=False, highlight=False, soft_wrap=True)
        if finding.remedy:
            console.print(f"    → {finding.remedy}", style="yellow", markup=False, soft_wrap=True)
    if any(finding.fault for finding in findings):
        raise typer.Exit(1)
