# SPDX-License-Identifier: Apache-2.0
"""The state of the node: in ~/status for each frame, in /diagnostics once a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from xsvggt_ros.msg import ReconstructionStatus
from xsvggt_ros.ros import topics
from xsvggt_ros.ros.conversions import header
from xsvggt_ros.ros.scale_input import UNKNOWN, ScaleState
from xsvggt_ros.stream.frame import Frame, FrameResult, FrameUpdate, SessionInfo
from xsvggt_ros.stream.health import Counters, Health, RateMeter, Rates, State

if TYPE_CHECKING:
    from xsvggt_ros.ros.image_input import ImageInput, RigInput
    from xsvggt_ros.stream.reconstructor import Reconstructor

T = TypeVar("T")


class StatusPublisher:
    """Holds what ~/status tells and publishes it; usable from every thread.

    ``timeout`` is that of the watchdog, in seconds.
    """

    def __init__(self, node: Node) -> None:
        self._publisher = node.create_publisher(ReconstructionStatus, "~/status", topics.RESULTS)
        self._lock = Lock()
        self._health = Health()
        self.timeout = 4.0
        self.begin()

    def read(self, reader: Callable[[ReconstructionStatus, SessionInfo], T]) -> T:
        """Return what ``reader`` makes of the newest status, which it must not keep."""
        with self._lock:
            return reader(self._message, self._session)

    def begin(self) -> None:
        """Forget the stream: its engine is gone, or another one is being made."""
        with self._lock:
            self._message = ReconstructionStatus(
                state="unconfigured", scale_source=UNKNOWN, scale_age=-1.0
            )
            self._warning = self._remark = ""
            self._session = SessionInfo()
            self._noted_since_result = False
            self._health.begin()

    def note(self, text: str) -> None:
        """Show a warning; the next publication carries it."""
        with self._lock:
            self._warning = text
            self._noted_since_result = True

    def forget(self, text: str) -> None:
        """Show a warning no longer, if it is the one that is shown."""
        with self._lock:
            if self._warning == text:
                self._warning = ""

    def note_fault(self, text: str) -> None:
        """Show a warning, and that things are not as they were asked for."""
        self.note(text)
        with self._lock:
            self._health.note_fault()

    def set_scale(self, scale: ScaleState, remark: str = "") -> None:
        """Say what makes lengths metres; the next publication carries it.

        ``remark`` is what there is to say of its measurement, which is no warning.
        """
        with self._lock:
            self._remark = remark
            self._message.scale_source = scale.source
            self._message.scale = scale.value
            self._message.scale_spread = scale.spread
            self._message.scale_age = scale.age

    def show_phase(self, state: State) -> None:
        """Publish a state in which no images are taken."""
        with self._lock:
            self._message.state = state
            self._send()

    def set_paused(self, paused: bool) -> None:
        """Say whether somebody asked for a pause."""
        with self._lock:
            self._health.paused = paused

    def set_map(self, points: int, nbytes: int, seconds: float) -> None:
        """Say what the map holds and what the newest frame cost it.

        Args:
            points: voxels in the map.
            nbytes: allocated for it.
            seconds: that the newest frame took.

        """
        with self._lock:
            self._message.map_points = points
            self._message.map_bytes = nbytes
            self._message.latency_map = seconds

    def show_refusal(self, frame: Frame | FrameResult, text: str, counters: Counters) -> None:
        """Publish that a frame was refused, or that its result did not come out whole.

        Args:
            frame: that was refused, or the result.
            text: why, for people.
            counters: of now.

        """
        self.note(text)
        with self._lock:
            self._message.header = header(frame.stamp, frame.frame_id)
            self._health.note_refusal()
            self._publish(counters)

    def show_update(self, update: FrameUpdate, counters: Counters) -> None:
        """Publish what one frame brought, and what is implausible about it."""
        with self._lock:
            self._enter_session(update.session)
            self._show_faults(update.faults)
            _fill_result(self._message, update.result)
            self._message.latency_publish = update.publish_seconds
            self._message.latency_total = update.total_seconds
            self._health.note_result(update.faults)
            self._publish(counters)

    def show_idle(self, counters: Counters, *, stuck: bool) -> None:
        """Publish the state between two frames; ``stuck`` where one has been for too long."""
        with self._lock:
            self._publish(counters, stuck=stuck)

    def _enter_session(self, session: SessionInfo) -> None:
        """Forget the message of an earlier session, but not the one that tells why it ended."""
        if session.number != self._message.session and not self._noted_since_result:
            self._warning = ""
        self._session = session
        self._message.session = session.number
        self._message.session_frames = session.frames

    def _show_faults(self, faults: Sequence[str]) -> None:
        """Show what is wrong with a result, unless there is news of something else."""
        if faults and not self._noted_since_result:
            self._warning = degraded(faults)
        self._noted_since_result = False

    def _publish(self, counters: Counters, *, stuck: bool = False) -> None:
        self._message.state = self._health.state(counters, timeout=self.timeout, stuck=stuck)
        self._message.frames_received = counters.received
        self._message.frames_processed = counters.processed
        self._message.frames_dropped = counters.dropped
        self._message.frames_refused = counters.refused
        self._message.frames_pending = counters.pending
        self._send()

    def _send(self) -> None:
        self._message.message = self._warning or self._remark
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
    inliers = np.nan if result.motion is None else result.motion.inliers
    message.focal_ratio = _known(result.focal_ratio)
    message.pose_inliers = _known(inliers)
    message.chain_state = result.chain_state
    message.chain_joins = result.joins
    message.execution = result.execution.mode
    message.execution_reason = result.execution.reason
    message.mean_confidence = float(np.mean(result.confidence))


def _known(value: float) -> float:
    """Return a value, 0 where it is not known."""
    return float(value) if np.isfinite(value) else 0.0


_MIB = 2**20
_LEVELS = {
    "waiting": DiagnosticStatus.WARN,
    "degraded": DiagnosticStatus.WARN,
    "stalled": DiagnosticStatus.ERROR,
    "error": DiagnosticStatus.ERROR,
}
"""Of a state; all others are as somebody asked for."""


class Diagnostics:
    """Publishes what the node knows of itself; called at a steady rate from the executor."""

    def __init__(self, node: Node, status: StatusPublisher) -> None:
        self.meter = RateMeter()
        self._node = node
        self._status = status
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", topics.DIAGNOSTICS)

    def begin(self) -> None:
        """Forget rates and latencies: another engine is being made."""
        self.meter = RateMeter()

    def publish(
        self,
        counters: Counters | None = None,
        images: RigInput | None = None,
        reconstructor: Reconstructor | None = None,
        map_facts: dict[str, str] | None = None,
    ) -> None:
        """Publish what there is.

        Args:
            counters: of the engine; None without one.
            images: the inputs; None without any.
            reconstructor: whose device is told; None without one.
            map_facts: what the map counts, by name; None without a map.

        """
        parts = {"reconstruction": self._reconstruction(counters)}
        if images is not None:
            for camera in images.cameras:
                parts[f"input {camera.camera}".rstrip()] = _input(camera, images)
        if reconstructor is not None:
            parts["cache"] = self._status.read(_cache)
            parts["session"] = self._status.read(_session)
            parts["device"] = _device(reconstructor)
        if map_facts is not None:
            message = f"points: {map_facts['points']}"
            parts["map"] = _status(DiagnosticStatus.OK, message, map_facts)
        array = DiagnosticArray(status=[self._named(*part) for part in parts.items()])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)

    def _named(self, part: str, status: DiagnosticStatus) -> DiagnosticStatus:
        name = self._node.get_fully_qualified_name().lstrip("/")
        status.name = f"{name}: {part}"
        status.hardware_id = name
        return status

    def _reconstruction(self, counters: Counters | None) -> DiagnosticStatus:
        rates = Rates() if counters is None else self.meter.sample(monotonic(), counters)
        median, slow = self.meter.percentiles(50, 95)
        return self._status.read(
            lambda status, _: _status(
                _LEVELS.get(status.state, DiagnosticStatus.OK),
                f"{status.state}: {status.message}" if status.message else status.state,
                {
                    "input rate (Hz)": f"{rates.received:.2f}",
                    "output rate (Hz)": f"{rates.processed:.2f}",
                    "dropped (Hz)": f"{rates.dropped:.2f}",
                    "refused (Hz)": f"{rates.refused:.2f}",
                    "latency p50 (s)": f"{median:.4f}",
                    "latency p95 (s)": f"{slow:.4f}",
                    "received": str(status.frames_received),
                    "processed": str(status.frames_processed),
                    "dropped": str(status.frames_dropped),
                    "refused": str(status.frames_refused),
                    "pending": str(status.frames_pending),
                    "mean confidence": f"{status.mean_confidence:.3f}",
                    "scale source": status.scale_source,
                    "scale (m per unit)": f"{status.scale:.6g}",
                    "scale spread": f"{status.scale_spread:.4f}",
                    "scale age (s)": f"{status.scale_age:.1f}",
                },
            )
        )


def _input(camera: ImageInput, images: RigInput) -> DiagnosticStatus:
    publishers, mixed = camera.publishers(), camera.mixed_publishers()
    offset = images.clock_offsets().get(camera.camera, 0.0)
    message = f"publishers: {topics.offered(publishers)}"
    if mixed:
        message += f", mixing: {', '.join(mixed)}"
    if offset:
        message += f", in another clock: {offset:+.1f} s"
    return _status(
        DiagnosticStatus.WARN if mixed or offset or not publishers else DiagnosticStatus.OK,
        message,
        {
            "topic": camera.topic,
            "type": camera.type_name,
            "subscription": camera.reliability,
            "held back": str(camera.held_back),
            "wrong stamps": str(images.outliers(camera.camera)),
            "clock offset (s)": f"{offset:.3f}",
        },
    )


def _execution(status: ReconstructionStatus) -> str:
    reason = status.execution_reason
    return f"{status.execution}: {reason}" if reason else status.execution


def _cache(status: ReconstructionStatus, _: SessionInfo) -> DiagnosticStatus:
    return _status(
        DiagnosticStatus.OK,
        f"{status.cache_tokens} of {status.budget_tokens or 'unbounded'} tokens",
        {
            "policy": status.policy,
            "tokens": str(status.cache_tokens),
            "budget (tokens)": str(status.budget_tokens),
            "key bits": str(status.key_bits),
            "value bits": str(status.value_bits),
            "allocated (MiB)": _mib(status.cache_bytes + status.scratch_bytes),
            "camera head (MiB)": _mib(status.camera_cache_bytes),
            "uncompressed (MiB)": _mib(status.uncompressed_bytes),
            "evicted tokens": str(status.tokens_evicted_total),
            "step": _execution(status),
        },
    )


def _session(status: ReconstructionStatus, session: SessionInfo) -> DiagnosticStatus:
    reason = session.reset_reason or "none"
    return _status(
        DiagnosticStatus.OK,
        f"session {session.number} of {session.frames} frames; last reset: {reason}",
        {
            "session": str(session.number),
            "frames": str(session.frames),
            "last reset": reason,
        },
    )


def _device(reconstructor: Reconstructor) -> DiagnosticStatus:
    from xsvggt_ros.model.device import free_memory, used_memory

    device = reconstructor.device
    free = free_memory(device)
    return _status(
        DiagnosticStatus.OK,
        str(device),
        {
            "device": str(device),
            "used by this process (MiB)": _mib(used_memory(device)),
            "free (MiB)": "unknown" if free is None else _mib(free),
        },
    )


def _status(level: bytes, message: str, values: Mapping[str, str]) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(level=level, message=message, values=pairs)


def _mib(size: int) -> str:
    return f"{size / _MIB:.1f}"
