# SPDX-License-Identifier: Apache-2.0
"""Runs a published protocol sequence by sequence; the table is whole after each of them.

What is sampled, aligned, masked and averaged is the protocol's; here is what all of them share: one
network for all sequences, a new session for each, and no silent gap. A sequence that fails is a row
that says why.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import Any, Protocol

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError, SourceError, XsvggtError, first_line
from xsvggt_ros.evaluation import identity
from xsvggt_ros.evaluation.files import write_json, write_text, yaml_text
from xsvggt_ros.evaluation.request import NetworkOptions
from xsvggt_ros.evaluation.runner import Progress
from xsvggt_ros.evaluation.warnings_log import collecting_warnings
from xsvggt_ros.model.checkpoint import load_network
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings

PROTOCOL = "protocol.json"


@dataclass(frozen=True)
class Column:
    """A number of the table; ``unit`` ``%`` is stored as a share."""

    name: str
    label: str
    decimals: int = 4
    unit: str = ""

    def show(self, value: float | None) -> str:
        """Return a value for people, a dash for none."""
        if value is None:
            return "-"
        shown = 100 * value if self.unit == "%" else value
        return f"{shown:.{self.decimals}f}"


@dataclass(frozen=True)
class SequenceResult:
    """What one sequence gave: numbers by column, frames, and its weight in the mean."""

    values: dict[str, float]
    frames: int
    weight: float = 1.0


class PaperProtocol(Protocol):
    """One table of the paper on one data set.

    Attributes:
        name: such as ``video_depth``.
        dataset: such as ``bonn``.
        columns: numbers of the table.
        width: of the network's input that the paper used, pixels.
        notes: what a reader must know: sampling, alignment, where we part from the reference.

    """

    name: str
    dataset: str
    columns: Sequence[Column]
    width: int
    notes: Sequence[str]

    def sequences(self) -> Sequence[str]:
        """Return the names of the sequences of the table, in order; raise SourceError if none."""
        ...

    def evaluate(
        self, sequence: str, engine: Reconstructor, progress: Progress, stop: Event
    ) -> SequenceResult:
        """Run and judge one sequence in a new session.

        Raises:
            XsvggtError: it cannot be read, or nothing can be judged.
            KeyboardInterrupt: ``stop`` was set before the sequence was whole.

        """
        ...

    def mean(self, results: Sequence[SequenceResult]) -> dict[str, float]:
        """Return the last row of the table; ``results`` is not empty."""
        ...


@dataclass(frozen=True)
class ProtocolRow:
    """One sequence; ``state`` is ``complete`` or ``failed``, ``note`` says why."""

    sequence: str
    state: str
    note: str
    values: dict[str, float]
    frames: int = 0
    weight: float = 1.0
    seconds: float = 0.0


@dataclass(frozen=True)
class ProtocolTable:
    """A protocol's results so far.

    Attributes:
        total: sequences of the data set.
        mean: over the complete ones; empty where there is none.
        warnings: beside failures, what the package warned of.

    """

    protocol: str
    dataset: str
    fingerprint: str
    started: str
    cache: str
    weights: str
    columns: tuple[Column, ...]
    notes: tuple[str, ...]
    identity: dict[str, Any]
    total: int
    rows: tuple[ProtocolRow, ...] = ()
    mean: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    interrupted: bool = False

    @property
    def failed(self) -> list[ProtocolRow]:
        """Rows without numbers."""
        return [row for row in self.rows if row.state == "failed"]

    @property
    def remarks(self) -> list[str]:
        """What a reader of the mean must know."""
        lines = []
        if self.failed:
            lines.append(
                f"{len(self.failed)} of {self.total} sequences failed; the mean is over the rest"
            )
        if len(self.rows) < self.total:
            lines.append(
                f"{len(self.rows)} of {self.total} sequences ran; the same command with --resume "
                "goes on"
            )
        return [*lines, *self.warnings]


def run_protocol(
    protocol: PaperProtocol,
    chosen: NetworkOptions,
    cache: CacheSettings,
    folder: Path,
    *,
    stop: Event,
    progress: Callable[[int, str], Progress],
    written: Callable[[ProtocolTable], None] = lambda table: None,
) -> ProtocolTable:
    """Run every sequence that ``folder`` does not hold yet.

    Args:
        protocol: what is run.
        chosen: the network; without a width the protocol's is used.
        cache: how the cache behaves.
        folder: of the results; one that holds the same protocol and settings goes on.
        stop: ends the run within the sequence in hand, which is then not counted.
        progress: for a sequence's number and name returns what its progress is told to.
        written: is handed the table after each sequence.

    Raises:
        XsvggtError: settings or weights that are impossible, or a folder of something else.

    """
    names = protocol.sequences()
    width = chosen.width or protocol.width
    settings = {
        "protocol": protocol.name,
        "dataset": protocol.dataset,
        "network": asdict(replace(chosen, width=width)),
        "cache": asdict(cache),
        "sequences": list(names),
        "notes": list(protocol.notes),
    }
    fingerprint = identity.fingerprint(settings)
    known = _known_rows(folder, fingerprint)
    write_text(folder / "config.yaml", yaml_text(settings))
    with collecting_warnings() as log:
        network = load_network(
            chosen.checkpoint, preset=chosen.preset, device=chosen.device, dtype=chosen.dtype
        )
        engine = Reconstructor(network, ReconstructorSettings(width, cache))
        table = _empty(protocol, chosen, cache, fingerprint, network, len(names))
        for number, name in enumerate(names):
            row = known.get(name)
            if row is None and not stop.is_set():
                row = _run_sequence(protocol, name, engine, stop, progress(number, name))
            if row is not None:
                table = replace(table, rows=(*table.rows, row))
            table = replace(
                table,
                mean=_mean(protocol, table.rows),
                warnings=tuple(log.lines()),
                interrupted=stop.is_set(),
            )
            write_json(folder / PROTOCOL, asdict(table))
            written(table)
    return table


def _empty(
    protocol: PaperProtocol,
    chosen: NetworkOptions,
    cache: CacheSettings,
    fingerprint: str,
    network: StreamVggt,
    total: int,
) -> ProtocolTable:
    described = {
        "software": identity.software(),
        "weights": identity.weights(network, chosen.checkpoint, chosen.preset),
        "machine": identity.machine(network.device),
    }
    return ProtocolTable(
        protocol=protocol.name,
        dataset=protocol.dataset,
        fingerprint=fingerprint,
        started=datetime.now().astimezone().isoformat(timespec="seconds"),
        cache=cache.words,
        weights=chosen.words,
        columns=tuple(protocol.columns),
        notes=tuple(protocol.notes),
        identity=described,
        total=total,
    )


def _run_sequence(
    protocol: PaperProtocol, name: str, engine: Reconstructor, stop: Event, progress: Progress
) -> ProtocolRow | None:
    """Return the row of a sequence; None where it was stopped."""
    engine.reset(f"sequence {name}")
    began = perf_counter()
    try:
        result = protocol.evaluate(name, engine, progress, stop)
    except KeyboardInterrupt:
        if not stop.is_set():
            raise
        return None
    except XsvggtError as error:
        return ProtocolRow(name, "failed", str(error), {}, seconds=perf_counter() - began)
    except (MemoryError, RuntimeError) as error:
        note = f"{type(error).__name__}: {first_line(error)}"
        return ProtocolRow(name, "failed", note, {}, seconds=perf_counter() - began)
    seconds = perf_counter() - began
    return ProtocolRow(name, "complete", "", result.values, result.frames, result.weight, seconds)


def _mean(protocol: PaperProtocol, rows: Sequence[ProtocolRow]) -> dict[str, float]:
    results = [
        SequenceResult(row.values, row.frames, row.weight)
        for row in rows
        if row.state == "complete"
    ]
    return protocol.mean(results) if results else {}


def _known_rows(folder: Path, fingerprint: str) -> dict[str, ProtocolRow]:
    """Return the complete rows that a folder holds of the same run."""
    path = folder / PROTOCOL
    if not path.is_file():
        return {}
    held = read_protocol(folder)
    if held["fingerprint"] != fingerprint:
        raise ConfigurationError(
            f"'{folder}' holds {held['protocol']} on {held['dataset']} with other settings than "
            "these; give the same ones, or leave --resume out"
        )
    rows = (ProtocolRow(**row) for row in held["rows"])
    return {row.sequence: row for row in rows if row.state == "complete"}


def read_protocol(folder: Path) -> Mapping[str, Any]:
    """Return the table that a folder holds.

    Raises:
        SourceError: there is none, or it is damaged.

    """
    try:
        held: Mapping[str, Any] = json.loads((folder / PROTOCOL).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"'{folder / PROTOCOL}' cannot be read: {error}") from error
    return held
