# SPDX-License-Identifier: Apache-2.0
"""A bag file behind this package's own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from xsvggt_ros.errors import FrameError, SourceError, XsvggtError
from xsvggt_ros.stream.sources.cut_off_bags import BagPath
from xsvggt_ros.stream.sources.topics import Topic


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded message, still serialized; ``received`` is in nanoseconds."""

    topic: str
    kind: str
    received: int
    data: bytes


class BagReader:
    """Reads ROS 1 and ROS 2 bags; close it after use."""

    def __init__(self, path: Path) -> None:
        """Open the bag.

        Raises:
            SourceError: it is damaged, unfinished, or no bag.

        """
        self._path = path
        stores = get_typestore(Stores.LATEST)
        with _reported(SourceError, f"Cannot open the bag {path}"):
            self._reader = AnyReader([BagPath(path)], default_typestore=stores)
            self._reader.open()

    def close(self) -> None:
        """Close the bag."""
        self._reader.close()

    @property
    def duration(self) -> int:
        """Nanoseconds from the first to the last message of any topic."""
        return self._reader.duration

    def topics(self) -> list[Topic]:
        """List the topics."""
        infos = self._reader.topics.items()
        return [Topic(name, info.msgtype or "several types", info.msgcount) for name, info in infos]

    def messages(self, *topics: Topic | None) -> Iterator[Recorded]:
        """Yield the messages of the topics in the order of the recording.

        Raises:
            SourceError: the bag is damaged here.

        """
        names = {topic.name for topic in topics if topic}
        connections = [each for each in self._reader.connections if each.topic in names]
        messages = self._reader.messages(connections) if connections else iter(())
        while True:
            with _reported(SourceError, f"Cannot read on in the bag {self._path}"):
                message = next(messages, None)
            if message is None:
                return
            connection, received, data = message
            yield Recorded(connection.topic, connection.msgtype, received, data)

    def deserialize(self, message: Recorded) -> Any:
        """Return the message as an object with the fields of its type.

        Raises:
            FrameError: the message is damaged.

        """
        with _reported(FrameError, f"Cannot read a message of {message.topic}"):
            return self._reader.deserialize(message.data, message.kind)


@contextmanager
def _reported(kind: type[XsvggtError], what: str) -> Iterator[None]:
    """Raise what the reader raises as our own; a damaged bag brings up errors of every type."""
    try:
        yield
    except Exception as error:
        detail = str(error).rstrip(".") or type(error).__name__
        raise kind(f"{what}: {detail}. {_remedy(error)}") from error


def _remedy(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "Check the rights of the file."
    return "Check that it is a bag; 'rosbag reindex' or 'mcap recover' mend unfinished ones."
