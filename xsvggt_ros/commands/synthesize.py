# SPDX-License-Identifier: Apache-2.0
"""`xsvggt synthesize`: streams of made-up rooms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xsvggt_ros.commands.options import Device
from xsvggt_ros.commands.speaking import console, say_written


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
        str,
        typer.Option(help="rich (like a home), calm (slow colours) or chart (the demo model's)."),
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
    say_written([output])
