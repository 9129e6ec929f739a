# SPDX-License-Identifier: Apache-2.0
"""A bag file behind this package's own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from xsvggt_ros.errors import FrameError, SourceError, XsvggtError
from xsvggt_ros.stream.sources.mending import bag_files, mended
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
        """Open the bag; one that broke off is read as far as it is whole.

        Raises:
            SourceError: it is no bag, or nothing in it is whole.

        """
        self._path = path
        self.damage: str | None = None
        """What is wrong with the bag, or None."""
        self._scratch: TemporaryDirectory[str] | None = None
        paths = [path] if _is_whole_folder(path) else bag_files(path)
        try:
            self._reader = self._opened(paths)
        except SourceError as error:
            self._open_damaged(error)

    def _opened(self, paths: list[Any]) -> AnyReader:
        with _reported(SourceError, f"Cannot open the bag {self._path}"):
            reader = AnyReader(paths, default_typestore=get_typestore(Stores.LATEST))
            reader.open()
        return reader

    def _open_damaged(self, reason: SourceError) -> None:
        """Open the bag's files one by one, those mended that do not open as they are."""
        self._scratch = TemporaryDirectory(prefix="xsvggt_bag_")
        try:
            with _reported(SourceError, f"Cannot mend the bag {self._path}"):
                paths = [self._readable(each, self._scratch) for each in bag_files(self._path)]
                self._reader = self._opened(paths)
        except SourceError as error:
            self.close()
            raise reason from error
        self.damage = (
            f"{self._path} is not whole ({_detail(reason.__cause__ or reason)}): it is read as far "
            "as it goes. 'rosbag reindex' or 'mcap recover' mend it for good."
        )

    def _readable(self, path: Path, scratch: TemporaryDirectory[str]) -> Any:
        try:
            self._opened([path]).close()
        except SourceError:
            return mended(path, scratch)
        return path

    def close(self) -> None:
        """Close the bag, and remove what was copied of it."""
        reader = getattr(self, "_reader", None)
        if reader is not None:
            reader.close()
        if self._scratch is not None:
            self._scratch.cleanup()

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
        raise kind(f"{what}: {_detail(error)}. {_remedy(error)}") from error


def _is_whole_folder(path: Path) -> bool:
    """Tell a file, or a folder with metadata, from one whose recorder was killed."""
    return path.is_file() or (path / "metadata.yaml").exists()


def _detail(error: BaseException) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _remedy(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "Check the rights of the file."
    return "Check that it is a bag; 'rosbag reindex' or 'mcap recover' mend unfinished ones."
