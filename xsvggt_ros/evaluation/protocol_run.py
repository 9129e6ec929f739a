# SPDX-License-Identifier: Apache-2.0
"""Runs a published protocol and writes its table after each sequence.

What is sampled, masked, aligned and averaged stands in :mod:`xsvggt_ros.evaluation.protocols`; here
is what all protocols share: one network, rows that are written as they come, progress, and a stop
that leaves the rows that are done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.evaluation import provenance
from xsvggt_ros.evaluation.protocol_catalogue import Column, ProtocolOptions, Specification
from xsvggt_ros.evaluation.protocols.rows import ProtocolRow, mean_row
from xsvggt_ros.evaluation.provenance import collecting_warnings
from xsvggt_ros.evaluation.request import NetworkOptions
from xsvggt_ros.evaluation.results import write_json, write_text, yaml_text
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
    written: Callable[[ProtocolTable], None] = lambda table: None,
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
        written: is handed the table after each sequence.

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
            _write(table, directory, written)
        if stop.is_set():
            table = replace(table, interrupted=True)
            _write(table, directory, written)
    return table


def _write(table: ProtocolTable, directory: Path, written: Callable[[ProtocolTable], None]) -> None:
    write_json(directory / PROTOCOL, asdict(table))
    written(table)


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
