# SPDX-License-Identifier: Apache-2.0
"""What came out of an evaluation, whole or as far as it went: costs frame by frame, scores, counts.

Of costs, one double per frame and quantity is kept (128 bytes a frame), because percentiles and
curves need them; nothing else grows.
"""

from __future__ import annotations

import resource
from array import array
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from xsvggt_ros.evaluation.evaluator import Association, Scores, SessionEvaluator
from xsvggt_ros.evaluation.metric_registry import Verdict
from xsvggt_ros.evaluation.request import EvaluationRequest
from xsvggt_ros.model.device import resident_memory

if TYPE_CHECKING:
    from xsvggt_ros.stream.frame import FrameResult

SERIES = (
    "latency", "waited", "decode", "preprocess", "network", "collect",
    "cache_bytes", "scratch_bytes", "camera_bytes", "uncompressed_bytes",
    "tokens", "budget_tokens", "evicted", "process_bytes", "device_bytes", "session",
)  # fmt: skip
"""What is noted of each frame: seconds, bytes or counts."""

STAGES = ("decode", "preprocess", "network", "collect")


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds that frames took; percentiles interpolate linearly between neighbours."""

    mean: float
    p50: float
    p95: float
    p99: float
    max: float
    frames: int

    @classmethod
    def of(cls, seconds: NDArray[np.float64]) -> Percentiles | None:
        """Summarize seconds [n]; None where there are none."""
        if not len(seconds):
            return None
        milliseconds = 1e3 * seconds
        p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99]).tolist()
        return cls(
            float(milliseconds.mean()), p50, p95, p99, float(milliseconds.max()), len(seconds)
        )


@dataclass(frozen=True)
class Cost:
    """What a run cost; times in milliseconds, sizes in bytes.

    Attributes:
        first_frame: what the very first frame took, which warms caches and compiles kernels; it is
            in none of the other times.
        latency: of a frame from encoded image to result on the host, device synchronised. In a
            live run, from its arrival on.
        network: of the network and the cache alone, device synchronised.
        stages: mean of each stage: decode, preprocess, network, collect.
        frames_per_second: what the engine alone would reach: frames by the sum of their stages.
        weights_bytes: what the network's weights take.
        process_peak_bytes: the most resident memory of the process since its start; code,
            libraries, weights and this evaluation included.
        process_steady_bytes: median resident memory over the second half of the frames.
        device_peak_bytes: the most that PyTorch allocated on a CUDA device, weights included;
            None on a CPU.
        device_steady_bytes: the median after each frame of the second half, likewise.
        cache_peak_bytes: the most that keys, values, scales, minima and indices took.
        cache_steady_bytes: the median over the second half of the frames.
        scratch_bytes: the most that decoding took beside it, once for all layers.
        camera_bytes: the most that the camera head's memory took beside it.
        uncompressed_bytes: what all tokens of the longest session would take, uncompressed.
        tokens: the most tokens in one layer.
        evicted_tokens: tokens dropped over the run, summed over layers.

    """

    first_frame: float
    latency: Percentiles | None
    network: Percentiles | None
    stages: dict[str, float]
    frames_per_second: float
    weights_bytes: int
    process_peak_bytes: int
    process_steady_bytes: int
    device_peak_bytes: int | None
    device_steady_bytes: int | None
    cache_peak_bytes: int
    cache_steady_bytes: int
    scratch_bytes: int
    camera_bytes: int
    uncompressed_bytes: int
    tokens: int
    evicted_tokens: int

    def summary(self) -> dict[str, Any]:
        """Return all of it in types that JSON holds."""
        return asdict(self)


class CostRecorder:
    """Records what each frame costs.

    Attributes:
        layers: layers whose tokens the cache counts.

    """

    def __init__(self, device: torch.device, weights_bytes: int) -> None:
        """Start measuring; peaks of a CUDA device count from now on."""
        self.layers = 0
        self._device = device
        self._weights_bytes = weights_bytes
        self._series = {name: array("d") for name in SERIES}
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def __len__(self) -> int:
        """Return the number of frames noted."""
        return len(self._series["latency"])

    def note(self, result: FrameResult, session: int, waited: float = 0.0) -> None:
        """Record the cost of a frame.

        Args:
            result: what the engine answered; its stages were timed with the device synchronised.
            session: number of its session.
            waited: seconds between its arrival and the begin of its decoding, in a live run.

        """
        timings, cache = result.timings, result.cache
        self.layers = len(cache.layer_tokens)
        values = {
            "latency": timings.total + waited,
            "waited": waited,
            "decode": timings.decode,
            "preprocess": timings.preprocess,
            "network": timings.network,
            "collect": timings.collect,
            "cache_bytes": cache.nbytes,
            "scratch_bytes": cache.scratch_nbytes,
            "camera_bytes": cache.camera_nbytes,
            "uncompressed_bytes": cache.uncompressed_nbytes,
            "tokens": cache.tokens,
            "budget_tokens": cache.budget_tokens,
            "evicted": cache.evicted,
            "process_bytes": resident_memory(),
            "device_bytes": self._device_bytes(),
            "session": session,
        }
        for name, value in values.items():
            self._series[name].append(value)

    def _device_bytes(self) -> int:
        return torch.cuda.memory_allocated(self._device) if self._device.type == "cuda" else 0

    def series(self, name: str) -> NDArray[np.float64]:
        """Return one of SERIES over the frames, float64 [n]."""
        return np.array(self._series[name], np.float64)

    def cost(self) -> Cost:
        """Summarize; at least one frame must have been noted."""
        latency, network = self.series("latency"), self.series("network")
        stages = {name: self.series(name) for name in STAGES}
        later = slice(1, None) if len(self) > 1 else slice(None)
        cuda = self._device.type == "cuda"
        busy = float(sum(times[later].sum() for times in stages.values()))
        return Cost(
            first_frame=1e3 * float(latency[0]),
            latency=Percentiles.of(latency[1:]),
            network=Percentiles.of(network[1:]),
            stages={name: 1e3 * float(times[later].mean()) for name, times in stages.items()},
            frames_per_second=len(latency[later]) / busy if busy else 0.0,
            weights_bytes=self._weights_bytes,
            process_peak_bytes=max(peak_resident_bytes(), self._most("process_bytes")),
            process_steady_bytes=self._steady("process_bytes"),
            device_peak_bytes=torch.cuda.max_memory_allocated(self._device) if cuda else None,
            device_steady_bytes=self._steady("device_bytes") if cuda else None,
            cache_peak_bytes=self._most("cache_bytes"),
            cache_steady_bytes=self._steady("cache_bytes"),
            scratch_bytes=self._most("scratch_bytes"),
            camera_bytes=self._most("camera_bytes"),
            uncompressed_bytes=self._most("uncompressed_bytes"),
            tokens=self._most("tokens"),
            evicted_tokens=int(self.series("evicted").sum()),
        )

    def _steady(self, name: str) -> int:
        values = self.series(name)
        return int(np.median(values[len(values) // 2 :]))

    def _most(self, name: str) -> int:
        return int(self.series(name).max())


def peak_resident_bytes() -> int:
    """Return the most resident memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


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
