# SPDX-License-Identifier: Apache-2.0
"""`xsvggt evaluate`: a recording with ground truth in, numbers and a report out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xsvggt_ros.cache.settings import AUTO, DEFAULT_BUDGET_TOKENS
from xsvggt_ros.commands.ending import end_run
from xsvggt_ros.commands.options import (
    Budget,
    BudgetMib,
    Checkpoint,
    Compiled,
    Device,
    Dtype,
    HeadsDtype,
    KeyBits,
    MaxFrames,
    Policy,
    Preset,
    Threads,
    ValueBits,
    Weights,
    Width,
    cache_settings,
)
from xsvggt_ros.commands.speaking import console, say_lines, say_table
from xsvggt_ros.interruption import stop_request

if TYPE_CHECKING:
    from xsvggt_ros.evaluation.evaluation import Evaluation
    from xsvggt_ros.evaluation.request import EvaluationRequest, LiveOptions
    from xsvggt_ros.evaluation.sweep import Run, Sweep
    from xsvggt_ros.evaluation.thresholds import Threshold

SOURCE, JUDGING, LIVE, LIMITS, SWEEPING, PROTOCOLS = (
    "What is taken of the source",
    "How results are judged",
    "Live",
    "Limits: exit code 3 where one is broken",
    "Sweep",
    "Protocols of the paper",
)


def evaluate(
    source: Annotated[
        str | None,
        typer.Argument(
            help="Bag, directory of a data set, or synthetic:NAME of a made-up sequence."
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Directory in which each run gets a directory of its own."
        ),
    ] = Path("results"),
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
    budget: Budget = DEFAULT_BUDGET_TOKENS,
    budget_mib: BudgetMib = 0.0,
    key_bits: KeyBits = 4,
    value_bits: ValueBits = 4,
    compatibility: Annotated[
        str, typer.Option(help="none, or published = the released code, for comparison.")
    ] = "none",
    max_frames: MaxFrames = None,
    start: Annotated[
        int, typer.Option(min=0, help="Frames left out at the beginning.", rich_help_panel=SOURCE)
    ] = 0,
    stride: Annotated[
        int, typer.Option(min=1, help="Take each how manieth frame.", rich_help_panel=SOURCE)
    ] = 1,
    kind: Annotated[
        str | None,
        typer.Option(
            help="Of a directory, where its files do not tell, such as tum.", rich_help_panel=SOURCE
        ),
    ] = None,
    sequence: Annotated[
        str | None,
        typer.Option(help="One sequence of a path that holds several.", rich_help_panel=SOURCE),
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option(help="Image topic of a bag that holds several.", rich_help_panel=SOURCE),
    ] = None,
    depth_topic: Annotated[
        str | None,
        typer.Option(
            help="Depth topic of a bag that holds several; none = no depth.", rich_help_panel=SOURCE
        ),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            help="True poses of a bag: a topic, two TF frames as map->camera, a TUM, KITTI or "
            "EuRoC file, or none.",
            rich_help_panel=SOURCE,
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            help="Seconds by which stamps of image and truth may differ.", rich_help_panel=SOURCE
        ),
    ] = 0.02,
    intrinsics: Annotated[
        str | None,
        typer.Option(
            help="fx,fy,cx,cy in pixels, where the recording does not say.", rich_help_panel=SOURCE
        ),
    ] = None,
    depth_scale: Annotated[
        float | None,
        typer.Option(
            help="Steps per metre of 16-bit depth, where it is not as usual for the kind.",
            rich_help_panel=SOURCE,
        ),
    ] = None,
    room: Annotated[
        str | None,
        typer.Option(help="Of a synthetic: source.", rich_help_panel=SOURCE),
    ] = None,
    rpe_delta: Annotated[
        int,
        typer.Option(min=1, help="Frames of a relative pose error.", rich_help_panel=JUDGING),
    ] = 1,
    farthest: Annotated[
        float | None,
        typer.Option(
            help="Metres beyond which true depth is left out; default: none.",
            rich_help_panel=JUDGING,
        ),
    ] = None,
    cloud_points: Annotated[
        int,
        typer.Option(
            min=0, help="Points that clouds are compared with; 0 = not.", rich_help_panel=JUDGING
        ),
    ] = 20_000,
    fscore_distance: Annotated[
        float,
        typer.Option(help="Metres within which a point counts as found.", rich_help_panel=JUDGING),
    ] = 0.05,
    realtime: Annotated[
        bool,
        typer.Option(
            "--realtime",
            help="Replay at the recording's pace into the node's queue: drops and latency instead "
            "of every frame.",
            rich_help_panel=LIVE,
        ),
    ] = False,
    speed: Annotated[
        float | None,
        typer.Option(help="Factor on the pace of --realtime; default 1.", rich_help_panel=LIVE),
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            help="Settings of the cache to try, all combinations: 'budget=512,1024 bits=2,4'.",
            rich_help_panel=SWEEPING,
        ),
    ] = None,
    references: Annotated[
        str | None,
        typer.Option(
            help="Beside them: 'full cache', 'published', both (default, with a comma) or none.",
            rich_help_panel=SWEEPING,
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Directory of a sweep to go on with.", rich_help_panel=SWEEPING),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(
            min=1, help="Runs of the sweep that go side by side.", rich_help_panel=SWEEPING
        ),
    ] = 1,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster for the runs of the sweep: HOST:PORT, auto, or local.",
            rich_help_panel=SWEEPING,
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="A table of the paper instead of a SOURCE: video_depth, mono_depth, mv_recon or "
            "relpose.",
            rich_help_panel=PROTOCOLS,
        ),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Data set of the protocol.", rich_help_panel=PROTOCOLS)
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Directory of that data set.", rich_help_panel=PROTOCOLS)
    ] = None,
    prediction: Annotated[
        str | None,
        typer.Option(
            help="Of mv_recon: points = the point head (default), projection = depth and pose.",
            rich_help_panel=PROTOCOLS,
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="Of relpose on co3d: the directory with CATEGORY_test.jgz.",
            rich_help_panel=PROTOCOLS,
        ),
    ] = None,
    max_ate: Annotated[
        float | None, typer.Option(help="Metres, rmse after Sim(3).", rich_help_panel=LIMITS)
    ] = None,
    max_rpe: Annotated[
        float | None, typer.Option(help="Metres, rmse after Sim(3).", rich_help_panel=LIMITS)
    ] = None,
    max_rpe_rotation: Annotated[
        float | None, typer.Option(help="Degrees, rmse.", rich_help_panel=LIMITS)
    ] = None,
    max_absrel: Annotated[
        float | None, typer.Option(help="AbsRel, scale aligned.", rich_help_panel=LIMITS)
    ] = None,
    min_delta1: Annotated[
        float | None, typer.Option(help="Share with δ < 1.25, 0 to 1.", rich_help_panel=LIMITS)
    ] = None,
    max_accuracy: Annotated[
        float | None, typer.Option(help="Metres, mean, of the cloud.", rich_help_panel=LIMITS)
    ] = None,
    max_completeness: Annotated[
        float | None, typer.Option(help="Metres, mean, of the cloud.", rich_help_panel=LIMITS)
    ] = None,
    min_fscore: Annotated[
        float | None, typer.Option(help="0 to 1.", rich_help_panel=LIMITS)
    ] = None,
    max_bytes: Annotated[
        float | None, typer.Option(help="Bytes of the cache, peak.", rich_help_panel=LIMITS)
    ] = None,
    max_memory: Annotated[
        float | None, typer.Option(help="Bytes of the process, peak.", rich_help_panel=LIMITS)
    ] = None,
    max_latency: Annotated[
        float | None, typer.Option(help="Milliseconds, p95.", rich_help_panel=LIMITS)
    ] = None,
    min_fps: Annotated[
        float | None, typer.Option(help="Frames per second.", rich_help_panel=LIMITS)
    ] = None,
    max_dropped: Annotated[
        float | None, typer.Option(help="Share dropped live, 0 to 1.", rich_help_panel=LIMITS)
    ] = None,
) -> None:
    """Evaluate a recording with ground truth: numbers, curves, and a report to look at."""
    from dataclasses import replace

    from xsvggt_ros.commands.protocol import refuse_beside_protocol, run_protocol_command
    from xsvggt_ros.errors import ConfigurationError
    from xsvggt_ros.evaluation.request import EvaluationRequest, JudgingOptions, NetworkOptions
    from xsvggt_ros.evaluation.sources.base import SourceOptions

    cache = cache_settings(policy, budget, budget_mib, key_bits, value_bits)
    cache = replace(cache, compatibility=compatibility)
    network = NetworkOptions(
        checkpoint, preset, width, device, dtype, heads_dtype, weights, compiled
    )
    judging = JudgingOptions(rpe_delta, farthest, cloud_points, fscore_distance)
    limits = _limits(
        max_ate=max_ate,
        max_rpe=max_rpe,
        max_rpe_rotation=max_rpe_rotation,
        max_absrel=max_absrel,
        min_delta1=min_delta1,
        max_accuracy=max_accuracy,
        max_completeness=max_completeness,
        min_fscore=min_fscore,
        max_bytes=max_bytes,
        max_process_memory=max_memory,
        max_latency_p95=max_latency,
        min_fps=min_fps,
        max_dropped=max_dropped,
    )
    if protocol is not None:
        refuse_beside_protocol(
            {
                f"SOURCE '{source}'": source,
                "--start": start or None,
                "--kind": kind,
                "--sequence": sequence,
                "--topic": topic,
                "--depth-topic": depth_topic,
                "--truth": truth,
                "--tolerance": None if tolerance == SourceOptions.tolerance else tolerance,
                "--intrinsics": intrinsics,
                "--depth-scale": depth_scale,
                "--room": room,
                "a judging option": None if judging == JudgingOptions() else judging,
                "--realtime": realtime,
                "--speed": speed,
                "--sweep": sweep,
                "--references": references,
                "--resume": resume,
                "--jobs": None if jobs == 1 else jobs,
                "--cluster": cluster,
                "a limit": limits,
            }
        )
        sampling = {
            "frames": max_frames,
            "stride": None if stride == 1 else stride,
            "prediction": prediction,
            "annotations": annotations,
        }
        run_protocol_command(protocol, dataset, root, sampling, network, cache, output)
        return
    if source is None:
        raise ConfigurationError("there is no SOURCE to evaluate; give one, or --protocol")
    _refuse_without(
        "--protocol",
        {
            "--dataset": dataset,
            "--root": root,
            "--prediction": prediction,
            "--annotations": annotations,
        },
    )
    request = EvaluationRequest(
        source,
        SourceOptions(
            kind=kind,
            sequence=sequence,
            start=start,
            stride=stride,
            limit=max_frames,
            topic=topic,
            depth_topic=depth_topic,
            truth=truth,
            tolerance=tolerance,
            intrinsics=_four_numbers(intrinsics),
            depth_scale=depth_scale,
            room=room,
        ),
        network,
        cache,
        judging,
        _live(realtime, speed),
    )
    if sweep:
        _refuse_limits(limits)
        _run_sweep(request, sweep, references, output, resume, jobs, cluster)
    else:
        _refuse_without(
            "--sweep",
            {
                "--references": references,
                "--resume": resume,
                "--jobs": None if jobs == 1 else jobs,
                "--cluster": cluster,
            },
        )
        _run_once(request, output, limits)


def _four_numbers(text: str | None) -> tuple[float, float, float, float] | None:
    from xsvggt_ros.errors import ConfigurationError

    if text is None:
        return None
    try:
        fx, fy, cx, cy = map(float, text.split(","))
    except ValueError:
        raise ConfigurationError(
            f"--intrinsics '{text}' is not FX,FY,CX,CY, such as 481.2,-480,319.5,239.5"
        ) from None
    return fx, fy, cx, cy


def _live(realtime: bool, speed: float | None) -> LiveOptions | None:
    from xsvggt_ros.errors import ConfigurationError
    from xsvggt_ros.evaluation.request import LiveOptions

    if realtime:
        return LiveOptions(1.0 if speed is None else speed)
    if speed is not None:
        raise ConfigurationError(
            f"--speed {speed} means nothing where every frame is taken; add --realtime"
        )
    return None


def _limits(**given: float | None) -> tuple[Threshold, ...]:
    """Return the limits that were given; each name is max_ or min_ and a quantity."""
    from xsvggt_ros.evaluation.thresholds import Threshold

    return tuple(
        Threshold(name[4:], "max" if name.startswith("max_") else "min", value)
        for name, value in given.items()
        if value is not None
    )


def _refuse_limits(limits: tuple[Threshold, ...]) -> None:
    from xsvggt_ros.errors import ConfigurationError

    if limits:
        raise ConfigurationError(
            f"a limit on {limits[0].quantity} is for a single run, and --sweep makes many; leave "
            "one of the two out"
        )


def _refuse_without(needed: str, given: Mapping[str, Any]) -> None:
    from xsvggt_ros.errors import ConfigurationError

    for name, value in given.items():
        if value is not None:
            raise ConfigurationError(f"{name} {value} means nothing without {needed}; add it")


def _run_once(request: EvaluationRequest, output: Path, limits: tuple[Threshold, ...]) -> None:
    from datetime import datetime

    from xsvggt_ros.errors import PartlyWrittenError
    from xsvggt_ros.evaluation.directory import new_directory
    from xsvggt_ros.evaluation.files import with_verdicts, write_evaluation
    from xsvggt_ros.evaluation.runner import evaluate as run
    from xsvggt_ros.evaluation.thresholds import FAILED
    from xsvggt_ros.geometry.files import require_writable
    from xsvggt_ros.progress import run_progress

    require_writable(output)
    with stop_request() as stop, run_progress(console) as progress:
        evaluation = run(request, stop=stop, progress=progress)
        progress(evaluation.counts.taken, evaluation.counts.taken, "writing")
        directory = new_directory(output, evaluation.name, datetime.now())
        evaluation = with_verdicts(evaluation, limits)
        failure: PartlyWrittenError | None = None
        try:
            write_evaluation(evaluation, directory, limits)
        except PartlyWrittenError as error:
            failure = error
    _say(evaluation)
    if failure is not None:
        say_lines([f"Written: {each}" for each in failure.written], "green")
        raise failure
    kept = all(verdict.kept for verdict in evaluation.verdicts)
    interrupted = evaluation.state == "interrupted"
    end_run(directory, interrupted=interrupted, code=0 if kept else FAILED)


def _say(evaluation: Evaluation) -> None:
    """Say the few numbers that people look for."""
    from rich.table import Table
    from rich.text import Text

    from xsvggt_ros.evaluation.report.words import headlines, where_frames_went

    table = Table.grid(padding=(0, 2))
    for headline in headlines(evaluation, evaluation.metrics()):
        table.add_row(headline.label, Text(headline.value, "bold"), Text(headline.note, "dim"))
    console.print(Text(f"\n{evaluation.name}", "bold"), end=": ")
    console.print(where_frames_went(evaluation), markup=False, highlight=False)
    console.print(table)
    say_lines([evaluation.association.words], "dim")
    if evaluation.state != "complete":
        say_lines([f"{evaluation.state}: {evaluation.reason}"], "yellow")
    for verdict in evaluation.verdicts:
        words = f"{'kept' if verdict.kept else 'BROKEN'}: {verdict.words}"
        say_lines([words], "green" if verdict.kept else "bold red")
    say_lines((f"not judged: {missing}" for missing in evaluation.scores.missing), "dim")


def _run_sweep(
    request: EvaluationRequest,
    texts: list[str],
    references: str | None,
    output: Path,
    resume: Path | None,
    jobs: int,
    cluster: str | None,
) -> None:
    from datetime import datetime

    from xsvggt_ros.errors import SourceError
    from xsvggt_ros.evaluation.directory import new_directory
    from xsvggt_ros.evaluation.report.sweep_page import write_sweep
    from xsvggt_ros.evaluation.runner import Progress
    from xsvggt_ros.evaluation.source import open_source
    from xsvggt_ros.evaluation.sweep import (
        REFERENCES,
        SWEEP,
        Point,
        parse_axes,
        points,
        run_sweep,
    )
    from xsvggt_ros.geometry.files import require_writable
    from xsvggt_ros.progress import sweep_progress

    wanted = tuple(each.strip() for each in references.split(",")) if references else REFERENCES
    chosen = points(parse_axes(texts), request.cache, () if references == "none" else wanted)
    if resume is not None and not (resume / SWEEP).is_file():
        raise SourceError(f"'{resume}' holds no {SWEEP}, so there is nothing to go on with")
    require_writable(output)
    name = open_source(request.source, request.options).name  # what cannot be read fails here
    directory = (
        resume.resolve() if resume else new_directory(output, f"{name}_sweep", datetime.now())
    )
    with (
        stop_request() as stop,
        _place_to_run(cluster, request.network.device, jobs) as (run, jobs),
        sweep_progress(console, len(chosen)) as show,
    ):

        def progress(number: int, point: Point) -> Progress:
            return show(number, point.label)

        table = run_sweep(
            request,
            chosen,
            directory,
            stop=stop,
            progress=progress,
            written=lambda sweep: write_sweep(sweep, directory),
            jobs=jobs,
            run=run,
        )
    _say_sweep(table)
    failed = any(row.state == "failed" for row in table.rows)
    end_run(directory, interrupted=table.interrupted, code=1 if failed else 0)


@contextmanager
def _place_to_run(address: str | None, device: str, jobs: int) -> Iterator[tuple[Run | None, int]]:
    """Yield who runs a run of a sweep, None for this machine, and how many go at once."""
    from xsvggt_ros.evaluation.cluster import Cluster

    if address is None:
        yield None, jobs
        return
    cluster = Cluster(address, device)
    try:
        yield cluster.evaluate, cluster.slots if jobs == 1 else min(jobs, cluster.slots)
    finally:
        cluster.close()


FEW_NUMBERS = ("ate", "absrel", "bytes", "latency_p50")
"""Of a sweep, on the terminal; the report has all."""


def _say_sweep(sweep: Sweep) -> None:
    from xsvggt_ros.evaluation.catalogue import BY_NAME

    chosen = [BY_NAME[name] for name in FEW_NUMBERS]
    rows = (
        (row.label, row.state, *(each.show(row.values.get(each.name)) for each in chosen))
        for row in sweep.rows
    )
    say_table(("run", "state", *(each.label for each in chosen)), rows, words=2)
    say_lines(sweep.warnings, "yellow")
