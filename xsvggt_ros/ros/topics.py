# SPDX-License-Identifier: Apache-2.0
"""Which topics names lead to, who publishes there, and what to do where nothing comes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node

from xsvggt_ros.ros.qos import node_of

STATUS_TYPE = "xsvggt_ros/msg/ReconstructionStatus"
COMPRESSED = "/compressed"
"""What image_transport adds to the topic of the raw images."""


def image_topic(node: Node, transport: str, camera: str = "") -> str:
    """Return the resolved topic of the images.

    As with image_transport, remapping ``image`` moves ``image/compressed`` along; remapping
    ``image/compressed`` itself goes first. Who names the compressed topic as ``image`` means it.

    Args:
        node: whose remappings count.
        transport: ``raw`` or ``compressed``.
        camera: one of several; empty for a single one.

    """
    name = f"{camera}/image" if camera else "image"
    if transport == "raw":
        return node.resolve_topic_name(name)
    own = _remapped(node, name + COMPRESSED)
    return own or node.resolve_topic_name(name).removesuffix(COMPRESSED) + COMPRESSED


def calibration_topic(node: Node, images: str, camera: str = "") -> str:
    """Return the resolved topic of the camera_info: the images' sibling, unless remapped.

    Args:
        node: whose remappings count.
        images: the resolved topic of the images.
        camera: one of several; empty for a single one.

    """
    own = _remapped(node, f"{camera}/camera_info" if camera else "camera_info")
    return own or images.removesuffix(COMPRESSED).rpartition("/")[0] + "/camera_info"


def type_name(message_type: type[Any]) -> str:
    """Return the name that the graph has for a message type, such as sensor_msgs/msg/Image."""
    package = message_type.__module__.partition(".")[0]
    return f"{package}/msg/{message_type.__name__}"


def published_topics(node: Node) -> dict[str, set[str]]:
    """Return the types of each topic that another node publishes, and no node of this package.

    What a reconstruction puts out is never its input; its ``~/status`` tells who that is.
    """
    ours = {node.get_fully_qualified_name()}
    publishers = {
        topic: node.get_publishers_info_by_topic(topic)
        for topic, _ in node.get_topic_names_and_types()
    }
    for found in publishers.values():
        ours |= {node_of(each) for each in found if each.topic_type == STATUS_TYPE}
    own_topics = {each.topic_name for each in node.publishers}
    return {
        topic: types
        for topic, found in publishers.items()
        if topic not in own_topics
        and (types := {each.topic_type for each in found if node_of(each) not in ours})
    }


def topics_of_type(node: Node, name: str) -> list[str]:
    """Return the topics on which another node publishes this type, sorted."""
    return sorted(topic for topic, types in published_topics(node).items() if name in types)


def _remapped(node: Node, topic: str) -> str | None:
    resolved = node.resolve_topic_name(topic)
    return None if resolved == node.resolve_topic_name(topic, only_expand=True) else resolved


RAW_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
TRANSPORTS = {RAW_TYPE: "raw", COMPRESSED_TYPE: "compressed"}

MOST_NAMED = 8
_UNREADABLE = ("/compressedDepth", "/zstd", "/theora", "/ffmpeg")
"""Transports of image_transport that are not read; some use the types of those that are."""
_NO_CAMERA = {"depth", "disparity", "confidence", "mask", "costmap"}


@dataclass(frozen=True, slots=True)
class Remedy:
    """What leads to the images of one topic.

    Attributes:
        transport: value of ``input.image_transport``.
        name: what to remap, such as ``image``.
        target: what to remap it to.

    """

    transport: str
    name: str
    target: str


def remedy_for(topic: str, kind: str, name: str) -> Remedy:
    """Return how to subscribe to a topic.

    Args:
        topic: that carries images.
        kind: type of its messages.
        name: under which a node subscribes to raw images.

    """
    if kind == RAW_TYPE:
        return Remedy("raw", name, topic)
    raw = topic.removesuffix(COMPRESSED)
    if raw == topic or raw.endswith(COMPRESSED):  # no name of raw images leads there
        return Remedy("compressed", name + COMPRESSED, topic)
    return Remedy("compressed", name, raw)


def advice(topic: str, transport: str, name: str, published: Mapping[str, Iterable[str]]) -> str:
    """Return what to do where the images of ``topic`` do not come, by what others publish.

    Args:
        topic: that is subscribed to, resolved.
        transport: ``input.image_transport`` now.
        name: of the raw images before remapping.
        published: the types of each topic that somebody publishes, this node's own left out.

    """
    wanted = _type_of(transport)
    found = {
        each: kind
        for each, kinds in sorted(published.items())
        for kind in (wanted, *TRANSPORTS)
        if kind in kinds and _is_camera(each)
    }
    here = [each for each in found if _family(each) == _family(topic)]
    alike = [each for each, kind in found.items() if kind == wanted and each not in here]
    for candidates in (here, alike, list(found)):
        if candidates:
            return _in_words(topic, transport, [remedy_for(e, found[e], name) for e in candidates])
    unread = sorted(each for each in published if each.endswith(_UNREADABLE))
    if unread:
        return (
            f"{', '.join(unread[:MOST_NAMED])} cannot be read here; have image_transport republish "
            "it as raw or compressed"
        )
    return f"start a camera or a bag that publishes {wanted}"


def _in_words(topic: str, transport: str, remedies: list[Remedy]) -> str:
    first = remedies[0]
    way = first.transport, first.name
    targets = sorted({each.target for each in remedies if (each.transport, each.name) == way})
    words = []
    if first.transport != transport:
        words.append(f"set input.image_transport to {first.transport}")
    if targets != [_target_now(topic, transport, first)]:
        words.append(f"remap {first.name} to one of {', '.join(targets[:MOST_NAMED])}")
    return " and ".join(words)


def _target_now(topic: str, transport: str, remedy: Remedy) -> str | None:
    """Return what the name in a remedy is remapped to now, None where the topic cannot tell."""
    if transport == "raw":
        return None if remedy.name.endswith(COMPRESSED) else topic
    if remedy.transport == "raw":
        return None
    return topic if remedy.name.endswith(COMPRESSED) else topic.removesuffix(COMPRESSED)


def _type_of(transport: str) -> str:
    return next(kind for kind, name in TRANSPORTS.items() if name == transport)


def _family(topic: str) -> str:
    """Return a topic without what its transport adds to it."""
    return topic.removesuffix(COMPRESSED)


def _is_camera(topic: str) -> bool:
    """Return whether a topic may carry what a camera sees, by its name."""
    words = set(re.split("[/_]", topic))
    return not topic.endswith(_UNREADABLE) and words.isdisjoint(_NO_CAMERA)
