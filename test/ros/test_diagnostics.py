# SPDX-License-Identifier: Apache-2.0
"""The node's health on /diagnostics, and what it does when the device is full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

REASON = "needs ROS 2 and this package's messages: run scripts/test, or source a built workspace"
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("xsvggt_ros.msg", reason=REASON)

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from node_process import TINY, NodeProcess, Peer, image_message
from rcl_interfaces.msg import ParameterEvent
from xsvggt_ros.msg import ReconstructionStatus

SECOND = 1_000_000_000
WATCHED = {
    "/diagnostics": DiagnosticArray,
    "/parameter_events": ParameterEvent,
    "/left/xsvggt/status": ReconstructionStatus,
}
FAULTY = """
import sys
import numpy as np
import torch
from xsvggt_ros.ros import node
from xsvggt_ros.stream import step_runner

to_host = step_runner.to_host
calls = 0

def faulty(prediction):
    # The first call is the warm-up.
    global calls
    calls += 1
    if calls == 14:
        raise torch.OutOfMemoryError("CUDA out of memory")
    output = to_host(prediction)
    output.confidence[:] = 3.0 if calls != 16 else 1.0
    output.depth[:] = np.linspace(1.0, 2.0, output.depth.size).reshape(output.depth.shape)
    if calls == 18:
        output.depth[:] = 1.0
    output.encoding[:3] = 0.0
    output.encoding[3:7] = 0.0, 0.0, 0.0, 1.0
    if calls == 20:
        output.encoding[3:7] = 0.0, 1.0, 0.0, 0.0
    return output

step_runner.to_host = faulty
sys.exit(node.main())
"""
"""The node with faults of the device, and in what the network says."""


def _parts(message: DiagnosticArray) -> dict[str, DiagnosticStatus]:
    return {status.name: status for status in message.status}


def _values(status: DiagnosticStatus) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.values}


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[NodeProcess, Peer, Any]]:
    parameters = {**TINY, "input.queue_policy": "all", "use_sim_time": True}
    namespace = ("-r", "__ns:=/left")
    program = ("-c", FAULTY)
    with NodeProcess(parameters, *namespace, program=program) as node:
        with Peer(node.domain, WATCHED) as peer:
            yield node, peer, peer.publisher("/left/image", wait_for_outputs=False)
        assert node.interrupt() == 0


def _status(peer: Peer, publisher: Any, stamp: int) -> ReconstructionStatus:
    publisher.publish(image_message(stamp * SECOND))
    message: ReconstructionStatus = peer.with_stamp("/left/xsvggt/status", stamp * SECOND)
    return message


def test_it_tells_of_everything_without_a_clock(running: tuple[NodeProcess, Peer, Any]) -> None:
    _, peer, publisher = running
    peer.wait_until(lambda: bool(peer.messages("/left/xsvggt/status")), "a first status")
    for stamp in range(1, 13):
        assert _status(peer, publisher, stamp).state == "running"

    def complete(message: DiagnosticArray) -> bool:
        parts = _parts(message)
        session = parts.get("left/xsvggt: session")
        return session is not None and _values(session)["frames"] == "12"

    peer.wait_until(lambda: any(map(complete, peer.messages("/diagnostics"))), "12 frames")
    parts = _parts(next(filter(complete, peer.messages("/diagnostics"))))
    assert set(parts) == {
        f"left/xsvggt: {part}"
        for part in ("reconstruction", "input", "cache", "session", "device", "map")
    }
    values = {key: value for status in parts.values() for key, value in _values(status).items()}
    assert 0 < float(values["latency p50 (s)"]) <= float(values["latency p95 (s)"])
    assert (values["received"], values["processed"], values["dropped"]) == ("12", "12", "0")
    assert (values["topic"], values["subscription"]) == ("/left/image", "reliable")
    assert 0 < int(values["tokens"]) <= int(values["budget (tokens)"]) == 200
    assert float(values["used by this process (MiB)"]) > 1
    assert float(values["free (MiB)"]) > 1
    assert values["last reset"] == "none"
    assert int(values["points"]) > 0
    assert int(values["held back"]) >= 0
    assert int(values["cleared"]) >= 0
    assert {status.level for status in parts.values()} == {DiagnosticStatus.OK}


def test_a_full_device_shrinks_the_budget_for_all_to_see(
    running: tuple[NodeProcess, Peer, Any],
) -> None:
    node, peer, publisher = running
    refused = _status(peer, publisher, 13)
    assert refused.state == "error"
    assert "ran out of memory" in refused.message
    assert "cache.budget_tokens is now 140" in refused.message

    def tells(event: ParameterEvent) -> bool:
        return any(
            (changed.name, changed.value.integer_value) == ("cache.budget_tokens", 140)
            for changed in event.changed_parameters
        )

    peer.wait_until(lambda: any(map(tells, peer.messages("/parameter_events"))), "the event")
    after = _status(peer, publisher, 14)
    assert (after.budget_tokens, after.session, after.session_frames) == (140, 2, 1)
    assert after.cache_tokens <= 140

    def reset(message: DiagnosticArray) -> bool:
        session = _parts(message).get("left/xsvggt: session")
        why = "the device ran out of memory"
        return session is not None and _values(session)["last reset"] == why

    peer.wait_until(lambda: any(map(reset, peer.messages("/diagnostics"))), "the reason")
    node.wait_for_line("refused: the device ran out of memory on frame 12 of the session")


def test_what_is_implausible_degrades_it(running: tuple[NodeProcess, Peer, Any]) -> None:
    node, peer, publisher = running
    # A session of two frames knows of nothing that is usual: only absolute rules apply.
    assert _status(peer, publisher, 15).state == "running"
    assert _status(peer, publisher, 16).state == "running"
    flat = _status(peer, publisher, 17)
    assert flat.state == "degraded"
    assert "degraded: depth is flat" in flat.message
    _status(peer, publisher, 18)
    assert "the pose jumped by 3.1" in _status(peer, publisher, 19).message

    def warns(message: DiagnosticArray) -> bool:
        part = _parts(message)["left/xsvggt: reconstruction"]
        return part.level == DiagnosticStatus.WARN and "degraded" in part.message

    peer.wait_until(lambda: any(map(warns, peer.messages("/diagnostics"))), "a warning")
    for stamp in range(20, 31):
        last = _status(peer, publisher, stamp)
    assert last.state == "running"
    node.wait_for_line("degraded: depth is flat")


def test_it_tells_rates_while_images_come(running: tuple[NodeProcess, Peer, Any]) -> None:
    """A rate is that of the last seconds, in which a busy machine may have been silent."""
    _, peer, publisher = running
    rates = ("input rate (Hz)", "output rate (Hz)")
    for stamp in range(100, 400):
        _status(peer, publisher, stamp)
        told = [_values(part) for each in peer.messages("/diagnostics") for part in each.status]
        if all(any(float(part.get(rate, 0)) > 0 for part in told) for rate in rates):
            return
    pytest.fail("no rate above 0 was ever told")


def test_an_input_without_publisher_warns(running: tuple[NodeProcess, Peer, Any]) -> None:
    _, peer, publisher = running
    peer.node.destroy_publisher(publisher)

    def warns(message: DiagnosticArray) -> bool:
        part = _parts(message).get("left/xsvggt: input")
        return part is not None and part.level == DiagnosticStatus.WARN

    peer.wait_until(lambda: any(map(warns, peer.messages("/diagnostics"))), "a warning")
    told = _parts(next(filter(warns, peer.messages("/diagnostics"))))
    assert told["left/xsvggt: input"].message == "publishers: 0"
