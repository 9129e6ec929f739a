# SPDX-License-Identifier: Apache-2.0
"""The QoS profiles of the node, named once."""

from __future__ import annotations

from collections.abc import Sequence

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
"""Every output: a best-effort subscriber gets it too, and RViz asks for reliable ones."""

LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""A map: who subscribes later gets the newest one."""

TRANSFORMS_DEPTH = 100
"""Messages that wait, as in tf2_ros."""

TRANSFORMS = QoSProfile(depth=TRANSFORMS_DEPTH, reliability=ReliabilityPolicy.RELIABLE)
"""As tf2_ros publishes /tf."""

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


def latched(depth: int) -> QoSProfile:
    """Return the profile of a subscription to what publishers keep for late ones."""
    return QoSProfile(
        depth=depth,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )


def images(reliability: ReliabilityPolicy, depth: int) -> QoSProfile:
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


def describe(publishers: Sequence[TopicEndpointInfo]) -> str:
    """Return how many publishers there are and what they offer, such as "1 (reliable)"."""
    offers = sorted({each.qos_profile.reliability.name.lower() for each in publishers})
    return f"{len(publishers)} ({', '.join(offers)})" if offers else "0"


def node_of(publisher: TopicEndpointInfo) -> str:
    """Return the full name of the node that a publisher belongs to."""
    return f"{publisher.node_namespace.rstrip('/')}/{publisher.node_name}"
