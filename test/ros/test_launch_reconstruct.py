# SPDX-License-Identifier: Apache-2.0
"""reconstruct.launch.py by launch_testing: a recording goes in, values come out.

Runs where a full ROS 2 and a built workspace are sourced: pytest, or launch_test on this file.
"""

from __future__ import annotations

import os
import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REASON = "needs ROS 2's launch_testing and the built package: source a workspace that holds it"
for name in ("launch", "launch_ros.actions", "launch_testing.actions", "launch_testing.asserts"):
    pytest.importorskip(name, reason=REASON)
packages = pytest.importorskip("ament_index_python.packages", reason=REASON)
try:
    SHARE = Path(packages.get_package_share_directory("xsvggt_ros"))
except LookupError:
    pytest.skip(REASON, allow_module_level=True)

import launch_testing.actions
import launch_testing.asserts
import rclpy
from launch.actions import IncludeLaunchDescription
from launch.launch_description import LaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from xsvggt_ros.msg import ReconstructionStatus

SAMPLE = Path(__file__).parents[2] / "sample/room"
PATIENCE = 90.0
PARAMETERS = """
/**:
  ros__parameters:
    model: {preset: tiny}
    input: {width: 56}
    cache: {budget_tokens: 200}
"""


@pytest.mark.launch_test
def generate_test_description() -> LaunchDescription:
    parameters = Path(tempfile.mkdtemp()) / "tiny.yaml"
    parameters.write_text(PARAMETERS, encoding="utf-8")
    arguments = {
        "params_file": f"~/{os.path.relpath(parameters, Path.home())}",
        "bag": str(SAMPLE),
        "camera_name": "front",
        "namespace": "robot",
    }
    launched = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(SHARE / "launch/reconstruct.launch.py")),
        launch_arguments=arguments.items(),
    )
    return LaunchDescription([launched, launch_testing.actions.ReadyToTest()])


class TestReconstruct(unittest.TestCase):
    """What comes out while it runs."""

    node: Node
    statuses: list[ReconstructionStatus]
    clocks: list[Clock]

    @classmethod
    def setUpClass(cls) -> None:
        rclpy.init()
        cls.node = rclpy.create_node("judge")
        cls.statuses = []
        cls.clocks = []
        topic = "/robot/xsvggt/status"
        cls.node.create_subscription(
            ReconstructionStatus, topic, cls.statuses.append, QoSProfile(depth=100)
        )
        cls.node.create_subscription(Clock, "/clock", cls.clocks.append, QoSProfile(depth=100))

    @classmethod
    def tearDownClass(cls) -> None:
        cls.node.destroy_node()
        rclpy.shutdown()

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"never came true: {what}"
            rclpy.spin_once(self.node, timeout_sec=0.1)

    def _ask(self, kind: Any, service: str, request: Any) -> Any:
        client: Any = self.node.create_client(kind, f"/robot/xsvggt/{service}")
        self._wait(client.service_is_ready, service)
        future = client.call_async(request)
        self._wait(future.done, f"answer of {service}")
        return future.result()

    def test_images_of_the_recording_are_reconstructed(self) -> None:
        self._wait(lambda: any(s.frames_processed >= 3 for s in self.statuses), "three images")
        status = next(s for s in self.statuses if s.frames_processed >= 3)
        assert status.header.frame_id == "camera_optical_frame"
        assert (status.session, status.frames_refused) == (1, 0)
        assert 0 < status.cache_tokens <= status.budget_tokens == 200
        counted = status.frames_processed + status.frames_dropped + status.frames_pending
        assert status.frames_received == counted

    def test_it_lives_in_the_time_of_the_recording(self) -> None:
        request = GetParameters.Request(names=["use_sim_time", "input.width"])
        values = self._ask(GetParameters, "get_parameters", request).values
        assert (values[0].bool_value, values[1].integer_value) == (True, 56)
        self._wait(lambda: bool(self.clocks), "a clock")

    def test_it_has_started_by_itself(self) -> None:
        self._wait(lambda: bool(self.statuses), "a status")
        state = self._ask(GetState, "get_state", GetState.Request()).current_state
        assert state.label == "active"
        names = [name for name, _ in self.node.get_topic_names_and_types()]
        assert "/robot/front/image_raw" in names


@launch_testing.post_shutdown_test()
class TestShutdown(unittest.TestCase):
    """How it ended."""

    def test_all_programs_left_cleanly(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
