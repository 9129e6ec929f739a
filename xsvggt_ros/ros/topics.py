# SPDX-License-Identifier: Apache-2.0
"""Names of the input topics after remapping, and what is published where."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node

from xsvggt_ros.ros.qos import node_of

COMPRESSED = "/compressed"
"""What image_transport adds to the topic of the raw images."""


def image_topic(node: Node, transport: str, camera: str = "") -> str:
    """Return the resolved topic of the images; ``camera`` names one of several.

    As with image_transport, remapping ``image`` moves ``image/compressed`` along; remapping
    ``image/compressed`` itself goes first. Who names the compressed topic as ``image`` means it.
    """
    name = f"{camera}/image" if camera else "image"
    if transport == "raw":
        return node.resolve_topic_name(name)
    own = _remapped(node, name + COMPRESSED)
    return own or node.resolve_topic_name(name).removesuffix(COMPRESSED) + COMPRESSED


def calibration_topic(node: Node, images: str, camera: str = "") -> str:
    """Return the resolved topic of the camera_info: the images' sibling, unless remapped."""
    own = _remapped(node, f"{camera}/camera_info" if camera else "camera_info")
    return own or images.removesuffix(COMPRESSED).rpartition("/")[0] + "/camera_info"


def type_name(message_type: type[Any]) -> str:
    """Return the name that the graph has for a message type, such as sensor_msgs/msg/Image."""
    package = message_type.__module__.partition(".")[0]
    return f"{package}/msg/{message_type.__name__}"


def published_topics(node: Node) -> dict[str, set[str]]:
    """Return the types of each topic that another node publishes."""
    own = node.get_fully_qualified_name()
    return {
        topic: types
        for topic, _ in node.get_topic_names_and_types()
        if (
            types := {
                each.topic_type
                for each in node.get_publishers_info_by_topic(topic)
                if node_of(each) != own
            }
        )
    }


def topics_of_type(node: Node, name: str) -> list[str]:
    """Return the topics on which another node publishes this type, sorted."""
    return sorted(topic for topic, types in published_topics(node).items() if name in types)


def _remapped(node: Node, topic: str) -> str | None:
    resolved = node.resolve_topic_name(topic)
    return None if resolved == node.resolve_topic_name(topic, only_expand=True) else resolved
