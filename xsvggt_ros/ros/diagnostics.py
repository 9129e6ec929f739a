# SPDX-License-Identifier: Apache-2.0
"""/diagnostics: the node's health for rqt_robot_monitor and diagnostic_aggregator."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from xsvggt_ros.msg import ReconstructionStatus
from xsvggt_ros.ros import qos
from xsvggt_ros.ros.status import StatusPublisher
from xsvggt_ros.stream.meter import Meter, Rates
from xsvggt_ros.stream.pipeline import SessionInfo

if TYPE_CHECKING:
    from xsvggt_ros.ros.image_input import ImageInput
    from xsvggt_ros.ros.rig_input import RigInput
    from xsvggt_ros.stream.reconstructor import Reconstructor
    from xsvggt_ros.stream.worker import Counters

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
        self.meter = Meter()
        self._node = node
        self._status = status
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)

    def begin(self) -> None:
        """Forget rates and latencies: another engine is being made."""
        self.meter = Meter()

    def publish(
        self,
        counters: Counters | None = None,
        images: RigInput | None = None,
        reconstructor: Reconstructor | None = None,
    ) -> None:
        """Publish; without an engine or an input, what there is."""
        parts = {"reconstruction": self._reconstruction(counters)}
        if images is not None:
            for camera in images.cameras:
                parts[f"input {camera.camera}".rstrip()] = _input(camera, images)
        if reconstructor is not None:
            parts["cache"] = self._status.read(_cache)
            parts["session"] = self._status.read(_session)
            parts["device"] = _device(reconstructor)
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
    message = f"publishers: {qos.describe(publishers)}"
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
