# SPDX-License-Identifier: Apache-2.0
"""Which topics remappings lead to."""

from __future__ import annotations

import time

import pytest

REASON = "needs ROS 2 and this package's messages: run scripts/test, or source a built workspace"
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("xsvggt_ros.msg", reason=REASON)

import rclpy
from node_process import PATIENCE
from rclpy.context import Context
from rclpy.node import Node
from sensor_msgs.msg import Image
from xsvggt_ros.msg import ReconstructionStatus

from xsvggt_ros.ros.processes import free_domain
from xsvggt_ros.ros.topics import (
    calibration_topic,
    image_topic,
    published_topics,
    topics_of_type,
)


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


def test_what_reconstructions_put_out_is_proposed_to_nobody() -> None:
    context = Context()
    rclpy.init(context=context, domain_id=free_domain())
    nodes = [Node(name, context=context) for name in ("xsvggt", "other", "driver")]
    own, other, driver = nodes
    try:
        own.create_publisher(Image, "/xsvggt/color/image", 1)
        other.create_publisher(Image, "/other/color/image", 1)
        other.create_publisher(ReconstructionStatus, "/other/status", 1)
        driver.create_publisher(Image, "/camera/image_raw", 1)
        deadline = time.monotonic() + PATIENCE
        while "/camera/image_raw" not in published_topics(own) or "/other/status" not in dict(
            own.get_topic_names_and_types()
        ):
            assert time.monotonic() < deadline, "the topics were never found"
        images = topics_of_type(own, "sensor_msgs/msg/Image")
        assert images == ["/camera/image_raw"]
    finally:
        for node in nodes:
            node.destroy_node()
        context.try_shutdown()
