# SPDX-License-Identifier: Apache-2.0
"""`xsvggt evaluate` and `xsvggt compare`: numbers and a report of a recording, and two of them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.commands.options import (
    CACHE,
    CHAIN,
    NETWORK,
    SCORING,
    SELECTION,
    MadeBy,
    MaxFrames,
    Refinement,
    Threads,
    takes_options,
)
from xsvggt_ros.commands.terminal import (
    console,
    end_run,
    print_lines,
    print_table,
    print_whole,
    run_progress,
    sweep_progress,
)
from xsvggt_ros.errors import ConfigurationError, PartlyWrittenError, SourceError
from xsvggt_ros.evaluation.metric_registry import BY_NAME, FAILED, limits_named
from xsvggt_ros.evaluation.request import (
    EvaluationRequest,
    LiveOptions,
    NetworkOptions,
    ScoringOptions,
    SourceOptions,
)
from xsvggt_ros.process import stop_request
from xsvggt_ros.stream.chain_settings import ChainSettings

if TYPE_CHECKING:
    from xsvggt_ros.evaluation.evaluation import Evaluation
    from xsvggt_ros.evaluation.metric_registry import Threshold
    from xsvggt_ros.evaluation.protocols import ProtocolTable
    from xsvggt_ros.evaluation.protocols.base import ProtocolOptions
    from xsvggt_ros.evaluation.results import Comparison
    from xsvggt_ros.evaluation.sweep import Sweep

MOVED = {
    "--sweep": "xsvggt evaluate sweep SOURCE budget=512,1024 bits=2,4",
    "--protocol": "xsvggt evaluate protocol video_depth bonn ROOT",
}
"""Options of earlier versions, and the subcommands that took their place."""


class DefaultRun(TyperGroup):
    """Takes `evaluate SOURCE` for `evaluate run SOURCE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the subcommand that is left out."""
        if args and args[0] not in (*self.commands, "--help"):
            for word in args:
                if spelling := MOVED.get(word.partition("=")[0]):
                    raise ConfigurationError(f"{word} is a subcommand now: {spelling}")
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=DefaultRun,
    no_args_is_help=True,
    help="Evaluate a recording with ground truth: numbers, curves, and a report to look at.",
)

SourceName = Annotated[
    str,
    typer.Argument(help="Bag, directory of a data set, or synthetic:NAME of a rendered sequence."),
]
Output = Annotated[
    Path,
    typer.Option("--output", "-o", help="Directory in which each run gets a directory of its own."),
]
LIVE, LIMITS = "Live", "Limits: exit code 3 where one is broken"


def requested(
    source: SourceName,
    *,
    network: Annotated[NetworkOptions, NETWORK],
    threads: Threads = 0,
    cache: Annotated[CacheSettings, CACHE],
    chain: Annotated[ChainSettings, CHAIN],
    refinement: Refinement = "auto",
    selection: Annotated[SourceOptions, SELECTION],
    scoring: Annotated[ScoringOptions, SCORING],
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
) -> EvaluationRequest:
    """Return the evaluation that options ask for.

    Raises:
        ConfigurationError: a speed without ``--realtime``, or a value out of range.

    """
    live = None
    if realtime:
        live = LiveOptions(1.0 if speed is None else speed)
    elif speed is not None:
        raise ConfigurationError(
            f"--speed {speed} means nothing where every frame is taken; add --realtime"
        )
    return EvaluationRequest(source, selection, network, cache, scoring, live, chain, refinement)


Request = Annotated[EvaluationRequest, MadeBy(requested)]
Limit = list[str] | None


@app.command()
@takes_options
def run(
    source: SourceName,
    output: Output = Path("results"),
    *,
    request: Request,
    most: Annotated[
        Limit,
        typer.Option(
            "--max",
            metavar="NAME=VALUE",
            help="The most that a number may be, such as ate_sim3=0.05, abs_rel_l1=0.1 or "
            "bytes=2e6; may be given again. `xsvggt compare` lists the names.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
    least: Annotated[
        Limit,
        typer.Option(
            "--min",
            metavar="NAME=VALUE",
            help="The least that a number may be, such as delta_1_l1=0.9 or fps=10.",
            rich_help_panel=LIMITS,
        ),
    ] = None,
) -> None:
    """Evaluate a recording with ground truth once; `evaluate SOURCE` for short."""
    limits = limits_named(most or (), least or ())
    _run_once(request, output, limits)


@app.command()
@takes_options
def sweep(
    source: SourceName,
    axes: Annotated[
        list[str],
        typer.Argument(
            help="Settings of the cache with the values to try, all combinations: "
            "budget=512,1024 bits=2,4."
        ),
    ],
    output: Output = Path("results"),
    *,
    references: Annotated[
        str | None,
        typer.Option(
            help="Runs to compare with: 'full cache', 'published', both (default, with a "
            "comma) or none."
        ),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Directory of a sweep to continue.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs in parallel.")] = 1,
    cluster: Annotated[
        str | None,
        typer.Option(help="Ray cluster for the runs: HOST:PORT, auto, or local."),
    ] = None,
    request: Request,
) -> None:
    """Evaluate a recording with many settings of the cache: what accuracy costs."""
    _run_sweep(request, axes, references, output, resume, jobs, cluster)


@app.command()
@takes_options
def protocol(
    name: Annotated[
        str, typer.Argument(help="Table: video_depth, mono_depth, mv_recon or relpose.")
    ],
    dataset: Annotated[str, typer.Argument(help="Data set of the protocol.")],
    root: Annotated[Path, typer.Argument(help="Directory of the data set.")],
    output: Output = Path("results"),
    *,
    max_frames: MaxFrames = None,
    stride: Annotated[
        int | None,
        typer.Option(min=1, help="Take every nth frame, for the long tables."),
    ] = None,
    prediction: Annotated[
        str | None,
        typer.Option(
            help="For mv_recon: points = the point head (default), projection = depth and pose."
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="For relpose on co3d: the directory with CATEGORY_test.jgz."),
    ] = None,
    network: Annotated[NetworkOptions, NETWORK],
    threads: Threads = 0,
    cache: Annotated[CacheSettings, CACHE],
) -> None:
    """Measure a table of the paper, sequence by sequence."""
    from xsvggt_ros.evaluation.protocols.base import ProtocolOptions

    options = ProtocolOptions(dataset, root, max_frames, stride, prediction, annotations)
    _run_protocol(name, options, network, cache, output)


def _run_once(request: EvaluationRequest, output: Path, limits: tuple[Threshold, ...]) -> None:
    from xsvggt_ros.evaluation.results import new_directory, with_verdicts, write_evaluation
    from xsvggt_ros.evaluation.runner import evaluate
    from xsvggt_ros.geometry.files import require_writable

    require_writable(output)
    with stop_request() as stop, run_progress(console) as progress:
        evaluation = evaluate(request, stop=stop, progress=progress)
        progress(evaluation.counts.taken, evaluation.counts.taken, "writing")
        directory = new_directory(output, evaluation.name, datetime.now())
        evaluation = with_verdicts(evaluation, limits)
        failure: PartlyWrittenError | None = None
        try:
            write_evaluation(evaluation, directory, limits)
        except PartlyWrittenError as error:
            failure = error
    _print_evaluation(evaluation)
    if failure is not None:
        print_lines([f"Written: {each}" for each in failure.written], "green")
        raise failure
    kept = all(verdict.kept for verdict in evaluation.verdicts)
    interrupted = evaluation.state == "interrupted"
    end_run(directory, interrupted=interrupted, code=0 if kept else FAILED)


def _print_evaluation(evaluation: Evaluation) -> None:
    """Print the numbers that people look for."""
    from rich.table import Table
    from rich.text import Text

    from xsvggt_ros.evaluation.report import headlines, where_frames_went

    table = Table.grid(padding=(0, 2))
    for headline in headlines(evaluation, evaluation.metrics()):
        table.add_row(headline.label, Text(headline.value, "bold"), Text(headline.note, "dim"))
    console.print(Text(f"\n{evaluation.name}", "bold"), end=": ")
    console.print(where_frames_went(evaluation), markup=False, highlight=False)
    console.print(table)
    print_lines([evaluation.association.words], "dim")
    if evaluation.state != "complete":
        print_lines([f"{evaluation.state}: {evaluation.reason}"], "yellow")
    for verdict in evaluation.verdicts:
        words = f"{'kept' if verdict.kept else 'BROKEN'}: {verdict.words}"
        print_lines([words], "green" if verdict.kept else "bold red")
    print_lines((f"not measured: {missing}" for missing in evaluation.scores.missing), "dim")


def _run_sweep(
    request: EvaluationRequest,
    texts: list[str],
    references: str | None,
    output: Path,
    resume: Path | None,
    jobs: int,
    cluster: str | None,
) -> None:
    from xsvggt_ros.evaluation.isolated import place_to_run
    from xsvggt_ros.evaluation.results import new_directory
    from xsvggt_ros.evaluation.runner import Progress
    from xsvggt_ros.evaluation.sources import open_source
    from xsvggt_ros.evaluation.sweep import (
        REFERENCES,
        SWEEP,
        Point,
        parse_axes,
        points,
        run_sweep,
    )
    from xsvggt_ros.geometry.files import require_writable

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
        place_to_run(cluster, request.network.device, jobs) as (run, jobs),
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
            jobs=jobs,
            run=run,
        )
    _print_sweep(table)
    failed = any(row.state == "failed" for row in table.rows)
    end_run(directory, interrupted=table.interrupted, code=1 if failed else 0)


FEW_NUMBERS = ("ate_sim3", "abs_rel_l1", "bytes", "latency_p50")
"""Of a sweep, on the terminal; the report has all."""


def _print_sweep(sweep: Sweep) -> None:
    chosen = [BY_NAME[name] for name in FEW_NUMBERS]
    rows = (
        (row.label, row.state, *(each.show(row.values.get(each.name)) for each in chosen))
        for row in sweep.rows
    )
    print_table(("run", "state", *(each.label for each in chosen)), rows, words=2)
    print_lines(sweep.warnings, "yellow")


def _run_protocol(
    name: str,
    options: ProtocolOptions,
    network: NetworkOptions,
    cache: CacheSettings,
    output: Path,
) -> None:
    """Run a protocol, write its table after each sequence, and print where it is."""
    from xsvggt_ros.evaluation.protocols import run_protocol, specification_of
    from xsvggt_ros.evaluation.results import new_directory
    from xsvggt_ros.geometry.files import require_writable

    specification = specification_of(name, options)
    specification.names(options)  # a root without sequences fails here
    require_writable(output)
    directory = new_directory(output, f"{name}_{options.dataset}", datetime.now())
    with stop_request() as stop, run_progress(console) as progress:
        table = run_protocol(
            specification,
            options,
            network,
            cache,
            directory,
            stop=stop,
            progress=progress,
        )
    _print_protocol(table)
    end_run(directory, interrupted=table.interrupted, code=1 if table.failed else 0)


def _print_protocol(table: ProtocolTable) -> None:
    from xsvggt_ros.evaluation.protocols import protocol_table

    made = protocol_table(table)
    title = f"{table.protocol}, {table.dataset}"
    print_table(made.heads[:-1], (row[:-1] for row in made.rows), words=1, title=title)
    print_lines((f"{failed.sequence}: {failed.error}" for failed in table.failed), "red")
    print_lines(table.remarks, "yellow")


COLORS = {"better": "green", "worse": "red", "same": "dim", "": ""}


@takes_options
def compare(
    first: Annotated[Path, typer.Argument(help="Result directory of `xsvggt evaluate`.")],
    second: Annotated[Path, typer.Argument(help="Another one, to compare with it.")],
    *,
    max_worse: Annotated[
        float | None,
        typer.Option(min=0, help="Percent by which a number may get worse; else exit code 3."),
    ] = None,
    quantities: Annotated[
        str,
        typer.Option(
            help="Numbers that --max-worse looks at, such as ate_sim3,abs_rel_l1,bytes; default: "
            "all that do not depend on the machine."
        ),
    ] = "",
) -> None:
    """Compare two result directories: what got better, what got worse, which settings differ."""
    from xsvggt_ros.evaluation.results import compare as compared

    if quantities and max_worse is None:
        raise ConfigurationError(
            f"--quantities {quantities} means nothing without --max-worse; give that, too"
        )
    comparison = compared(first, second)
    _show(comparison)
    if max_worse is None:
        return
    names = tuple(name for name in quantities.split(",") if name)
    comparison.require_alike(names)
    broken = comparison.broken(max_worse / 100, names)
    for change in broken:
        console.print(
            f"[red]worse by more than {max_worse:g} %:[/] {change.quantity.label}", highlight=False
        )
    if broken:
        raise typer.Exit(FAILED)


def _show(comparison: Comparison) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(" → ".join(dict.fromkeys(comparison.names))))
    for head in ("", "first", "second", "change"):
        table.add_column(head, justify="left" if not head else "right", overflow="fold")
    for change in comparison.changes:
        relative = "" if change.relative is None else f"{100 * change.relative:+.1f} %"
        color = COLORS[change.verdict]
        show = change.quantity.show
        table.add_row(
            change.quantity.label,
            show(change.before),
            show(change.after),
            Text(f"{relative} {change.verdict}".strip(), color),
        )
    print_whole(table)
    for name, (before, after) in comparison.settings.items():
        console.print(f"{name}: {before} → {after}", markup=False, highlight=False)
    print_lines(comparison.caveats, "yellow")
