# SPDX-License-Identifier: Apache-2.0
"""`xsvggt reconstruct`: a recorded stream through the engine, without ROS."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.commands.options import (
    CACHE,
    CHAIN,
    NETWORK,
    MaxFrames,
    Refinement,
    RerunFile,
    RerunViewer,
    SourceArgument,
    Threads,
    Topic,
    rerun_log,
    takes_options,
)
from xsvggt_ros.commands.terminal import (
    console,
    frame_progress,
    known_total,
    print_figures,
    print_lines,
    print_written,
)
from xsvggt_ros.evaluation.request import NetworkOptions
from xsvggt_ros.process import INTERRUPTED, stop_request
from xsvggt_ros.stream.chain_settings import ChainSettings

if TYPE_CHECKING:
    from xsvggt_ros.errors import SourceError
    from xsvggt_ros.stream.frame import Frame
    from xsvggt_ros.stream.reconstructor import Reconstructor
    from xsvggt_ros.stream.recording import LongestSession
    from xsvggt_ros.stream.results import DepthFiles
    from xsvggt_ros.stream.sources import Source


@takes_options
def reconstruct(
    source: SourceArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Directory for the results.")
    ] = Path("reconstruction"),
    *,
    network: Annotated[NetworkOptions, NETWORK],
    threads: Threads = 0,
    cache: Annotated[CacheSettings, CACHE],
    max_frames: MaxFrames = None,
    topic: Topic = None,
    depth: Annotated[
        str | None,
        typer.Option(help="Write each depth map too: png (16 bit, 1/1000 units) or npy (float32)."),
    ] = None,
    chain: Annotated[ChainSettings, CHAIN],
    refinement: Refinement = "auto",
    rerun: RerunViewer = False,
    rerun_file: RerunFile = None,
) -> None:
    """Reconstruct a recorded stream without ROS: cloud, trajectory and an overview image."""
    from xsvggt_ros.errors import OutputError, PartlyWrittenError
    from xsvggt_ros.geometry.files import require_writable
    from xsvggt_ros.stream.chain import ChainedReconstructor
    from xsvggt_ros.stream.reconstructor import ReconstructorSettings
    from xsvggt_ros.stream.recording import LongestSession, summarize_path
    from xsvggt_ros.stream.results import DepthFiles, title, write_results
    from xsvggt_ros.stream.sources import open_source

    require_writable(output)
    depths = DepthFiles(output / "depth", depth) if depth else None
    shown = rerun_log(rerun, rerun_file)
    recorded = LongestSession(*([shown.log_frame] if shown else []))
    with open_source(source, topic=topic) as stream:
        loaded = network.load()
        settings = ReconstructorSettings(network.width or loaded.config.image_size, cache)
        engine = ChainedReconstructor(loaded, settings, chain=chain, refinement=refinement)
        ending = _run(stream, engine, recorded, depths, max_frames)
    _print_left_out(recorded, ending)
    recording = recorded.recording
    heading = title(str(source), network.words, recording.in_force(cache), len(recording))
    failures: list[Exception] = [ending.broken] if ending.broken else []
    try:
        written = write_results(recorded.recording, output, heading)
    except PartlyWrittenError as error:
        written = error.written
        failures.append(error)
    depth_written, failed = _close_depth(depths, output)
    failures += failed
    print_figures(summarize_path(recorded.recording))
    print_written([*written, *depth_written, *(shown.close() if shown else [])])
    if failures:
        raise OutputError("; ".join(map(str, failures)))
    if ending.interrupted:
        raise typer.Exit(INTERRUPTED)


def _close_depth(depths: DepthFiles | None, output: Path) -> tuple[list[Path], list[Exception]]:
    """Finish the depth maps; return their paths, and what failed."""
    from xsvggt_ros.errors import OutputError
    from xsvggt_ros.stream.results import TABLE

    if depths is None:
        if (output / "depth" / TABLE).is_file():
            print_lines(
                [f"{output / 'depth'} is of an earlier run: --depth writes it too"], "yellow"
            )
        return [], []
    failures: list[Exception] = [depths.failure] if depths.failure else []
    try:
        return [depths.close()], failures
    except OutputError as error:
        return [], [*failures, error]


class Ending(NamedTuple):
    """How a run ended: whether by a signal, what was wrong with the source, and with its images."""

    interrupted: bool
    broken: SourceError | None
    refused: list[str]


def _run(
    stream: Source,
    reconstructor: Reconstructor,
    recorded: LongestSession,
    depths: DepthFiles | None,
    max_frames: int | None,
) -> Ending:
    """Reconstruct a stream under a progress bar; return how it ended.

    Where the source breaks off after the first frame, the results so far are kept.

    Raises:
        SourceError: not a single frame was usable.
        KeyboardInterrupt: a signal came before the first frame, or came twice.

    """
    from itertools import islice, takewhile

    from xsvggt_ros.errors import SourceError
    from xsvggt_ros.stream.recording import RecordedFrame
    from xsvggt_ros.stream.worker import reconstruct as results

    log = logging.getLogger(__name__)
    refused: list[str] = []
    broken: SourceError | None = None

    def refuse(frame: Frame, error: Exception) -> None:
        log.warning("the image of stamp %d was refused: %s", frame.stamp, error)
        refused.append(str(error))

    total = known_total(stream.frame_count, max_frames)
    with stop_request() as stop, frame_progress(console, total) as progress:
        frames = takewhile(lambda _: not stop.is_set(), islice(stream, max_frames))
        try:
            for result in results(frames, reconstructor, refuse):
                recorded.add(RecordedFrame.from_result(result))
                if depths:
                    depths.write(
                        result.stamp,
                        result.mapping.depth_to_source(result.depth),
                        result.mapping.intrinsics_to_source(result.intrinsics),
                    )
                progress(recorded.frames, stream.name)
        except SourceError as error:
            broken = error
    if not recorded.frames:
        if broken:
            raise broken
        if stop.is_set():
            raise KeyboardInterrupt
        reason = f"the first one: {refused[0]}" if refused else "it is empty"
        raise SourceError(f"{stream.name} holds no usable image ({reason}); give another one")
    return Ending(stop.is_set(), broken, refused)


def _print_left_out(recorded: LongestSession, ending: Ending) -> None:
    """Print what the results do not hold."""
    if ending.refused:
        count, first = len(ending.refused), ending.refused[0]
        total = count + recorded.frames
        print_lines([f"{count} of {total} images were refused; the first: {first}"], "yellow")
    if ending.interrupted:
        console.print(
            f"[yellow]Interrupted: the results hold what came out of {recorded.frames} frames.[/]"
        )
    if recorded.left_out:
        console.print(f"[yellow]{recorded.left_out}[/]")
