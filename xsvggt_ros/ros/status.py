# SPDX-License-Identifier: Apache-2.0
"""~/status: what the node is doing, frame by frame and while nothing happens."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
from rclpy.node import Node

from xsvggt_ros.msg import CacheStatus
from xsvggt_ros.ros import qos
from xsvggt_ros.ros.conversions import header
from xsvggt_ros.stream.frame import Frame, FrameResult

if TYPE_CHECKING:
    from xsvggt_ros.stream.worker import Counters

WAITING, WARMING_UP, RUNNING, ERROR = "waiting", "warming up", "running", "error"
UNKNOWN_SCALE = "none"


@dataclass(frozen=True, slots=True)
class Session:
    """Number of the session, from 1, and frames in it so far."""

    number: int = 0
    frames: int = 0


class StatusBoard:
    """Holds what ~/status tells and publishes it; usable from every thread."""

    def __init__(self, node: Node) -> None:
        self._publisher = node.create_publisher(CacheStatus, "~/status", qos.RESULTS)
        self._lock = Lock()
        self._message = CacheStatus(state=WAITING, scale_source=UNKNOWN_SCALE)
        self._outcome = RUNNING
        self._counts = (0,) * 5
        self._last_change = -float("inf")
        self._noted_since_result = False

    def note(self, text: str) -> None:
        """Show a warning; the next publication carries it."""
        with self._lock:
            self._message.message = text
            self._noted_since_result = True

    def show_phase(self, state: str) -> None:
        """Publish a state in which no pictures are taken."""
        with self._lock:
            self._message.state = state
            self._publisher.publish(self._message)

    def show_refusal(self, frame: Frame, text: str, counters: Counters) -> None:
        """Publish that a frame was refused."""
        self.note(text)
        with self._lock:
            self._message.header = header(frame.stamp, frame.frame_id)
            self._publish(ERROR, counters)

    def show_result(
        self,
        result: FrameResult,
        session: Session,
        counters: Counters,
        *,
        publish_seconds: float,
        total_seconds: float,
    ) -> None:
        """Publish what one frame brought."""
        with self._lock:
            self._enter_session(session)
            _fill_result(self._message, result)
            self._message.latency_publish = publish_seconds
            self._message.latency_total = total_seconds
            self._publish(RUNNING, counters)

    def show_idle(self, counters: Counters, *, timeout: float, stuck: bool) -> None:
        """Publish the state between two frames.

        It is waiting once no frame has come or is pending for ``timeout`` seconds, error where
        the newest frame was refused or is ``stuck``, and running otherwise.
        """
        with self._lock:
            self._count(counters)
            self._message.state = self._state(timeout, stuck)
            self._publisher.publish(self._message)

    def _state(self, timeout: float, stuck: bool) -> str:
        if stuck:
            return ERROR
        if monotonic() - self._last_change >= timeout:
            self._outcome = RUNNING
            return WAITING
        return self._outcome

    def _enter_session(self, session: Session) -> None:
        """Forget the message of an earlier session, but not the one that tells why it ended."""
        if session.number != self._message.session and not self._noted_since_result:
            self._message.message = ""
        self._noted_since_result = False
        self._message.session = session.number
        self._message.session_frames = session.frames

    def _publish(self, outcome: str, counters: Counters) -> None:
        self._message.state = self._outcome = outcome
        self._count(counters)
        self._publisher.publish(self._message)

    def _count(self, counters: Counters) -> None:
        counts = astuple(counters)
        if counters.pending or counts != self._counts:
            self._last_change = monotonic()
        self._counts = counts
        self._message.frames_received = counters.received
        self._message.frames_processed = counters.processed
        self._message.frames_dropped = counters.dropped
        self._message.frames_refused = counters.refused
        self._message.frames_pending = counters.pending


def _fill_result(message: CacheStatus, result: FrameResult) -> None:
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
    message.mean_confidence = float(np.mean(result.confidence))
