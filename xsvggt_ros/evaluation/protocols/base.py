# SPDX-License-Identifier: Apache-2.0
"""What a protocol answers: one row for each sequence, failures included."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from xsvggt_ros.errors import ConfigurationError, EvaluationError, FrameError, XsvggtError
from xsvggt_ros.stream.frame import FrameResult, ImageArray
from xsvggt_ros.stream.reconstructor import Reconstructor

Item = TypeVar("Item")


@dataclass(frozen=True)
class ProtocolRow:
    """One line of a table.

    Attributes:
        sequence: its name.
        frames: that were used.
        metrics: by name; empty where the sequence failed.
        weight: of the row in the mean of the table.
        error: why the sequence failed, or None.

    """

    sequence: str
    frames: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    weight: float = 1.0
    error: str | None = None


def each_row(names: Iterable[str], measure: Callable[[str], ProtocolRow]) -> Iterator[ProtocolRow]:
    """Yield the row of each sequence; one that fails gives a row that says so.

    The reference skips sequences that run out of memory, and averages over the others in silence.
    """
    for name in names:
        try:
            yield measure(name)
        except XsvggtError as error:
            yield ProtocolRow(name, error=str(error))


def mean_row(rows: Iterable[ProtocolRow]) -> ProtocolRow:
    """Return the weighted mean of the rows that did not fail; ``error`` counts those that did.

    Raises:
        EvaluationError: every row failed.

    """
    every = list(rows)
    good = [row for row in every if row.error is None]
    if not good:
        raise EvaluationError(
            f"none of {len(every)} sequences could be measured; the first says: "
            f"{every[0].error if every else 'there are no sequences'}"
        )
    weights = np.array([row.weight for row in good])
    shares = weights / weights.sum()  # exactly 1 of a single row, whose mean is itself
    metrics = {
        name: float(shares @ np.array([row.metrics[name] for row in good]))
        for name in good[0].metrics
    }
    failed = len(every) - len(good)
    return ProtocolRow(
        "mean",
        sum(row.frames for row in good),
        metrics,
        float(weights.sum()),
        f"{failed} of {len(every)} sequences failed and are not in the mean" if failed else None,
    )


def answered(
    engine: Reconstructor, images: Iterable[tuple[Item, Callable[[], ImageArray], int]]
) -> Iterator[tuple[Item, FrameResult]]:
    """Yield what stands beside each image, with the result of the image.

    A frame that fails is an error: to leave it out would make the sequence easier than it is.

    Args:
        engine: at the beginning of a session.
        images: anything, what gives an image, and its stamp in nanoseconds.

    Raises:
        EvaluationError: a frame failed.

    """
    waiting: deque[Item] = deque()
    stamp = 0
    try:
        for item, image, stamp in images:
            waiting.append(item)
            for result in engine.take(image(), stamp=stamp):
                yield waiting.popleft(), result
        for result in engine.finish():
            yield waiting.popleft(), result
    except FrameError as error:
        raise EvaluationError(f"the frame of stamp {stamp} failed: {error}") from error


PATCH = 14
"""Pixels; both sides of an image become multiples of it."""

WIDTH = 518
"""Pixels; of the published weights and all published tables."""


@dataclass(frozen=True)
class Column:
    """A number of the table; with the unit ``%`` it is stored as a share."""

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
class ProtocolOptions:
    """Data set and sampling; None = as in the paper.

    Attributes:
        dataset: name of the data set.
        root: its directory.
        frames: the most of each sequence, for the long tables.
        stride: every nth frame is taken, likewise.
        prediction: of ``mv_recon``: ``points`` of the point head, or ``projection`` of depth and
            pose.
        annotations: of CO3D.

    """

    dataset: str
    root: Path
    frames: int | None = None
    stride: int | None = None
    prediction: str | None = None
    annotations: Path | None = None

    def plain(self) -> dict[str, Any]:
        """Return the options in types that JSON holds."""
        return {
            key: str(value) if isinstance(value, Path) else value
            for key, value in asdict(self).items()
        }

    def refuse(self, protocol: str, *names: str) -> None:
        """Raise ConfigurationError where one of the named options is set."""
        spelt = {"frames": "--max-frames"}
        for name in names:
            if getattr(self, name) is not None:
                option = spelt.get(name, f"--{name}")
                raise ConfigurationError(
                    f"protocol {protocol} on {self.dataset} knows no {option} "
                    f"({getattr(self, name)}); leave it out"
                )


class Specification(ABC):
    """One protocol.

    Attributes:
        name: as on the command line.
        datasets: that it is defined on.
        columns: of its table.
        width: of the network's input in the paper, pixels.

    """

    name: ClassVar[str]
    datasets: ClassVar[tuple[str, ...]]
    columns: ClassVar[tuple[Column, ...]]
    width = WIDTH

    @abstractmethod
    def check(self, options: ProtocolOptions) -> None:
        """Raise ConfigurationError for options that this protocol does not know."""

    @abstractmethod
    def rows(self, engine: Reconstructor, options: ProtocolOptions) -> Iterator[ProtocolRow]:
        """Yield the row of each sequence; raise XsvggtError where there is none."""

    @abstractmethod
    def notes(self, options: ProtocolOptions) -> tuple[str, ...]:
        """Return what a reader of the table must know."""

    def names(self, options: ProtocolOptions) -> list[str] | None:
        """Return the sequences in the order of the rows, None where they are unknown in advance."""
        return None

    def needs_points(self, options: ProtocolOptions) -> bool:
        """Return whether the point head has to run."""
        return False


def length_note(options: ProtocolOptions, usual: str) -> str:
    """Return how long sequences are taken: as usual, or as a long table takes them."""
    if options.frames is None:
        return usual
    return f"at most {options.frames} frames of each sequence: a long table, not the paper's"
