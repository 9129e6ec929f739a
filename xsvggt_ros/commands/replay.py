# SPDX-License-Identifier: Apache-2.0
"""`xsvggt replay`: a recording on ROS topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from xsvggt_ros.commands.options import SourceArgument, Topic

if TYPE_CHECKING:
    from xsvggt_ros.ros.replay_topics import Transport


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
