# SPDX-License-Identifier: Apache-2.0
"""Types of messages: as the bag defines them, else as ROS does."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from xsvggt_ros.stream.sources.storage.base import Channel

_SEPARATOR = "=" * 80 + "\n"
_TRANSFORMS = "geometry_msgs/TransformStamped[] transforms"


class Definitions:
    """Deserializes messages, with a store of types for each definition that it meets.

    One for each, because recordings of several machines may define a type in several ways, and
    because a definition that cannot be read must not take the others with it.
    """

    def __init__(self) -> None:
        self._stores: dict[tuple[str, str, str], Typestore] = {}

    def deserialize(self, data: bytes, channel: Channel) -> Any:
        """Return a message as an object with the fields of its type.

        Raises whatever the data bring up.
        """
        key = channel.kind, channel.encoding, channel.definition
        if key not in self._stores:
            self._stores[key] = _store(channel)
        store = self._stores[key]
        if channel.encoding == "ros1":
            return store.deserialize_ros1(data, channel.kind)
        return store.deserialize_cdr(data, channel.kind)


def _store(channel: Channel) -> Typestore:
    """Return the types that a channel needs; its own definition counts where it can be read."""
    usual = _usual(channel.encoding)
    if not channel.definition:
        return usual
    try:
        if channel.language == "msg":
            types = get_types_from_msg(channel.definition, channel.kind)
        else:
            types = {}
            for part in _idl_parts(channel.definition):
                types.update(get_types_from_idl(part))
        store = get_typestore(Stores.EMPTY)
        store.register(types)
        store.get_msgdef(channel.kind)
    except Exception:  # A definition is foreign text, and its parser answers in many ways.
        if channel.kind in usual.fielddefs:
            return usual
        raise
    return store


def _idl_parts(text: str) -> list[str]:
    """Return each file of a definition in IDL."""
    if not text.startswith(f"{_SEPARATOR}IDL: "):
        return [text]
    return [part.partition("\n")[2] for part in text.split(_SEPARATOR)[1:]]


@lru_cache(maxsize=2)
def _usual(encoding: str) -> Typestore:
    """Return the types of ROS itself."""
    if encoding != "ros1":
        return get_typestore(Stores.LATEST)
    store = get_typestore(Stores.ROS1_NOETIC)
    store.register(get_types_from_msg(_TRANSFORMS, "tf2_msgs/msg/TFMessage"))
    return store
