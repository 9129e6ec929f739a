# SPDX-License-Identifier: Apache-2.0
"""What a protocol answers: one row for each sequence, failures included."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from xsvggt_ros.errors import EvaluationError, FrameError, XsvggtError
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
