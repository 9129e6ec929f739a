# SPDX-License-Identifier: Apache-2.0
"""replay.launch.py by launch_testing: every image of a directory comes, in order.

Runs where a full ROS 2 and a built workspace are sourced: pytest, or launch_test on this file.
"""

from __future__ import annotations

import time
import unittest
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
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage

SAMPLE = Path(__file__).parents[2] / "sample/room"
IMAGES = sorted(SAMPLE.glob("*.[jp][pn]g"))
PATIENCE = 90.0


@pytest.mark.launch_test
def generate_test_description() -> LaunchDescription:
    arguments = {"bag": str(SAMPLE), "image": "/eye/image", "rate": "20", "frame_id": "eye"}
    # A launch that ends by itself breaks off its tests.
    arguments["loop"] = "true"
    launched = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(SHARE / "launch/replay.launch.py")),
        launch_arguments=arguments.items(),
    )
    return LaunchDescription([launched, launch_testing.actions.ReadyToTest()])


class TestReplay(unittest.TestCase):
    """What comes."""

    def test_every_image_comes_once_in_order(self) -> None:
        rclpy.init()
        node = rclpy.create_node("judge")
        images: list[CompressedImage] = []
        topic = "/eye/image/compressed"
        node.create_subscription(CompressedImage, topic, images.append, QoSProfile(depth=100))
        deadline = time.monotonic() + PATIENCE
        while len(images) < len(IMAGES) and time.monotonic() < deadline:
            rclpy.spin_once(node, timeout_sec=0.1)
        node.destroy_node()
        rclpy.shutdown()
        assert len(images) >= len(IMAGES)
        del images[len(IMAGES) :]
        assert {image.header.frame_id for image in images} == {"eye"}
        stamps = [p.header.stamp.sec + p.header.stamp.nanosec / 1e9 for p in images]
        for number, stamp in enumerate(stamps, 1):
            assert stamp == pytest.approx(number / 20)
        for image, path in zip(images, IMAGES, strict=True):
            assert bytes(image.data) == path.read_bytes()


@launch_testing.post_shutdown_test()
class TestShutdown(unittest.TestCase):
    """How it ended."""

    def test_the_program_left_cleanly(self, proc_info: Any) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
