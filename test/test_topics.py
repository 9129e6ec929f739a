# SPDX-License-Identifier: Apache-2.0
"""Which topics remappings lead to."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run scripts/test, or source a ROS 2 distribution")

import rclpy
from rclpy.context import Context
from rclpy.node import Node

from xsvggt_ros.ros.domains import free_domain
from xsvggt_ros.ros.topics import calibration_topic, image_topic


@pytest.mark.parametrize(
    ("rules", "transport", "images", "calibrations"),
    [
        ([], "raw", "/a/image", "/a/camera_info"),
        ([], "compressed", "/a/image/compressed", "/a/camera_info"),
        (["image:=/front/raw"], "raw", "/front/raw", "/front/camera_info"),
        (["image:=/front/raw"], "compressed", "/front/raw/compressed", "/front/camera_info"),
        (
            ["image:=/front/raw", "image/compressed:=/radio/jpeg"],
            "compressed",
            "/radio/jpeg",
            "/radio/camera_info",
        ),
        (
            ["image:=/front/raw/compressed"],
            "compressed",
            "/front/raw/compressed",
            "/front/camera_info",
        ),
        (["camera_info:=/calibrated"], "raw", "/a/image", "/calibrated"),
        (["image:=/front/raw", "camera_info:=info"], "raw", "/front/raw", "/a/info"),
    ],
)
def test_remappings_move_images_and_their_calibration(
    rules: list[str], transport: str, images: str, calibrations: str
) -> None:
    context = Context()
    arguments = [part for rule in rules for part in ("-r", rule)]
    rclpy.init(args=["--ros-args", *arguments], context=context, domain_id=free_domain())
    node = Node("n", namespace="/a", context=context)
    try:
        topic = image_topic(node, transport)
        assert (topic, calibration_topic(node, topic)) == (images, calibrations)
    finally:
        node.destroy_node()
        context.try_shutdown()
