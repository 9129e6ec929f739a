# SPDX-License-Identifier: Apache-2.0
"""Rates and latencies of the recent past."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from xsvggt_ros.stream.worker import Counters

WINDOW = 10.0
"""Seconds over which rates are taken."""
LATENCIES = 200
"""Frames over which percentiles are taken."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Frames per second over the last :data:`WINDOW` seconds at most."""

    received: float = 0.0
    processed: float = 0.0
    dropped: float = 0.0
    refused: float = 0.0


class Meter:
    """Counts are sampled on one thread, latencies noted on another."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Counters]] = deque()
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._lock = Lock()

    def note_latency(self, seconds: float) -> None:
        """Take in how long one frame took."""
        with self._lock:
            self._latencies.append(seconds)

    def sample(self, now: float, counters: Counters) -> Rates:
        """Take in the counters of a moment, in seconds of a steady clock; return the rates."""
        self._samples.append((now, counters))
        while self._samples[0][0] < now - WINDOW:
            self._samples.popleft()
        then, before = self._samples[0]
        if now <= then:
            return Rates()
        seconds = now - then
        return Rates(
            (counters.received - before.received) / seconds,
            (counters.processed - before.processed) / seconds,
            (counters.dropped - before.dropped) / seconds,
            (counters.refused - before.refused) / seconds,
        )

    def percentiles(self, *ranks: float) -> list[float]:
        """Return percentiles of the latencies, in seconds; NaN before the first."""
        with self._lock:
            known = list(self._latencies)
        if not known:
            return [float("nan")] * len(ranks)
        return [float(value) for value in np.percentile(known, ranks)]
