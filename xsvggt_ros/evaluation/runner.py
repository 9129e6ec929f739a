# SPDX-License-Identifier: Apache-2.0
"""Runs the engine over a source with ground truth and judges what comes out."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from threading import Event
from time import perf_counter
from typing import Any

from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation import identity
from xsvggt_ros.evaluation.association import Association, disagreement
from xsvggt_ros.evaluation.evaluation import Counts, Evaluation, LiveFigures, State
from xsvggt_ros.evaluation.frame import EvaluationFrame
from xsvggt_ros.evaluation.judge import Judge, Scores
from xsvggt_ros.evaluation.live import run_live
from xsvggt_ros.evaluation.meter import Meter
from xsvggt_ros.evaluation.request import EvaluationRequest
from xsvggt_ros.evaluation.source import EvaluationSource, open_source
from xsvggt_ros.evaluation.sources.base import NO_TRUTH
from xsvggt_ros.evaluation.warnings_log import WarningLog, collecting_warnings
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.stream.frame import Frame, FrameResult
from xsvggt_ros.stream.jumps import settled_with
from xsvggt_ros.stream.pipeline import FramePipeline, FrameUpdate, PipelineHooks
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings

logger = logging.getLogger(__name__)

Progress = Callable[[int, int | None, str], None]
"""Takes the frames done, the frames to come in all (None = nobody knows), and what goes on."""


def _silent(done: int, total: int | None, doing: str) -> None:
    """Show no progress."""


@dataclass
class Run:
    """A run in progress: what each result goes through, on whatever thread it comes."""

    engine: Reconstructor
    meter: Meter
    judge: Judge
    log: WarningLog
    progress: Progress
    total: int | None
    taken: int = 0
    refused: int = 0

    def accept(self, result: FrameResult, given: EvaluationFrame, waited: float = 0.0) -> None:
        """Take a result and compare it with its truth."""
        self.meter.note(result, self.engine.session, waited)
        self.judge.add(result, given.truth)
        self.progress(self.taken, self.total, "evaluating")

    def refuse(self, frame: Frame, error: Exception) -> None:
        """Take note of a frame that could not be used."""
        self.refused += 1
        self.log.note(f"the image of stamp {frame.stamp} was refused: {error}")


def evaluate(
    request: EvaluationRequest, *, stop: Event | None = None, progress: Progress = _silent
) -> Evaluation:
    """Run one evaluation from the source to the scores.

    Args:
        request: what, on what, and how.
        stop: ends the run after the frame in hand once it is set; what came is judged.
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
        engine = Reconstructor(network, _settings(request, network))
        meter = Meter(network.device, identity.weights_bytes(network))
        judge = Judge(request.judging)
        run = Run(engine, meter, judge, log, progress, source.frame_count)
        began = perf_counter()
        state, reason, live = _run(run, source, request, stop)
        seconds = perf_counter() - began
        _require_results(run, source, stop, reason)
        progress(run.taken, run.taken, "judging")
        session = judge.session
        scores = session.scores()
        # A source that knows no times of its truth need not say so.
        association = judge.association(getattr(source, "truth_stamps", None))
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
        identity=_identity(request, network),
        state=state,
        reason=reason,
        counts=_counts(run, source, live),
        meter=meter,
        cost=meter.cost(),
        session=session,
        scores=scores,
        association=association,
        warnings=tuple(dict.fromkeys([*source.warnings, *log.lines()])),
        seconds=seconds,
        started=started.isoformat(timespec="seconds"),
        live=live,
    )


def _settings(request: EvaluationRequest, network: StreamVggt) -> ReconstructorSettings:
    width = request.network.width or network.config.image_size
    return ReconstructorSettings(width, request.cache)


def _run(
    run: Run, source: EvaluationSource, request: EvaluationRequest, stop: Event
) -> tuple[State, str, LiveFigures | None]:
    """Feed the source to the engine until it ends, breaks off, or somebody stops it."""
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
        run.accept(update.result, given)
    ready.clear()


def _require_results(run: Run, source: EvaluationSource, stop: Event, reason: str) -> None:
    if len(run.meter):
        return
    if stop.is_set():
        raise KeyboardInterrupt
    first = next(iter(run.log.lines()), "it is empty")
    raise SourceError(f"{source.name} gave no usable frame ({reason or first}); give another one")


def _warn_of_parts(run: Run, state: State) -> None:
    """Note what the scores do not cover."""
    judge = run.judge
    if judge.sessions > 1:
        logger.warning(
            "%s",
            f"the stream fell into {judge.sessions} sessions, each with a world of its own; the "
            f"scores are those of the longest, {len(judge.session)} of {judge.frames} frames",
        )
    if state == "truncated":
        logger.warning(
            "%s", f"the source broke off: the scores cover the {run.taken} frames before that"
        )
    if state == "interrupted":
        logger.warning("%s", f"the run was stopped: the scores cover its first {run.taken} frames")


def _require_truth(request: EvaluationRequest, association: Association) -> None:
    """Refuse a run whose truth was named, and is that of no frame."""
    truth = request.options.truth
    if truth not in (None, NO_TRUTH) and not association.with_pose:
        raise SourceError(
            f"the truth '{truth}' belongs to no frame: {association.words}. Give another --truth, "
            f"a larger --tolerance (now {request.options.tolerance:g} s), or '{NO_TRUTH}'"
        )


def _warn_of_truth(request: EvaluationRequest, scores: Scores, association: Association) -> None:
    """Note where the truth covers little, or contradicts itself."""
    if association.with_pose < association.frames and (
        association.with_pose or association.truth is not None
    ):
        logger.warning("%s", association.words)
    for remark in scores.remarks:
        logger.warning("%s", remark)
    path, depth = scores.trajectory.get("sim3"), scores.depth.get("scale")
    if sentence := disagreement(path, depth, request.options.depth_scale):
        logger.warning("%s", sentence)


def _counts(run: Run, source: EvaluationSource, live: LiveFigures | None) -> Counts:
    processed = len(run.meter)
    return Counts(
        promised=source.frame_count,
        taken=run.taken,
        processed=processed,
        refused=run.refused,
        dropped=run.taken - processed - run.refused if live else 0,
        sessions=run.judge.sessions,
        judged=len(run.judge.session),
    )


def _identity(request: EvaluationRequest, network: StreamVggt) -> dict[str, Any]:
    return {
        "software": identity.software(),
        "weights": identity.weights(network, request.network.checkpoint, request.network.preset),
        "data": identity.data(request.source),
        "machine": identity.machine(network.device),
        "settings": request.fingerprint(),
    }
