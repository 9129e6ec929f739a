# SPDX-License-Identifier: Apache-2.0
"""`xsvggt demo`: the node in a process of its own, fed and recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xsvggt_ros.cache.settings import AUTO, DEFAULT_BUDGET_TOKENS
from xsvggt_ros.commands.options import (
    BudgetMib,
    Checkpoint,
    Compiled,
    Device,
    Dtype,
    HeadsDtype,
    KeyBits,
    Policy,
    Preset,
    RerunFile,
    RerunViewer,
    Threads,
    Topic,
    ValueBits,
    Weights,
    Width,
    cache_settings,
    rerun_log,
)
from xsvggt_ros.commands.speaking import console, say_figures, say_written
from xsvggt_ros.interruption import INTERRUPTED

if TYPE_CHECKING:
    from xsvggt_ros.ros.demo import Demo
    from xsvggt_ros.stream.depth_files import DepthFiles
    from xsvggt_ros.stream.ground_truth import Comparison
    from xsvggt_ros.stream.recording import RecordedFrame
    from xsvggt_ros.stream.rerun_log import RerunLog

ROOM_BUDGET = 424
"""Tokens: eight frames of the bundled model."""


def demo(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="Directory of images, video or bag; default: a made-up room, whose truth is known."
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Directory for the results.")
    ] = Path("demo_output"),
    *,
    checkpoint: Checkpoint = "",
    preset: Preset = None,
    width: Width = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    heads_dtype: HeadsDtype = "auto",
    weights: Weights = "full",
    compiled: Compiled = False,
    threads: Threads = 0,
    policy: Policy = AUTO,
    budget: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most tokens that a layer holds after a frame; default: 424, eight frames, where "
            "the bundled model sees the made-up room, else "
            f"{DEFAULT_BUDGET_TOKENS}.",
        ),
    ] = None,
    budget_mib: BudgetMib = 0.0,
    key_bits: KeyBits = 4,
    value_bits: ValueBits = 4,
    max_frames: Annotated[int, typer.Option(min=1, help="Stop after this many images.")] = 200,
    topic: Topic = None,
    depth: Annotated[
        str,
        typer.Option(
            help="Write each depth map too: png (16 bit, 1/1000 units), npy (float32) or none."
        ),
    ] = "png",
    patience: Annotated[
        float, typer.Option(min=1, help="Seconds without any progress before giving up.")
    ] = 300.0,
    rerun: RerunViewer = False,
    rerun_file: RerunFile = None,
) -> None:
    """Run the ROS node in a process of its own, send it images, and keep what it publishes."""
    from xsvggt_ros.doctor import require_ros

    require_ros()
    from functools import partial

    from xsvggt_ros.commands.demo_room import SEQUENCE, TOPIC, DemoRoom
    from xsvggt_ros.errors import OutputError, PartlyWrittenError
    from xsvggt_ros.progress import frame_progress
    from xsvggt_ros.ros.demo import Demo, DemoOptions
    from xsvggt_ros.stream.depth_files import DepthFiles
    from xsvggt_ros.stream.ground_truth import compare
    from xsvggt_ros.stream.results import title, write_results

    depths = None if depth == "none" else DepthFiles(output / "depth", depth)
    viewed = rerun_log(rerun, rerun_file)
    room = None if source else DemoRoom(max_frames)
    made_for_it = room is not None and not preset and checkpoint in ("", "demo")
    default = ROOM_BUDGET if made_for_it else DEFAULT_BUDGET_TOKENS
    tokens = default if budget is None else budget
    cache = cache_settings(policy, tokens, budget_mib, key_bits, value_bits)
    if room:
        with frame_progress(console, room.frames) as progress:
            images = room.write(output, lambda done: progress(done, "rendering"))
    else:
        assert source
        images = source
    chosen = DemoOptions(
        source=images,
        output=output,
        checkpoint=checkpoint,
        preset=preset or "",
        width=width,
        device=device,
        dtype=dtype,
        heads_dtype=heads_dtype,
        weights=weights,
        compiled=compiled,
        threads=threads,
        cache=cache,
        max_frames=max_frames,
        topic=TOPIC if room else topic,
        patience=patience,
        made_for_it=made_for_it,
    )
    running = Demo(chosen, console, partial(frame_progress, console), _listeners(depths, viewed))
    running.run()
    recording = running.recorded.recording
    comparison = compare(recording, room.truth()) if room else None
    shown = f"made-up room '{SEQUENCE}'" if room else str(source)
    heading = title(shown, chosen.weights_named, cache, len(recording))
    failure: OutputError | None = depths.failure if depths else None
    try:
        written = write_results(recording, output, heading, comparison)
    except PartlyWrittenError as error:
        written, failure = error.written, error
    _say_figures(running, comparison)
    say_written(
        [
            *written,
            *([depths.close()] if depths else []),
            *(viewed.close(comparison) if viewed else []),
        ]
    )
    if failure is not None:
        raise failure
    if running.interrupted:
        raise typer.Exit(INTERRUPTED)


def _listeners(
    depths: DepthFiles | None, viewed: RerunLog | None
) -> list[Callable[[RecordedFrame], None]]:
    """Return what hears every frame."""
    listeners: list[Callable[[RecordedFrame], None]] = []
    if depths is not None:
        listeners.append(lambda frame: depths.write(frame.stamp, frame.depth, frame.intrinsics))
    if viewed is not None:
        listeners.append(viewed.hear)
    return listeners


def _say_figures(running: Demo, comparison: Comparison | None) -> None:
    """Say the numbers that count."""
    from xsvggt_ros.stream.summary import Figure, summarize

    pace = Figure(f"{running.rate:.1f}", "frames per second, from topic to topic")
    say_figures([*summarize(running.recorded.recording, comparison), pace])
