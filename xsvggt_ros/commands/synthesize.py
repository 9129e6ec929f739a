# SPDX-License-Identifier: Apache-2.0
"""`xsvggt synthesize`: streams of synthetic rooms."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xsvggt_ros.commands.options import Device
from xsvggt_ros.commands.speaking import console, say_written

if TYPE_CHECKING:
    from xsvggt_ros.synthetic.sequence import SequenceSettings

_FIXED_BY_HELD_OUT = (
    "seed", "frames", "field_of_view", "motion", "rate", "speed", "samples", "shadows", "movers",
    "motion_blur", "exposure", "noise", "drops",
)  # fmt: skip


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
    from xsvggt_ros.progress import frame_progress
    from xsvggt_ros.synthetic.export import write_sequence
    from xsvggt_ros.synthetic.sequence import Sequence

    sequence = Sequence(settings, device_named(device))
    with frame_progress(console, len(sequence)) as progress:
        write_sequence(sequence, output, output_format, lambda done: progress(done, "rendering"))
        progress(len(sequence), "rendered")
    say_written([output])


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
