# SPDX-License-Identifier: Apache-2.0
"""ROS 1 bags, whole or cut off."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from rosbags.rosbag1 import Reader

from xsvggt_ros.stream.sources.storage.base import EMPTY_TIMES, Channel
from xsvggt_ros.stream.sources.storage.rosbag1_index import indexed


class Rosbag1Storage:
    """A ROS 1 bag, read by rosbags."""

    def __init__(self, path: Path) -> None:
        """Open it; one that broke off gets an index for the part that is whole.

        Raises:
            ValueError: it is no ROS 1 bag, or nothing in it is whole.
            OSError: it cannot be read.

        """
        self.damage: str | None = None
        try:
            self._reader = _opened(path)
        except OSError:
            raise
        except Exception as reason:  # noqa: BLE001 - damaged bytes bring up errors of every type
            self._reader = _mended(path, reason)
            self.damage = str(reason).rstrip(".") or type(reason).__name__
        # A bag may name a connection once for each publisher; numbers stay its own.
        self._connections = {each.id: each for each in self._reader.connections}
        self.channels = [
            Channel(each.id, each.topic, each.msgtype, "ros1", "msg", each.msgdef.data,
                    each.msgcount)
            for each in self._connections.values()
        ]  # fmt: skip
        held = bool(self._reader.message_count)
        self.start, self.end = (
            (self._reader.start_time, self._reader.end_time - 1) if held else EMPTY_TIMES
        )

    def messages(self, numbers: Collection[int]) -> Iterator[tuple[int, int, bytes]]:
        """Yield the messages of some channels in the order of time."""
        chosen = [each for number, each in self._connections.items() if number in numbers]
        for connection, time, data in self._reader.messages(chosen) if chosen else ():
            yield connection.id, time, bytes(data)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def _opened(path: Any) -> Reader:
    reader = Reader(path)
    reader.open()
    return reader


def _mended(path: Path, reason: Exception) -> Reader:
    """Open what is whole of a bag that cannot be opened for a reason."""
    try:
        return _opened(indexed(path))
    except Exception as error:
        raise ValueError(str(reason) or type(reason).__name__) from error
