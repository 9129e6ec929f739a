# SPDX-License-Identifier: Apache-2.0
"""What came out of an evaluation, whole or as far as it went."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from xsvggt_ros.evaluation.cost import Cost, CostRecorder
from xsvggt_ros.evaluation.evaluator import Association, Scores, SessionEvaluator
from xsvggt_ros.evaluation.metric_registry import Verdict
from xsvggt_ros.evaluation.request import EvaluationRequest

SCHEMA = 2
"""Of metrics.json; a key that changes its meaning raises it."""

State = Literal["complete", "interrupted", "truncated"]


@dataclass(frozen=True)
class Counts:
    """Where the frames went.

    Attributes:
        promised: frames that the source said it has; None where only reading tells.
        taken: frames read from the source.
        processed: frames that gave a result.
        refused: frames that could not be used: damaged, or stamped out of order.
        dropped: frames that a live queue dropped.
        sessions: worlds into which the stream fell.
        scored: frames of the longest session, which the scores are about.

    """

    promised: int | None
    taken: int
    processed: int
    refused: int
    dropped: int
    sessions: int
    scored: int


@dataclass(frozen=True)
class LiveFigures:
    """How a live run kept up.

    Attributes:
        speed: factor on the recording's pace.
        queue: policy and size of the queue.
        input_rate: frames per second that came in, by the wall clock.
        output_rate: results per second, likewise.
        dropped_share: of the frames that came in.
        late_source: frames that the source itself delivered late, by more than 50 ms.

    """

    speed: float
    queue: str
    input_rate: float
    output_rate: float
    dropped_share: float
    late_source: int


@dataclass(frozen=True)
class Evaluation:
    """One finished run.

    Attributes:
        request: what was asked for.
        source: what the source says of itself.
        provenance: versions, weights, data and machine.
        state: ``truncated`` where the source ended before its time, ``interrupted`` where somebody
            stopped the run; the rest is valid for the frames that came.
        reason: why, unless complete.
        counts: where the frames went.
        costs: time and memory, frame by frame.
        cost: the same, summarized.
        session: the longest session.
        scores: how good that is.
        association: how much of the run has a truth.
        warnings: what a reader must know.
        seconds: wall time of reading, reconstructing and scoring; loading and writing excluded.
        live: None where every frame was processed in order.

    """

    request: EvaluationRequest
    name: str
    source: dict[str, Any]
    provenance: dict[str, Any]
    state: State
    reason: str
    counts: Counts
    costs: CostRecorder
    cost: Cost
    session: SessionEvaluator
    scores: Scores
    association: Association
    warnings: tuple[str, ...]
    seconds: float
    started: str
    live: LiveFigures | None = None
    verdicts: tuple[Verdict, ...] = field(default=())

    @property
    def layers(self) -> int:
        """Layers whose tokens the cache holds."""
        return self.costs.layers

    def metrics(self) -> dict[str, Any]:
        """Return all numbers in types that JSON holds, without the curves."""
        scores = self.scores
        return {
            "schema": SCHEMA,
            "name": self.name,
            "started": self.started,
            "state": self.state,
            "reason": self.reason,
            "seconds": self.seconds,
            "frames": asdict(self.counts),
            "trajectory": {kind: each.summary() for kind, each in scores.trajectory.items()},
            "depth": {kind: each.summary() for kind, each in scores.depth.items()},
            "odometry": scores.odometry.summary(),
            "cloud": scores.cloud.summary() if scores.cloud else None,
            "not_scored": list(scores.missing),
            "association": self.association.summary(),
            "cost": self.cost.summary(),
            "live": asdict(self.live) if self.live else None,
            "cache": self.request.cache.words,
            "limits": [each.summary() for each in self.verdicts],
            "warnings": list(self.warnings),
            "source": self.source,
            "provenance": self.provenance,
        }
