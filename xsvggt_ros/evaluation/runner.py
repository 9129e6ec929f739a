# SPDX-License-Identifier: Apache-2.0
"""Runs the engine over a source with ground truth, frame by frame or at the pace of a camera."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from threading import Event, Lock
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation import provenance
from xsvggt_ros.evaluation.evaluation import CostRecorder, Counts, Evaluation, LiveFigures, State
from xsvggt_ros.evaluation.evaluator import Association, Evaluator, Scores, disagreement
from xsvggt_ros.evaluation.provenance import WarningLog, collecting_warnings
from xsvggt_ros.evaluation.request import NO_TRUTH, EvaluationRequest, LiveOptions
from xsvggt_ros.evaluation.sources import open_source
from xsvggt_ros.evaluation.sources.base import EvaluationFrame, EvaluationSource
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.stream.chain import ChainedReconstructor
from xsvggt_ros.stream.frame import SECOND, Frame, FrameUpdate
from xsvggt_ros.stream.pipeline import FramePipeline, PipelineHooks
from xsvggt_ros.stream.reconstructor import ReconstructorSettings
from xsvggt_ros.stream.sources.base import CUT_TO, DEFAULT_RATE, gap_between
from xsvggt_ros.stream.stamps import settled_with
from xsvggt_ros.stream.worker import FrameQueue, Worker

if TYPE_CHECKING:
    from xsvggt_ros.stream.worker import QueuePolicy

logger = logging.getLogger(__name__)

Progress = Callable[[int, int | None, str], None]
"""Takes the frames done, the total (None = unknown), and the current activity."""


def _silent(done: int, total: int | None, doing: str) -> None:
    """Show no progress."""


@dataclass
class Run:
    """A run in progress; results may come on any thread."""

    engine: ChainedReconstructor
    costs: CostRecorder
    evaluator: Evaluator
    log: WarningLog
    progress: Progress
    total: int | None
    taken: int = 0
    refused: int = 0

    def accept(self, update: FrameUpdate, given: EvaluationFrame, waited: float = 0.0) -> None:
        """Take a result and compare it with its ground truth.

        Args:
            update: of the pipeline.
            given: the frame that it belongs to.
            waited: seconds in the queue of a live run.

        """
        self.costs.note(update.result, self.engine.session, waited)
        self.evaluator.add(update.result, given.truth, lost=update.degraded)
        self.progress(self.taken, self.total, "evaluating")

    def refuse(self, frame: Frame, error: Exception) -> None:
        """Record a frame that could not be used."""
        self.refused += 1
        self.log.note(f"the image of stamp {frame.stamp} was refused: {error}")


def evaluate(
    request: EvaluationRequest, *, stop: Event | None = None, progress: Progress = _silent
) -> Evaluation:
    """Run one evaluation from the source to the scores.

    Args:
        request: what, on what, and how.
        stop: ends the run after the frame in hand once it is set; what came is scored.
        progress: is told of each frame.

    Raises:
        XsvggtError: source, weights or settings are impossible, or no frame gave a result.
        KeyboardInterrupt: ``stop`` was set before the first result.

    """
    stop = stop or Event()
    started = datetime.now().astimezone()
    progress(0, None, "opening")
    with collecting_warnings() as log:
        source = open_source(request.source, request.options)
        network = request.network.load()
        engine = _engine(request, network)
        costs = CostRecorder(network.device, provenance.weights_bytes(network))
        evaluator = Evaluator(request.scoring)
        run = Run(engine, costs, evaluator, log, progress, source.frame_count)
        began = perf_counter()
        state, reason, live = _run(run, source, request, stop)
        seconds = perf_counter() - began
        _require_results(run, source, stop, reason)
        progress(run.taken, run.taken, "scoring")
        session = evaluator.session
        scores = session.scores()
        # A source that knows no times of its truth need not say so.
        association = evaluator.association(getattr(source, "truth_stamps", None))
        _require_truth(request, association)
        _warn_of_parts(run, state)
        _warn_of_truth(request, scores, association)
        for warning in source.warnings:
            if not log.knows(warning):  # those that the log has were said already
                logger.warning("%s", warning)
        if live and live.late_source:
            log.note(
                f"the source delivered {live.late_source} of {run.taken} frames late, so that they "
                "came slower than from a camera: lower --speed, or evaluate a bag"
            )
    return Evaluation(
        request=request,
        name=source.name,
        source=source.describe(),
        provenance=_provenance(request, network),
        state=state,
        reason=reason,
        counts=_counts(run, source, live),
        costs=costs,
        cost=costs.cost(),
        session=session,
        scores=scores,
        association=association,
        warnings=tuple(dict.fromkeys([*source.warnings, *log.lines()])),
        seconds=seconds,
        started=started.isoformat(timespec="seconds"),
        live=live,
    )


def _engine(request: EvaluationRequest, network: StreamVggt) -> ChainedReconstructor:
    """Return the engine of the node."""
    width = request.network.width or network.config.image_size
    settings = ReconstructorSettings(width, request.cache)
    return ChainedReconstructor(
        network, settings, chain=request.chain, refinement=request.refinement
    )


def _run(
    run: Run, source: EvaluationSource, request: EvaluationRequest, stop: Event
) -> tuple[State, str, LiveFigures | None]:
    """Feed the source to the engine until it ends, breaks off, or the run is stopped."""
    live = None
    try:
        with closing(_frames(source)) as frames:
            if request.live:
                live, broken = run_live(run, frames, request.live, stop)
                if broken:
                    raise broken
            else:
                _run_in_order(run, frames, stop)
    except SourceError as error:
        return "truncated", str(error), live
    if stop.is_set():
        return "interrupted", f"stopped after {run.taken} frames", live
    if source.frame_count is not None and run.taken < source.frame_count:
        reason = f"{source.frame_count} frames were announced and {run.taken} came"
        return "truncated", reason, live
    return "complete", "", live


def _frames(source: EvaluationSource) -> Generator[EvaluationFrame, None, None]:
    """Yield the frames, those with a wrong stamp marked as such."""
    for given, frame in settled_with(source, lambda each: each.frame):
        yield given if frame is given.frame else replace(given, frame=frame)


def _run_in_order(run: Run, frames: Iterator[EvaluationFrame], stop: Event) -> None:
    """Step through every frame, by the rules that the node's worker follows."""
    ready: list[FrameUpdate] = []
    unanswered: deque[EvaluationFrame] = deque()
    hooks = PipelineHooks(report=ready.append, report_refusal=run.refuse)
    pipeline = FramePipeline(run.engine, hooks)
    for given in frames:
        run.taken += 1
        unanswered.append(given)
        pipeline.process(given.frame)
        _accept(run, ready, unanswered)
        if stop.is_set():
            return
    pipeline.finish()
    _accept(run, ready, unanswered)


def _accept(run: Run, ready: list[FrameUpdate], unanswered: deque[EvaluationFrame]) -> None:
    """Hand on the results that are ready, each with its frame; those before it were refused."""
    for update in ready:
        given = unanswered.popleft()
        while (given.stamp, given.frame.camera) != (update.frame.stamp, update.frame.camera):
            given = unanswered.popleft()
        run.accept(update, given)
    ready.clear()


def _require_results(run: Run, source: EvaluationSource, stop: Event, reason: str) -> None:
    if len(run.costs):
        return
    if stop.is_set():
        raise KeyboardInterrupt
    first = next(iter(run.log.lines()), "it is empty")
    raise SourceError(f"{source.name} gave no usable frame ({reason or first}); give another one")


def _warn_of_parts(run: Run, state: State) -> None:
    """Warn of what the scores do not cover."""
    evaluator = run.evaluator
    if evaluator.sessions > 1:
        logger.warning(
            "%s",
            f"the stream fell into {evaluator.sessions} sessions, each with a world of its own; "
            f"the scores are those of the longest, {len(evaluator.session)} of "
            f"{evaluator.frames} frames",
        )
    if state == "truncated":
        logger.warning(
            "%s", f"the source broke off: the scores cover the {run.taken} frames before that"
        )
    if state == "interrupted":
        logger.warning("%s", f"the run was stopped: the scores cover its first {run.taken} frames")


def _require_truth(request: EvaluationRequest, association: Association) -> None:
    """Refuse a run whose named ground truth belongs to no frame."""
    truth = request.options.truth
    if truth not in (None, NO_TRUTH) and not association.with_pose:
        raise SourceError(
            f"the truth '{truth}' belongs to no frame: {association.words}. Give another --truth, "
            f"a larger --tolerance (now {request.options.tolerance:g} s), or '{NO_TRUTH}'"
        )


def _warn_of_truth(request: EvaluationRequest, scores: Scores, association: Association) -> None:
    """Warn where the ground truth covers little, or contradicts itself."""
    if association.with_pose < association.frames and (
        association.with_pose or association.truth is not None
    ):
        logger.warning("%s", association.words)
    for remark in scores.remarks:
        logger.warning("%s", remark)
    path, depth = scores.trajectory.get("sim3"), scores.depth.get("l1")
    if sentence := disagreement(path, depth, request.options.depth_scale):
        logger.warning("%s", sentence)


def _counts(run: Run, source: EvaluationSource, live: LiveFigures | None) -> Counts:
    processed = len(run.costs)
    return Counts(
        promised=source.frame_count,
        taken=run.taken,
        processed=processed,
        refused=run.refused,
        dropped=run.taken - processed - run.refused if live else 0,
        sessions=run.evaluator.sessions,
        scored=len(run.evaluator.session),
    )


def _provenance(request: EvaluationRequest, network: StreamVggt) -> dict[str, Any]:
    return {
        "software": provenance.software(),
        "weights": provenance.weights(network, request.network.checkpoint, request.network.preset),
        "data": provenance.data(request.source),
        "machine": provenance.machine(network.device),
        "settings": request.fingerprint(),
    }


LATE = 0.05
"""Seconds after its time from which on a frame counts as delivered late by the source."""

POLL = 0.05
"""Seconds between two looks at whether everything is done."""

STOP_TIMEOUT = 120.0
"""Seconds that the frame in hand may take at the end."""


class _InFlight:
    """Frames between arrival and result, with the time of their arrival; for two threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._frames: dict[int, tuple[EvaluationFrame, float]] = {}

    def add(self, given: EvaluationFrame, arrived: float) -> None:
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
    run: Run, frames: Iterator[EvaluationFrame], options: LiveOptions, stop: Event
) -> tuple[LiveFigures, SourceError | None]:
    """Feed frames at the pace of their stamps to the node's queue and worker until all is done.

    The latency of a frame then counts from its arrival, waiting included.

    Args:
        run: takes results and refusals.
        frames: in the order of their stamps.
        options: speed and queue.
        stop: ends the run after the frame in hand.

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
            run.accept(update, given, waited)

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
    """Puts each frame into the queue when it is due, and counts those that came late."""

    def __init__(self, run: Run, queue: FrameQueue, flying: _InFlight, speed: float) -> None:
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
            self._flying.add(given, monotonic())
            self._queue.put(given.frame)

    def _seconds_after(self, previous: Frame, frame: Frame) -> float:
        gap = gap_between(previous, frame, DEFAULT_RATE)
        if gap.pause:
            logger.warning(
                "the recording pauses for %.6g s after frame %d: cut to %g s",
                gap.pause / SECOND, self._run.taken, CUT_TO,
            )  # fmt: skip
        return (gap.nanoseconds or SECOND / DEFAULT_RATE) / SECOND / self._speed
