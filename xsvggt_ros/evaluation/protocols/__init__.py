# SPDX-License-Identifier: Apache-2.0
"""Runs a published protocol and writes its table after each sequence.

What is sampled, masked, aligned and averaged stands in :mod:`xsvggt_ros.evaluation.protocols`; here
is what all protocols share: one network, rows that are written as they come, progress, and a stop
that leaves the rows that are done.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any

import yaml

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.evaluation import provenance
from xsvggt_ros.evaluation.protocols.base import (
    Column,
    ProtocolOptions,
    ProtocolRow,
    Specification,
    mean_row,
)
from xsvggt_ros.evaluation.protocols.mv_recon import MultiViewReconstruction
from xsvggt_ros.evaluation.protocols.relpose import RelativePose
from xsvggt_ros.evaluation.protocols.video_depth import MonoDepth, VideoDepth
from xsvggt_ros.evaluation.provenance import collecting_warnings
from xsvggt_ros.evaluation.report import environment, markdown
from xsvggt_ros.evaluation.report.tables import Table
from xsvggt_ros.evaluation.request import NetworkOptions
from xsvggt_ros.evaluation.results import REPORT, SUMMARY, write_json, write_text, yaml_text
from xsvggt_ros.evaluation.runner import Progress
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.stream.frame import FrameResult
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings

PROTOCOL = "protocol.json"


@dataclass(frozen=True)
class ProtocolTable:
    """A protocol's results so far.

    Attributes:
        settings: everything that decides the numbers.
        provenance: versions, weights and machine.
        total: sequences of the data set; None where only running tells.
        mean: over the sequences that did not fail; None where there is none yet.
        warnings: what the package warned of meanwhile.

    """

    protocol: str
    dataset: str
    started: str
    cache: str
    weights: str
    columns: tuple[Column, ...]
    notes: tuple[str, ...]
    settings: dict[str, Any]
    provenance: dict[str, Any]
    total: int | None
    rows: tuple[ProtocolRow, ...] = ()
    mean: ProtocolRow | None = None
    warnings: tuple[str, ...] = ()
    interrupted: bool = False

    @property
    def failed(self) -> list[ProtocolRow]:
        """Rows without numbers."""
        return [row for row in self.rows if row.error is not None]

    @property
    def remarks(self) -> list[str]:
        """What a reader of the mean must know."""
        lines = []
        if self.failed:
            count = f"{len(self.failed)} of {len(self.rows)}"
            lines.append(f"{count} sequences failed; the mean is over the rest")
        if self.interrupted:
            total = "" if self.total is None else f" of {self.total}"
            lines.append(f"the run was stopped after {len(self.rows)}{total} sequences")
        return [*lines, *self.warnings]


def run_protocol(
    specification: Specification,
    options: ProtocolOptions,
    chosen: NetworkOptions,
    cache: CacheSettings,
    directory: Path,
    *,
    stop: Event,
    progress: Progress,
) -> ProtocolTable:
    """Run all sequences of a data set.

    Args:
        specification: which protocol.
        options: data set and sampling, checked already.
        chosen: the network; without a width the paper's is used.
        cache: how the cache behaves.
        directory: of the results.
        stop: ends the run before the next frame; the sequence in hand is not counted then.
        progress: is told the frames done, and which sequence they belong to.

    Raises:
        XsvggtError: settings, weights or data that are impossible.

    """
    width = chosen.width or specification.width
    names = specification.names(options)
    settings = {
        "protocol": specification.name,
        "options": options.plain(),
        "network": asdict(replace(chosen, width=width)),
        "cache": asdict(cache),
    }
    write_text(directory / "config.yaml", yaml_text(settings))
    with collecting_warnings() as log:
        network = chosen.load()
        head = specification.needs_points(options)
        watch = _Watch(stop, progress, names)
        engine = WatchedEngine(
            network, ReconstructorSettings(width, cache, point_head=head), watch.frame
        )
        table = _empty(specification, options, chosen, cache, settings, network, names)
        for rows in _growing(specification.rows(engine, options), watch):
            table = replace(table, rows=rows, mean=_mean(rows), warnings=tuple(log.lines()))
            write_protocol(table, directory)
        if stop.is_set():
            table = replace(table, interrupted=True)
            write_protocol(table, directory)
    return table


def _growing(rows: Iterator[ProtocolRow], watch: _Watch) -> Iterator[tuple[ProtocolRow, ...]]:
    """Yield the rows so far after each new one, until they end or the run is stopped."""
    done: tuple[ProtocolRow, ...] = ()
    while not watch.stop.is_set():
        try:
            row = next(rows, None)
        except KeyboardInterrupt:
            if not watch.stop.is_set():
                raise
            return
        if row is None:
            return
        done = (*done, row)
        watch.sequence_done()
        yield done


def _mean(rows: tuple[ProtocolRow, ...]) -> ProtocolRow | None:
    return mean_row(rows) if any(row.error is None for row in rows) else None


class WatchedEngine(Reconstructor):
    """An engine that reports each frame before it steps."""

    def __init__(
        self, network: StreamVggt, settings: ReconstructorSettings, watch: Callable[[], None]
    ) -> None:
        """Make an engine; ``watch`` may raise KeyboardInterrupt to end the run."""
        super().__init__(network, settings)
        self._watch = watch

    def take(self, *arguments: Any, **options: Any) -> list[FrameResult]:
        """Take one frame in, see :meth:`Reconstructor.take`."""
        self._watch()
        return super().take(*arguments, **options)


@dataclass
class _Watch:
    """Counts frames and sequences, and ends the run on request."""

    stop: Event
    progress: Progress
    names: list[str] | None
    frames: int = field(default=0)
    sequences: int = field(default=0)

    def frame(self) -> None:
        if self.stop.is_set():
            raise KeyboardInterrupt
        self.frames += 1
        self.progress(self.frames, None, self._place())

    def sequence_done(self) -> None:
        self.sequences += 1

    def _place(self) -> str:
        if self.names is None or self.sequences >= len(self.names):
            return f"sequence {self.sequences + 1}"
        return f"{self.names[self.sequences]} ({self.sequences + 1} of {len(self.names)})"


def _empty(
    specification: Specification,
    options: ProtocolOptions,
    chosen: NetworkOptions,
    cache: CacheSettings,
    settings: dict[str, Any],
    network: StreamVggt,
    names: list[str] | None,
) -> ProtocolTable:
    described = {
        "software": provenance.software(),
        "weights": provenance.weights(network, chosen.checkpoint, chosen.preset),
        "machine": provenance.machine(network.device),
    }
    return ProtocolTable(
        protocol=specification.name,
        dataset=options.dataset,
        started=datetime.now().astimezone().isoformat(timespec="seconds"),
        cache=cache.words,
        weights=chosen.words,
        columns=specification.columns,
        notes=specification.notes(options),
        settings=settings,
        provenance=described,
        total=None if names is None else len(names),
    )


def protocol_table(table: ProtocolTable) -> Table:
    """Return one row per sequence, the mean last; columns that no sequence fills are left out."""
    columns = shown_columns(table)
    rows = [
        (
            row.sequence,
            *(column.show(row.metrics.get(column.name)) for column in columns),
            str(row.frames),
            row.error or "",
        )
        for row in (*table.rows, *([table.mean] if table.mean else []))
    ]
    heads = [f"{each.label}, {each.unit}" if each.unit else each.label for each in columns]
    return Table("Sequences", ("sequence", *heads, "frames", "note"), rows)


def shown_columns(table: ProtocolTable) -> list[Column]:
    """Return the columns that some sequence fills."""
    filled = {name for row in table.rows for name in row.metrics}
    return [column for column in table.columns if column.name in filled]


def protocol_page(table: ProtocolTable) -> str:
    """Return the report of a protocol as HTML."""
    return (
        environment()
        .get_template("protocol.html.j2")
        .render(
            run=table,
            columns=shown_columns(table),
            table=protocol_table(table),
            provenance=yaml.safe_dump(json.loads(json.dumps(table.provenance)), sort_keys=False),
        )
    )


def protocol_summary(table: ProtocolTable) -> str:
    """Return a protocol in Markdown."""
    lines = [f"# {table.protocol}, {table.dataset}", "", f"{table.weights}  ·  {table.cache}"]
    lines += ["", *(f"- {each}" for each in table.remarks)] if table.remarks else []
    lines += ["", *markdown(protocol_table(table)), "", "## Protocol", ""]
    return "\n".join([*lines, *(f"- {each}" for each in table.notes)]) + "\n"


def protocol_csv(table: ProtocolTable) -> str:
    """Return one line per sequence, with the numbers in full."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    names = [column.name for column in shown_columns(table)]
    writer.writerow(["sequence", "error", "frames", "weight", *names])
    for row in table.rows:
        values = [row.metrics.get(name, "") for name in names]
        writer.writerow([row.sequence, row.error or "", row.frames, row.weight, *values])
    return stream.getvalue()


def write_protocol(table: ProtocolTable, directory: Path) -> None:
    """Write protocol.json, and report.html, summary.md and sequences.csv beside it."""
    write_json(directory / PROTOCOL, asdict(table))
    write_text(directory / REPORT, protocol_page(table))
    write_text(directory / SUMMARY, protocol_summary(table))
    write_text(directory / "sequences.csv", protocol_csv(table))


SPECIFICATIONS: dict[str, Specification] = {
    each.name: each
    for each in (VideoDepth(), MonoDepth(), MultiViewReconstruction(), RelativePose())
}


def specification_of(name: str, options: ProtocolOptions) -> Specification:
    """Return the protocol of a name, checked against the options.

    Raises:
        ConfigurationError: an unknown protocol or data set, or options that mean nothing to it.

    """
    if name not in SPECIFICATIONS:
        raise ConfigurationError(
            f"protocol '{name}' is unknown; choose one of {', '.join(SPECIFICATIONS)}"
        )
    found = SPECIFICATIONS[name]
    if options.dataset not in found.datasets:
        raise ConfigurationError(
            f"protocol {name} has no data set '{options.dataset}'; choose one of "
            f"{', '.join(found.datasets)}"
        )
    found.check(options)
    return found
