# SPDX-License-Identifier: Apache-2.0
"""The node under the commands of ``ros2``, where a distribution brings them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run scripts/test, or source a ROS 2 distribution")
pytest.importorskip("xsvggt_ros.msg", reason="needs this package's messages: run scripts/test")
if shutil.which("ros2") is None:
    pytest.skip("needs the command ros2, of a ROS 2 distribution", allow_module_level=True)

from node_process import PATIENCE, TINY, NodeProcess, Peer
from xsvggt_ros.msg import ReconstructionStatus

pytestmark = pytest.mark.slow  # each command takes seconds to find the node

STATUS = {"/xsvggt/status": ReconstructionStatus}
ASK_EVERYBODY = ("--no-daemon", "--spin-time", "3")
"""Without a daemon, which would outlive the test."""


def _ros2(domain: int, *words: str) -> str:
    """Return what a command says; asked again while it has not found the node."""
    deadline = time.monotonic() + PATIENCE
    while True:
        run = subprocess.run(
            ["ros2", *words],
            env={**os.environ, "ROS_DOMAIN_ID": str(domain)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if run.returncode == 0 or time.monotonic() > deadline:
            assert run.returncode == 0, run.stdout
            return run.stdout
        assert re.search("node not found", run.stdout, re.IGNORECASE), run.stdout


def test_parameters_are_set_dumped_and_refused(tmp_path: Path) -> None:
    with NodeProcess(TINY) as node, Peer(node.domain, STATUS) as peer:
        peer.wait_until(lambda: bool(peer.messages("status")), "a first status")
        for name, value in (("budget_mib", "64.0"), ("key_bits", "2"), ("adaptive", "none")):
            words = ("/xsvggt", f"cache.{name}", value, *ASK_EVERYBODY)
            assert "Set parameter successful" in _ros2(node.domain, "param", "set", *words)
        refused = ("/xsvggt", "cache.key_bits", "3", *ASK_EVERYBODY)
        assert "Setting parameter failed" in _ros2(node.domain, "param", "set", *refused)
        dump = _ros2(node.domain, "param", "dump", "/xsvggt", *ASK_EVERYBODY)
        file = tmp_path / "dump.yaml"
        file.write_text(dump[dump.index("/xsvggt:") :], encoding="utf-8")
    # What it dumps, it starts with.
    with NodeProcess({}, "--params-file", str(file)) as node, Peer(node.domain, STATUS) as peer:
        peer.wait_for_status(lambda s: s.state == "waiting", "start with the dump")
        for name, value in (("budget_mib", "64.0"), ("key_bits", "2"), ("adaptive", "none")):
            asked = ("/xsvggt", f"cache.{name}", *ASK_EVERYBODY)
            assert value in _ros2(node.domain, "param", "get", *asked)


def test_transitions_services_and_topics() -> None:
    with NodeProcess({**TINY, "lifecycle.autostart": False}) as node:
        with Peer(node.domain, STATUS) as peer:
            peer.wait_until(lambda: bool(peer.messages("status")), "a first status")
            for transition in ("configure", "activate"):
                words = ("/xsvggt", transition, *ASK_EVERYBODY)
                assert "Transitioning successful" in _ros2(node.domain, "lifecycle", "set", *words)
        assert "active" in _ros2(node.domain, "lifecycle", "get", "/xsvggt", *ASK_EVERYBODY)
        topics = _ros2(node.domain, "topic", "list", "-t", *ASK_EVERYBODY).splitlines()
        assert "/xsvggt/status [xsvggt_ros/msg/ReconstructionStatus]" in topics
        assert "/xsvggt/points [sensor_msgs/msg/PointCloud2]" in topics
        call = ("/xsvggt/reset", "std_srvs/srv/Trigger")
        assert "success=True" in _ros2(node.domain, "service", "call", *call)
