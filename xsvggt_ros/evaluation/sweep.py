# SPDX-License-Identifier: Apache-2.0
"""The same evaluation under many settings of the cache: what accuracy costs in bytes and time."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import torch
from markupsafe import Markup

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError, SourceError, XsvggtError
from xsvggt_ros.evaluation.isolated import Run, evaluate_isolated
from xsvggt_ros.evaluation.metric_registry import BY_NAME, MIB, QUANTITIES
from xsvggt_ros.evaluation.report import environment, markdown
from xsvggt_ros.evaluation.report.charts import Dot, pareto
from xsvggt_ros.evaluation.report.tables import Table
from xsvggt_ros.evaluation.request import EvaluationRequest
from xsvggt_ros.evaluation.results import REPORT, SUMMARY, write_json, write_text, yaml_text
from xsvggt_ros.evaluation.runner import Progress

SHORT_NAMES = {"budget": ("budget_tokens",), "bits": ("key_bits", "value_bits")}
"""Names of a sweep that are not those of CacheSettings, and the fields that they set."""

FULL, PUBLISHED = "full cache", "published"
REFERENCES = (FULL, PUBLISHED)
SWEEP = "sweep.json"


@dataclass(frozen=True)
class Axis:
    """One setting and the values that it takes."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Point:
    """One run of a sweep."""

    label: str
    group: str
    cache: CacheSettings


@dataclass(frozen=True)
class Row:
    """What came out of one run.

    Attributes:
        label: its settings, as in the sweep.
        group: policy or reference that it belongs to.
        state: ``complete``, ``truncated``, ``interrupted`` or ``failed``.
        note: why it is not complete, or what else a reader must know.
        directory: with its own report, beside the table.
        cache: its settings in full.
        values: quantities of the catalogue; those not measured are missing.
        weights: hash of the weights that ran.

    """

    label: str
    group: str
    state: str
    note: str
    directory: str
    cache: dict[str, Any]
    values: dict[str, float]
    weights: str = ""

    @property
    def finished(self) -> bool:
        """Whether this run is done."""
        return self.state in ("complete", "truncated")


@dataclass(frozen=True)
class Sweep:
    """All runs of a sweep, in the order of the table."""

    name: str
    fingerprint: str
    rows: tuple[Row, ...]
    interrupted: bool = False

    @property
    def warnings(self) -> list[str]:
        """What a reader of the table must know."""
        failed = [row.label for row in self.rows if row.state == "failed"]
        lines = [f"{len(failed)} runs failed: {', '.join(failed)}"] if failed else []
        if len({row.weights for row in self.rows if row.weights}) > 1:
            lines.append("the weights changed between runs of this sweep; do not compare its rows")
        if self.interrupted:
            lines.append("the sweep was stopped; the same command with --resume goes on with it")
        return lines


def parse_axes(texts: Sequence[str]) -> list[Axis]:
    """Read ``budget=512,1024 key_bits=2,4``, in one text or several.

    Raises:
        ConfigurationError: a setting that the cache does not have, or no values.

    """
    axes: dict[str, Axis] = {}
    for word in itertools.chain.from_iterable(text.split() for text in texts):
        name, equals, values = word.partition("=")
        chosen = tuple(dict.fromkeys(value for value in values.split(",") if value))
        if not equals or not chosen:
            raise ConfigurationError(
                f"'{word}' is no axis of a sweep; write NAME=VALUE,VALUE such as budget=512,1024"
            )
        if name in axes:
            raise ConfigurationError(f"the sweep names '{name}' twice; list all values at once")
        axes[name] = Axis(name, tuple(_value(name, value) for value in chosen))
    return list(axes.values())


def _value(name: str, text: str) -> Any:
    """Return a value in the type that the field has."""
    kinds = {field.name: str(field.type) for field in fields(CacheSettings)}
    named = SHORT_NAMES.get(name, (name,))
    if named[0] not in kinds:
        known = ", ".join([*SHORT_NAMES, *kinds])
        raise ConfigurationError(f"the cache has no setting '{name}'; choose one of {known}")
    kind = {"int": int, "float": float}.get(kinds[named[0]], str)
    try:
        return kind(text)
    except ValueError:
        raise ConfigurationError(f"{name}={text} is not of type {kinds[named[0]]}") from None


def points(axes: Sequence[Axis], base: CacheSettings, references: Sequence[str]) -> list[Point]:
    """Return the references and every combination of the axes' values.

    ``full cache`` keeps every token as it comes. ``published`` is the released code, its simulated
    4-bit quantization included, once for each budget of the sweep.

    Args:
        axes: settings and their values.
        base: settings that no axis names.
        references: of REFERENCES, those wanted.

    Raises:
        ConfigurationError: an impossible combination, or an unknown reference.

    """
    chosen = list(_references(axes, base, references))
    for values in itertools.product(*(axis.values for axis in axes)):
        settings = {
            field: value
            for axis, value in zip(axes, values, strict=True)
            for field in SHORT_NAMES.get(axis.name, (axis.name,))
        }
        cache = replace(base, **settings)
        label = " ".join(
            f"{axis.name}={value:g}" if isinstance(value, float) else f"{axis.name}={value}"
            for axis, value in zip(axes, values, strict=True)
        )
        chosen.append(Point(label, cache.policy, cache))
    return chosen


def _references(
    axes: Sequence[Axis], base: CacheSettings, references: Sequence[str]
) -> Iterator[Point]:
    unknown = set(references) - set(REFERENCES)
    if unknown:
        raise ConfigurationError(
            f"{', '.join(sorted(unknown))} is no reference; choose of {', '.join(REFERENCES)}"
        )
    if FULL in references:
        yield Point(FULL, FULL, CacheSettings("none", key_bits=16, value_bits=16))
    if PUBLISHED in references:
        budgets = next((axis.values for axis in axes if axis.name == "budget"), None)
        for budget in budgets or (base.budget_tokens,):
            cache = CacheSettings("xstreamvggt", budget_tokens=budget, compatibility="published")
            yield Point(f"{PUBLISHED} budget={budget}", PUBLISHED, cache)


def run_sweep(
    request: EvaluationRequest,
    chosen: Sequence[Point],
    directory: Path,
    *,
    stop: Event,
    progress: Callable[[int, Point], Progress],
    jobs: int = 1,
    run: Run | None = None,
) -> Sweep:
    """Run every point that ``directory`` does not hold yet; the table is written after each.

    Args:
        request: what is evaluated; its cache gives way to that of each point.
        chosen: the runs.
        directory: of the sweep; one that holds a sweep of the same request goes on.
        stop: ends the sweep after the frame in hand.
        progress: for a run's number and point returns what its progress is told to; called in the
            thread that waits for the run.
        jobs: runs side by side, each in a process of its own with its share of the processor's
            cores.
        run: who runs one; None = a process of this machine.

    Raises:
        ConfigurationError: the directory holds a sweep of something else, or fewer than one job.

    """
    if jobs < 1:
        raise ConfigurationError(f"--jobs {jobs}: at least one run goes at a time")
    known = _known_rows(request, directory)
    write_text(directory / "config.yaml", yaml_text(request.resolved()))
    rows = {number: known.get(_key(asdict(point.cache))) for number, point in enumerate(chosen)}
    sweep = Sweep(request.source, request.fingerprint("cache"), ())

    def write() -> None:
        nonlocal sweep
        there = tuple(
            replace(row, label=point.label, group=point.group)
            for number, point in enumerate(chosen)
            if (row := rows[number]) is not None
        )
        sweep = replace(sweep, rows=there, interrupted=stop.is_set())
        write_sweep(sweep, directory)

    threads = max(1, torch.get_num_threads() // jobs) if run is None and jobs > 1 else 0
    do = partial(run or evaluate_isolated, threads=threads)
    if None not in rows.values():
        write()
    with ThreadPoolExecutor(jobs) as pool:
        waiting = {
            pool.submit(
                _run, request, point, directory, stop, partial(progress, number), do
            ): number
            for number, point in enumerate(chosen)
            if rows[number] is None
        }
        for future in as_completed(waiting):
            rows[waiting[future]] = future.result()
            write()
    return sweep


def _run(
    request: EvaluationRequest,
    point: Point,
    directory: Path,
    stop: Event,
    begin: Callable[[Point], Progress],
    do: Run,
) -> Row | None:
    """Return the row of one run; None where it was stopped before its first result."""
    if stop.is_set():
        return None
    progress = begin(point)
    place = directory / "runs" / point.label.replace(" ", "_")
    settings = asdict(point.cache)
    name = place.relative_to(directory).as_posix()
    try:
        metrics = do(replace(request, cache=point.cache), place, stop, progress)
    except XsvggtError as error:
        return Row(point.label, point.group, "failed", str(error), name, settings, {})
    except KeyboardInterrupt:
        if not stop.is_set():
            raise
        return None
    return Row(
        point.label, point.group, metrics["state"], _note(metrics), name, settings,
        _values(metrics), metrics["provenance"]["weights"]["sha256"],
    )  # fmt: skip


def _values(metrics: Mapping[str, Any]) -> dict[str, float]:
    found = {quantity.name: quantity.value(metrics) for quantity in QUANTITIES}
    return {name: value for name, value in found.items() if value is not None}


def _note(metrics: Mapping[str, Any]) -> str:
    frames = metrics["frames"]
    parts = [metrics["reason"]] if metrics["reason"] else []
    if frames["refused"]:
        parts.append(f"{frames['refused']} frames refused")
    if frames["sessions"] > 1:
        parts.append(f"{frames['sessions']} sessions, {frames['scored']} frames scored")
    return "; ".join(parts)


def _known_rows(request: EvaluationRequest, directory: Path) -> dict[str, Row]:
    """Return the rows of this sweep that a directory holds already."""
    if not (directory / SWEEP).is_file():
        return {}
    sweep = read_sweep(directory)
    if sweep.fingerprint != request.fingerprint("cache"):
        raise ConfigurationError(
            f"'{directory}' holds a sweep of '{sweep.name}' with other options than these; give "
            "the same ones, or leave --resume out"
        )
    return {_key(row.cache): row for row in sweep.rows if row.finished}


def _key(cache: Mapping[str, Any]) -> str:
    return json.dumps(cache, sort_keys=True)


def read_sweep(directory: Path) -> Sweep:
    """Read the table of a sweep.

    Raises:
        SourceError: there is none, or it is damaged.

    """
    try:
        held = json.loads((directory / SWEEP).read_text(encoding="utf-8"))
        rows = tuple(Row(**row) for row in held.pop("rows"))
        return Sweep(**held, rows=rows)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SourceError(f"'{directory / SWEEP}' cannot be read as a sweep: {error}") from error


def table_csv(sweep: Sweep) -> str:
    """Return the table with one line per run."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["run", "state", "note", *BY_NAME])
    for row in sweep.rows:
        writer.writerow([row.label, row.state, row.note, *(row.values.get(n, "") for n in BY_NAME)])
    return stream.getvalue()


ERRORS = ("ate_sim3", "abs_rel_l1", "accuracy_icp")


COSTS = (("bytes", 1 / MIB, "cache, MiB"), ("latency_p50", 1.0, "latency p50, ms"))


COLUMNS = (
    "ate_sim3", "rpe_translation_sim3", "abs_rel_l1", "delta_1_l1", "accuracy_icp",
    "completeness_icp", "f_score_icp",
    "bytes", "latency_p50", "latency_p95", "fps", "process_memory", "device_memory", "dropped",
)  # fmt: skip


def sweep_table(sweep: Sweep) -> Table:
    """Return the table; columns that no run has a value for are left out."""
    shown = [name for name in COLUMNS if any(name in row.values for row in sweep.rows)]
    rows = [
        (row.label, row.state, *(BY_NAME[name].show(row.values.get(name)) for name in shown),
         row.note)
        for row in sweep.rows
    ]  # fmt: skip
    heads = ("run", "state", *(BY_NAME[name].label for name in shown), "note")
    return Table("Runs", heads, rows)


def pareto_charts(sweep: Sweep) -> list[str]:
    """Draw each error that was measured against bytes and against latency."""
    return [
        chart
        for error in ERRORS
        for cost, factor, label in COSTS
        if (chart := _chart(sweep, error, cost, factor, label))
    ]


def _chart(sweep: Sweep, error: str, cost: str, factor: float, label: str) -> str | None:
    dots = [
        Dot(_short(row), factor * row.values[cost], row.values[error], row.group,
            row.group in REFERENCES)
        for row in sweep.rows
        if error in row.values and cost in row.values
    ]  # fmt: skip
    if not dots:
        return None
    up = BY_NAME[error].label
    return pareto(f"{up} against {label}", label, up, dots)


def _short(row: Row) -> str:
    """Return a label without what its group says."""
    words = [word for word in row.label.split() if not word.startswith("policy=")]
    return " ".join(word for word in words if word != row.group) or row.label


def sweep_page(sweep: Sweep) -> str:
    """Return the report of a sweep as HTML."""
    return (
        environment()
        .get_template("sweep.html.j2")
        .render(
            name=sweep.name,
            rows=sweep.rows,
            table=sweep_table(sweep),
            charts=[Markup(chart) for chart in pareto_charts(sweep)],
            warnings=sweep.warnings,
        )
    )


def sweep_summary(sweep: Sweep) -> str:
    """Return the sweep in Markdown."""
    lines = [f"# Sweep over {sweep.name}"]
    lines += ["", *(f"- {each}" for each in sweep.warnings)] if sweep.warnings else []
    return "\n".join([*lines, "", *markdown(sweep_table(sweep))]) + "\n"


def write_sweep(sweep: Sweep, directory: Path) -> None:
    """Write sweep.json, and report.html, summary.md and sweep.csv beside it."""
    write_json(directory / SWEEP, asdict(sweep))
    write_text(directory / REPORT, sweep_page(sweep))
    write_text(directory / SUMMARY, sweep_summary(sweep))
    write_text(directory / "sweep.csv", table_csv(sweep))
