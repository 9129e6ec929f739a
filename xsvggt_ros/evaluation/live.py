# SPDX-License-Identifier: Apache-2.0
"""A recording at its own pace into the node's queue: what would be dropped, and how late it is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from threading import Event, Lock
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation.evaluation import LiveFigures
from xsvggt_ros.evaluation.frame import EvaluationFrame
from xsvggt_ros.evaluation.request import LiveOptions
from xsvggt_ros.stream.frame import Frame, FrameResult
from xsvggt_ros.stream.frame_queue import FrameQueue
from xsvggt_ros.stream.pipeline import FramePipeline, FrameUpdate, PipelineHooks
from xsvggt_ros.stream.sources.base import DEFAULT_RATE, SECOND
from xsvggt_ros.stream.sources.pace import CUT_TO, gap_between
from xsvggt_ros.stream.worker import Worker

if TYPE_CHECKING:
    from xsvggt_ros.stream.frame_queue import QueuePolicy
    from xsvggt_ros.stream.reconstructor import Reconstructor

logger = logging.getLogger(__name__)

LATE = 0.05
"""Seconds after its time from which on a frame counts as delivered late by the source."""

POLL = 0.05
"""Seconds between two looks at whether everything is done."""

STOP_TIMEOUT = 120.0
"""Seconds that the frame in hand may take at the end."""


class LiveRun(Protocol):
    """What a live run reports to; see :class:`xsvggt_ros.evaluation.runner.Run`."""

    engine: Reconstructor
    taken: int

    def accept(self, result: FrameResult, given: EvaluationFrame, waited: float = 0.0) -> None:
        """Take a result."""

    def refuse(self, frame: Frame, error: Exception) -> None:
        """Take a refusal."""


class _InFlight:
    """Frames between arrival and result, with the time of their arrival; for two threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._frames: dict[int, tuple[EvaluationFrame, float]] = {}

    def put(self, given: EvaluationFrame, arrived: float) -> None:
        with self._lock:
            self._frames[id(given.frame)] = given, arrived

    def take(self, stamp: int) -> tuple[EvaluationFrame, float] | None:
        """Return the frame of a stamp; those that came before it were dropped and are forgotten."""
        with self._lock:
            for key, entry in list(self._frames.items()):
                del self._frames[key]
                if entry[0].stamp == stamp:
                    return entry
        return None


def run_live(
    run: LiveRun, frames: Iterator[EvaluationFrame], options: LiveOptions, stop: Event
) -> tuple[LiveFigures, SourceError | None]:
    """Feed frames at the pace of their stamps to the node's queue and worker until all is done.

    The latency of a frame then counts from its arrival, waiting included.

    Returns:
        How the run kept up, and what the source broke off with, if it did.

    """
    policy: QueuePolicy = "all" if options.queue_policy == "all" else "latest"
    queue = FrameQueue(policy, options.queue_size)
    flying = _InFlight()

    def accept(update: FrameUpdate) -> None:
        result = update.result
        entry = flying.take(result.stamp)
        if entry is not None:
            given, arrived = entry
            waited = max(0.0, monotonic() - arrived - result.timings.total)
            run.accept(result, given, waited)

    hooks = PipelineHooks(report=accept, report_refusal=run.refuse)
    worker = Worker(FramePipeline(run.engine, hooks), queue)
    feeder = _Feeder(run, queue, flying, options.speed)
    broken = None
    began = monotonic()
    worker.start()
    try:
        try:
            feeder.feed(frames, stop)
        except SourceError as error:
            broken = error
        while (left := worker.counters).pending > left.waiting and not stop.wait(POLL):
            pass
        worker.finish_first_pass()
        while worker.counters.pending and not stop.wait(POLL):
            pass
    finally:
        worker.stop(STOP_TIMEOUT)
    seconds = max(monotonic() - began, 1e-9)
    counters = worker.counters
    figures = LiveFigures(
        speed=options.speed,
        queue=f"{policy}, {options.queue_size}",
        input_rate=counters.received / seconds,
        output_rate=counters.processed / seconds,
        dropped_share=counters.dropped / max(counters.received, 1),
        late_source=feeder.late,
    )
    return figures, broken


class _Feeder:
    """Puts each frame into the queue when its time has come, and counts those that came late."""

    def __init__(self, run: LiveRun, queue: FrameQueue, flying: _InFlight, speed: float) -> None:
        self._run = run
        self._queue = queue
        self._flying = flying
        self._speed = speed
        self.late = 0

    def feed(self, frames: Iterator[EvaluationFrame], stop: Event) -> None:
        """Put frames into the queue; one whose stamp is known to be wrong does not set the pace."""
        previous: Frame | None = None
        due = monotonic()
        for given in frames:
            if not given.frame.fault:
                due += self._seconds_after(previous, given.frame) if previous else 0.0
                previous = given.frame
            wait = due - monotonic()
            if stop.wait(max(0.0, wait)):
                return
            self.late += wait < -LATE
            self._run.taken += 1
            self._flying.put(given, monotonic())
            self._queue.put(given.frame)

    def _seconds_after(self, previous: Frame, frame: Frame) -> float:
        gap = gap_between(previous, frame, DEFAULT_RATE)
        if gap.pause:
            logger.warning(
                "the recording pauses for %.6g s after frame %d: cut to %g s",
                gap.pause / SECOND, self._run.taken, CUT_TO,
            )  # fmt: skip
        return (gap.nanoseconds or SECOND / DEFAULT_RATE) / SECOND / self._speed
