# SPDX-License-Identifier: Apache-2.0
"""~/status: what the node is doing, frame by frame and while nothing happens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from rclpy.node import Node

from xsvggt_ros.msg import ReconstructionStatus
from xsvggt_ros.ros import qos
from xsvggt_ros.ros.conversions import header
from xsvggt_ros.ros.scale_input import UNKNOWN
from xsvggt_ros.stream.frame import Frame, FrameResult
from xsvggt_ros.stream.health import Health, State

if TYPE_CHECKING:
    from xsvggt_ros.stream.worker import Counters

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Session:
    """Number of the session, from 1, frames in it so far, and why the one before it ended."""

    number: int = 0
    frames: int = 0
    reset_reason: str = ""


class StatusBoard:
    """Holds what ~/status tells and publishes it; usable from every thread.

    ``timeout`` is that of the watchdog, in seconds.
    """

    def __init__(self, node: Node) -> None:
        self._publisher = node.create_publisher(ReconstructionStatus, "~/status", qos.RESULTS)
        self._lock = Lock()
        self._message = ReconstructionStatus(state="unconfigured", scale_source=UNKNOWN)
        self._health = Health()
        self._session = Session()
        self._noted_since_result = False
        self.timeout = 4.0

    def read(self, reader: Callable[[ReconstructionStatus, Session], T]) -> T:
        """Return what ``reader`` makes of the newest status, which it must not keep."""
        with self._lock:
            return reader(self._message, self._session)

    def begin(self) -> None:
        """Forget the stream: another engine is being made."""
        with self._lock:
            self._health.begin()

    def note(self, text: str) -> None:
        """Show a warning; the next publication carries it."""
        with self._lock:
            self._message.message = text
            self._noted_since_result = True

    def note_fault(self, text: str) -> None:
        """Show a warning, and that things are not as they were asked for."""
        self.note(text)
        with self._lock:
            self._health.note_fault()

    def set_scale(self, source: str) -> None:
        """Say what makes lengths metres; the next publication carries it."""
        with self._lock:
            self._message.scale_source = source

    def show_phase(self, state: State) -> None:
        """Publish a state in which no images are taken."""
        with self._lock:
            self._message.state = state
            self._publisher.publish(self._message)

    def set_paused(self, paused: bool) -> None:
        """Say whether somebody asked for a pause."""
        with self._lock:
            self._health.paused = paused

    def set_map(self, points: int, nbytes: int, seconds: float) -> None:
        """Say what the map holds and what the newest frame cost it."""
        with self._lock:
            self._message.map_points = points
            self._message.map_bytes = nbytes
            self._message.latency_map = seconds

    def show_refusal(self, frame: Frame, text: str, counters: Counters) -> None:
        """Publish that a frame was refused."""
        self.note(text)
        with self._lock:
            self._message.header = header(frame.stamp, frame.frame_id)
            self._health.note_refusal()
            self._publish(counters)

    def show_failure(self, result: FrameResult, text: str, counters: Counters) -> None:
        """Publish that a result did not come out, or not all of it."""
        self.note(text)
        with self._lock:
            self._message.header = header(result.stamp, result.frame_id)
            self._health.note_refusal()
            self._publish(counters)

    def show_result(
        self,
        result: FrameResult,
        faults: Sequence[str],
        session: Session,
        counters: Counters,
        *,
        publish_seconds: float,
        total_seconds: float,
    ) -> None:
        """Publish what one frame brought, and what is implausible about it."""
        with self._lock:
            self._enter_session(session)
            self._show_faults(faults)
            _fill_result(self._message, result)
            self._message.latency_publish = publish_seconds
            self._message.latency_total = total_seconds
            self._health.note_result(faults)
            self._publish(counters)

    def show_idle(self, counters: Counters, *, stuck: bool) -> None:
        """Publish the state between two frames; ``stuck`` where one has been for too long."""
        with self._lock:
            self._publish(counters, stuck=stuck)

    def _enter_session(self, session: Session) -> None:
        """Forget the message of an earlier session, but not the one that tells why it ended."""
        if session.number != self._message.session and not self._noted_since_result:
            self._message.message = ""
        self._session = session
        self._message.session = session.number
        self._message.session_frames = session.frames

    def _show_faults(self, faults: Sequence[str]) -> None:
        """Show what is wrong with a result, unless there is news of something else."""
        if faults and not self._noted_since_result:
            self._message.message = degraded(faults)
        self._noted_since_result = False

    def _publish(self, counters: Counters, *, stuck: bool = False) -> None:
        self._message.state = self._health.state(counters, timeout=self.timeout, stuck=stuck)
        self._message.frames_received = counters.received
        self._message.frames_processed = counters.processed
        self._message.frames_dropped = counters.dropped
        self._message.frames_refused = counters.refused
        self._message.frames_pending = counters.pending
        self._publisher.publish(self._message)


def degraded(faults: Sequence[str]) -> str:
    """Return the warning for an implausible result."""
    return f"degraded: {' and '.join(faults)}"


def _fill_result(message: ReconstructionStatus, result: FrameResult) -> None:
    message.header = header(result.stamp, result.frame_id)
    message.policy = result.cache.policy
    message.budget_tokens = result.cache.budget_tokens
    message.cache_tokens = result.cache.tokens
    message.key_bits = result.cache.key_bits
    message.value_bits = result.cache.value_bits
    message.cache_bytes = result.cache.nbytes
    message.scratch_bytes = result.cache.scratch_nbytes
    message.layer_tokens = result.cache.layer_tokens
    message.camera_cache_bytes = result.cache.camera_nbytes
    message.uncompressed_bytes = result.cache.uncompressed_nbytes
    message.tokens_evicted = result.cache.evicted
    message.tokens_evicted_total = result.cache.evicted_total
    message.latency_decode = result.timings.decode
    message.latency_preprocess = result.timings.preprocess
    message.latency_network = result.timings.network
    message.latency_collect = result.timings.collect
    message.intrinsics_source = result.intrinsics_source
    message.pose_source = result.pose_source
    message.execution = result.execution.mode
    message.execution_reason = result.execution.reason
    message.mean_confidence = float(np.mean(result.confidence))
