# SPDX-License-Identifier: Apache-2.0
"""Topics: their QoS, where names lead, who publishes, and what to do where nothing comes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo

try:
    from rclpy.event_handler import SubscriptionEventCallbacks as SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks as SubscriptionEventCallbacks

LARGE_DEPTH = 5
"""Fewer than this, and large messages are overwritten before they leave the process."""

LEAST_WAITING = 50
"""Images; 46 MB of 640x480 rgb8."""

RESULTS = QoSProfile(depth=LARGE_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
"""Every output: RViz asks for reliable ones, and best-effort subscribers connect as well."""

LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""A map: who subscribes later gets the newest one."""

TRANSFORMS_DEPTH = 100
"""Messages that wait, as in tf2_ros."""

DIAGNOSTICS = QoSProfile(depth=LARGE_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
"""As diagnostic_updater publishes them."""

RELIABILITIES = {
    "reliable": ReliabilityPolicy.RELIABLE,
    "best_effort": ReliabilityPolicy.BEST_EFFORT,
}


def waiting_depth(queue_size: int) -> int:
    """Return how many images may wait in the middleware for a queue that must not drop.

    It is bounded, because a reader acknowledges on reception: however long it is, it holds no
    publisher back, and what an unbounded one piles up ends in losses all the same.
    """
    return max(LEAST_WAITING, queue_size)


def latched_profile(depth: int) -> QoSProfile:
    """Return the profile of a subscription to what publishers keep for late ones."""
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )


def image_profile(reliability: ReliabilityPolicy, depth: int) -> QoSProfile:
    """Return the profile of the image subscription."""
    return QoSProfile(depth=depth, reliability=reliability)


def matching_reliability(publishers: Sequence[TopicEndpointInfo]) -> ReliabilityPolicy:
    """Return the best reliability that every one of ``publishers`` offers."""
    if all(each.qos_profile.reliability == ReliabilityPolicy.RELIABLE for each in publishers):
        return ReliabilityPolicy.RELIABLE
    return ReliabilityPolicy.BEST_EFFORT


def is_latched(publisher: TopicEndpointInfo) -> bool:
    """Return whether a publisher keeps messages for subscribers that come late."""
    return bool(publisher.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL)


def overrides_reliability(node: Node, topic: str) -> bool:
    """Return whether a qos_overrides parameter was given for the reliability of a subscription."""
    # rclpy offers no public way to ask for an override before it is declared.
    return reliability_override(topic) in node._parameter_overrides


def reliability_override(topic: str) -> str:
    """Return the name of the parameter that sets the reliability of a subscription."""
    return f"qos_overrides.{topic}.subscription.reliability"


def offered(publishers: Sequence[TopicEndpointInfo]) -> str:
    """Return how many publishers there are and what they offer, such as "1 (reliable)"."""
    offers = sorted({each.qos_profile.reliability.name.lower() for each in publishers})
    return f"{len(publishers)} ({', '.join(offers)})" if offers else "0"


def node_of(publisher: TopicEndpointInfo) -> str:
    """Return the full name of the node that a publisher belongs to."""
    return f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"


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
