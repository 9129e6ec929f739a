# SPDX-License-Identifier: Apache-2.0
"""What to change so that images arrive, by what is published."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from xsvggt_ros.ros.topics import COMPRESSED

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
    """Return how to subscribe to a topic of type ``kind``; ``name`` is that of the raw images."""
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
