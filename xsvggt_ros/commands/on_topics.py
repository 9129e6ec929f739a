# SPDX-License-Identifier: Apache-2.0
"""`xsvggt replay` and `xsvggt demo`: a recording on ROS topics, and the node fed and recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from xsvggt_ros.cache.settings import DEFAULT_BUDGET_TOKENS, CacheSettings
from xsvggt_ros.commands.options import (
    CACHE,
    NETWORK,
    RerunFile,
    RerunViewer,
    SourceArgument,
    Threads,
    Topic,
    rerun_log,
    takes_options,
)
from xsvggt_ros.commands.terminal import console, frame_progress, print_figures, print_written
from xsvggt_ros.evaluation.request import NetworkOptions
from xsvggt_ros.process import INTERRUPTED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xsvggt_ros.ros.demo import Demo, DemoOptions
    from xsvggt_ros.ros.replay_topics import Transport
    from xsvggt_ros.stream.recording import GroundTruth, RecordedFrame, TruthComparison
    from xsvggt_ros.stream.rerun_log import RerunLog
    from xsvggt_ros.stream.results import DepthFiles


@takes_options
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
        typer.Option(help="Images per second of a directory or video."),
    ] = None,
    speed: Annotated[float, typer.Option(help="Factor on the recording's own pace.")] = 1.0,
    fixed_rate: Annotated[
        float | None,
        typer.Option(help="Images per second instead of the recording's pace."),
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
    image_topic: Annotated[str, typer.Option(help="Name of the raw images.")] = "image",
    best_effort: Annotated[
        bool, typer.Option("--best-effort", help="Publish like a camera driver.")
    ] = False,
    depth: Annotated[int, typer.Option(help="Images kept for a slow subscriber.")] = 10,
    follow: Annotated[
        str, typer.Option(help="Node, such as /xsvggt, to wait for, so that no image is lost.")
    ] = "",
) -> None:
    """Publish a recording on ROS topics, as its camera would have."""
    from xsvggt_ros.doctor import require_ros

    require_ros()
    from xsvggt_ros.ros.replay import replay as publish
    from xsvggt_ros.ros.replay_topics import ReplayOptions
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


ROOM_BUDGET = 424
"""Tokens: eight frames of the bundled model."""


SEQUENCE = "long_loop"
"""Of the held-out suite: laps through one room, so that places are seen again."""

BAG = "made_up_room"
"""What the bag is called in the output directory."""


class DemoRoom:
    """The beginning of a held-out sequence: a bag for the node, and the truth for the page."""

    def __init__(self, most: int) -> None:
        """Take at most ``most`` frames."""
        from xsvggt_ros.synthetic.sequence import Sequence, held_out

        self._sequence = Sequence(held_out(SEQUENCE))
        self.frames = min(most, len(self._sequence))
        self._index = {self._sequence.stamp(index): index for index in range(self.frames)}

    def write(self, directory: Path, each: Callable[[int], None]) -> Path:
        """Render the images into a bag in ``directory`` and return its path."""
        from xsvggt_ros.synthetic.export import write_first_frames

        bag = directory / BAG
        write_first_frames(self._sequence, self.frames, bag, each)
        return bag

    def truth(self) -> GroundTruth:
        """Return poses, depth and the room from above."""
        from xsvggt_ros.stream.recording import GroundTruth, TopView
        from xsvggt_ros.synthetic.sequence import room_from_above

        world = self._sequence.world
        (x, y, _), (to_x, to_y, _) = world.low.tolist(), world.high.tolist()
        poses = {stamp: self._sequence.poses[index] for stamp, index in self._index.items()}
        top_view = TopView(room_from_above(world), (x, y), (to_x, to_y))
        return GroundTruth(poses, self._depth, top_view)

    def _depth(self, stamp: int) -> NDArray[np.float32]:
        return self._sequence.frame(self._index[stamp]).depth


@takes_options
def demo(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="Directory of images, video or bag; default: a synthetic room with ground truth."
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Directory for the results.")
    ] = Path("demo_output"),
    *,
    network: Annotated[NetworkOptions, NETWORK],
    threads: Threads = 0,
    cache: Annotated[CacheSettings, replace(CACHE, without=("budget_tokens",))],
    budget: Annotated[
        int | None,
        typer.Option(
            "--budget",
            "--budget-tokens",
            min=1,
            help="Most tokens that a layer holds after a frame; default: 424, eight frames, where "
            "the bundled model sees the synthetic room, else "
            f"{DEFAULT_BUDGET_TOKENS}.",
            rich_help_panel=CACHE.panel,
        ),
    ] = None,
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
    from xsvggt_ros.ros.demo import DemoOptions
    from xsvggt_ros.stream.results import DepthFiles
    from xsvggt_ros.synthetic.export import IMAGE_TOPIC

    depths = None if depth == "none" else DepthFiles(output / "depth", depth)
    viewed = rerun_log(rerun, rerun_file)
    room = None if source else DemoRoom(max_frames)
    made_for_it = room is not None and not network.preset and network.checkpoint in ("", "demo")
    default = ROOM_BUDGET if made_for_it else DEFAULT_BUDGET_TOKENS
    cache = replace(cache, budget_tokens=default if budget is None else budget)
    if room:
        with frame_progress(console, room.frames) as progress:
            images = room.write(output, lambda done: progress(done, "rendering"))
    else:
        assert source
        images = source
    options = DemoOptions(
        source=images,
        output=output,
        **{**asdict(network), "preset": network.preset or ""},
        threads=threads,
        cache=cache,
        max_frames=max_frames,
        topic=IMAGE_TOPIC if room else topic,
        patience=patience,
        made_for_it=made_for_it,
    )
    _run(options, room, depths, viewed)


def _run(
    options: DemoOptions, room: DemoRoom | None, depths: DepthFiles | None, viewed: RerunLog | None
) -> None:
    """Run a demo, write what the node published, and print where it is.

    Args:
        options: what runs, and on what.
        room: the synthetic room that is shown; None where the images are not ours.
        depths: takes the depth maps, if they are wanted.
        viewed: hands frames to Rerun, if that is wanted.

    """
    from functools import partial

    from xsvggt_ros.errors import OutputError, PartlyWrittenError
    from xsvggt_ros.ros.demo import Demo
    from xsvggt_ros.stream.recording import compare
    from xsvggt_ros.stream.results import title, write_results

    running = Demo(options, console, partial(frame_progress, console), _listeners(depths, viewed))
    running.run()
    recording = running.recorded.recording
    comparison = compare(recording, room.truth()) if room else None
    shown = f"synthetic room '{SEQUENCE}'" if room else str(options.source)
    heading = title(shown, options.weights_named, recording.in_force(options.cache), len(recording))
    failure: OutputError | None = depths.failure if depths else None
    try:
        written = write_results(recording, options.output, heading, comparison)
    except PartlyWrittenError as error:
        written, failure = error.written, error
    _print_figures(running, comparison)
    print_written(
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
    """Return the listeners for every frame."""
    listeners: list[Callable[[RecordedFrame], None]] = []
    if depths is not None:
        listeners.append(lambda frame: depths.write(frame.stamp, frame.depth, frame.intrinsics))
    if viewed is not None:
        listeners.append(viewed.log_frame)
    return listeners


def _print_figures(running: Demo, comparison: TruthComparison | None) -> None:
    """Print the most important numbers."""
    from xsvggt_ros.stream.recording import Figure, summarize

    pace = Figure(f"{running.rate:.1f}", "frames per second, from topic to topic")
    print_figures([*summarize(running.recorded.recording, comparison), pace])
