# SPDX-License-Identifier: Apache-2.0
"""A bag, be it one file or a directory of several, behind this package's own errors."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from heapq import merge
from itertools import chain, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from xsvggt_ros.errors import FrameError, SourceError, XsvggtError
from xsvggt_ros.stream.messages import SEVERAL_KINDS, Topic
from xsvggt_ros.stream.sources.storage import (
    READ_ENCODINGS,
    ROS1,
    Channel,
    NoBagError,
    Storage,
    bag_files,
    decompressed_message,
    open_storage,
)

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


METADATA = "metadata.yaml"
_NAMED = 3
"""Channels that a sentence names."""
_LONGEST_PAUSE = 60_000_000_000
"""Nanoseconds between two files of one recording."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded message, still serialized; ``received`` is in nanoseconds."""

    topic: str
    kind: str
    received: int
    data: bytes
    channel: Channel = field(repr=False)


class BagReader:
    """Reads ROS 1 and ROS 2 bags; close it after use.

    What the files hold counts, not what ``metadata.yaml`` says of them; only where they hold less
    than it announces is that a remark. Channels that are no ROS messages are passed over.

    Attributes:
        remarks: what whoever reads on must know, a sentence each.

    """

    def __init__(self, path: Path) -> None:
        """Open the bag; one that broke off is read as far as it is whole.

        Raises:
            SourceError: it is no bag, or nothing in it is whole.

        """
        self._path = path
        self._scratch = TemporaryDirectory(prefix="xsvggt_bag_")
        self._storages: list[Storage] = []
        self._files: dict[int, Path] = {}
        """Of each storage, by its identity."""
        self._definitions = Definitions()
        self.remarks: list[str] = []
        try:
            self._open_all()
        except BaseException:
            self.close()
            raise
        self.remarks += [
            *self._damage(), *self._missing(), *self._pauses(), *self._left_out(),
        ]  # fmt: skip

    def _open_all(self) -> None:
        """Open every file; one that cannot be is a remark, unless it is the only one."""
        files = _files(self._path)
        failed: list[SourceError] = []
        for number, file in enumerate(files):
            # One directory for each, since files of different directories may share their names.
            scratch = Path(self._scratch.name, str(number))
            scratch.mkdir()
            try:
                with _reported(SourceError, f"Cannot open the bag {file}", _remedy(file)):
                    storage = open_storage(file, scratch)
                self._storages.append(storage)
                self._files[id(storage)] = file
            except SourceError as error:
                failed.append(error)
        if not self._storages:
            if failed:
                raise failed[0]
            raise SourceError(f"Cannot open the bag {self._path}: it holds no .mcap or .db3 file.")
        self.remarks += [f"A file is left out: {error}" for error in failed]
        self._leave_out_copies()

    def _leave_out_copies(self) -> None:
        """Close files of which another one holds all: a converted, copied or mended one."""
        kept: list[Storage] = []
        for each in sorted(self._storages, key=_size, reverse=True):
            whole = next((other for other in kept if _is_copy(each, other)), None)
            if whole is None:
                kept.append(each)
                continue
            self.remarks.append(
                f"A file is left out: {self._files[id(each)]} is a copy of "
                f"{self._files[id(whole)]}, or of a part of it."
            )
            each.close()
        self._storages = [each for each in self._storages if each in kept]

    def _pauses(self) -> Iterator[str]:
        """Say where files are of one directory, and hardly of one recording."""
        timed = sorted((each for each in self._storages if each.start <= each.end),
                       key=lambda each: each.start)  # fmt: skip
        for before, after in pairwise(timed):
            pause = after.start - max(each.end for each in timed[: timed.index(after)])
            if pause > _LONGEST_PAUSE:
                yield (
                    f"{self._path} seems to hold several recordings: {self._files[id(after)].name} "
                    f"begins {pause / 1e9:.0f} s after {self._files[id(before)].name}. They are "
                    "read as one; name a file to read it alone."
                )
                return

    def _damage(self) -> Iterator[str]:
        damaged = [each.damage for each in self._storages if each.damage]
        if damaged:
            yield (
                f"{self._path} is not whole ({damaged[0]}): it is read as far as it goes. "
                f"{_repair(self._path)}"
            )

    def _missing(self) -> Iterator[str]:
        """Name what ``metadata.yaml`` announces and no file holds."""
        held: Counter[str] = Counter()
        for channel in self._channels:
            held[channel.topic] += channel.count
        announced = _announced(self._path)
        fewer = [name for name, count in announced.items() if count > held[name]]
        if fewer:
            listed = ", ".join(f"{held[name]} of {announced[name]} on {name}" for name in fewer[:3])
            more = f" and fewer on {len(fewer) - 3} more topics" if len(fewer) > 3 else ""
            yield (
                f"{self._path} holds fewer messages than its {METADATA} announces: {listed}{more}; "
                "a file of it may be missing or cut off."
            )

    def _left_out(self) -> Iterator[str]:
        foreign = [each for each in self._channels if not each.is_read and each.count]
        if foreign:
            named = ", ".join(f"{each.topic} ({each.encoding or 'unknown'})" for each in
                              foreign[:_NAMED])  # fmt: skip
            more = f" and {len(foreign) - _NAMED} more" if len(foreign) > _NAMED else ""
            yield (
                f"{self._path}: {len(foreign)} channels hold no ROS messages and are left out: "
                f"{named}{more}; {' and '.join(READ_ENCODINGS)} are read."
            )

    def close(self) -> None:
        """Close the bag, and remove what was copied of it."""
        for storage in self._storages:
            storage.close()
        self._storages.clear()
        self._scratch.cleanup()

    @property
    def _channels(self) -> list[Channel]:
        return list(chain.from_iterable(each.channels for each in self._storages))

    @property
    def duration(self) -> int:
        """Nanoseconds from the first to the last message of any topic."""
        start = min(each.start for each in self._storages)
        end = max(each.end for each in self._storages)
        return max(0, end - start)

    def topics(self) -> list[Topic]:
        """List the topics, those that cannot be read with what they are written in."""
        grouped: dict[str, list[Channel]] = defaultdict(list)
        for channel in self._channels:
            grouped[channel.topic].append(channel)
        return [_topic(name, channels) for name, channels in sorted(grouped.items())]

    def messages(self, *topics: Topic | None) -> Iterator[Recorded]:
        """Yield the messages of the topics in the order of the recording.

        Raises:
            SourceError: the bag is damaged here.

        """
        names = {topic.name for topic in topics if topic}
        streams = [_messages(each, names) for each in self._storages]
        messages = merge(*streams, key=lambda each: each.received)
        while True:
            with _reported(
                SourceError, f"Cannot read on in the bag {self._path}", _repair(self._path)
            ):
                message = next(messages, None)
            if message is None:
                return
            yield message

    def deserialize(self, message: Recorded) -> Any:
        """Return the message as an object with the fields of its type.

        Raises:
            FrameError: the message is damaged.

        """
        with _reported(FrameError, f"Cannot read a message of {message.topic}", "Record it again."):
            return self._definitions.deserialize(
                decompressed_message(message.data), message.channel
            )


def _size(storage: Storage) -> tuple[bool, int]:
    """Return what tells which of two files has more: a whole one, then the number of messages."""
    return storage.damage is None, sum(each.count for each in storage.channels)


def _is_copy(storage: Storage, other: Storage) -> bool:
    """Tell whether another file holds all messages of one, by their numbers and the first one."""
    held = {each.topic: each for each in other.channels}
    mine = [each for each in storage.channels if each.count]
    inside = other.start <= storage.start and storage.end <= other.end
    if not mine or not inside or any(each.topic not in held for each in mine):
        return False
    if any(each.count > held[each.topic].count for each in mine):
        return False
    first = min(mine, key=lambda each: each.count)
    return _first(storage, first.number) == _first(other, held[first.topic].number)


def _first(storage: Storage, number: int) -> tuple[int, bytes] | None:
    """Return time and data of the first message of a channel, None where none can be read."""
    try:
        found = next(storage.messages([number]), None)
    except (OSError, ValueError):
        return None
    return found and found[1:]


def _messages(storage: Storage, names: set[str]) -> Iterator[Recorded]:
    channels = {
        each.number: each for each in storage.channels if each.topic in names and each.is_read
    }
    if not channels:
        return
    for number, received, data in storage.messages(channels):
        channel = channels[number]
        yield Recorded(channel.topic, channel.kind, received, data, channel)


def _topic(name: str, channels: list[Channel]) -> Topic:
    read = [each for each in channels if each.is_read] or channels
    kinds = {each.kind for each in read}
    foreign = "" if read[0].is_read else read[0].encoding or "an unknown encoding"
    kind = kinds.pop() if len(kinds) == 1 else SEVERAL_KINDS
    return Topic(name, kind, sum(each.count for each in read), foreign)


@contextmanager
def _reported(kind: type[XsvggtError], what: str, remedy: str) -> Iterator[None]:
    """Raise what a reader raises as our own; a damaged bag brings up errors of every type."""
    try:
        yield
    except NoBagError as error:
        raise kind(f"{what}: {_detail(error)}.") from error
    except PermissionError as error:
        raise kind(f"{what}: {_detail(error)}. Check the rights of the file.") from error
    except Exception as error:
        raise kind(f"{what}: {_detail(error)}. {remedy}") from error


def _files(path: Path) -> list[Path]:
    with _reported(SourceError, f"Cannot open the bag {path}", "Check its path."):
        return bag_files(path)


def _announced(path: Path) -> dict[str, int]:
    """Return how many messages ``metadata.yaml`` says that each topic has; it may say nonsense."""
    try:
        text = (path / METADATA).read_text(encoding="utf-8", errors="replace")
        told = yaml.safe_load(text)["rosbag2_bagfile_information"]["topics_with_message_count"]
        return {str(each["topic_metadata"]["name"]): int(each["message_count"]) for each in told}
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return {}


def _detail(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).rstrip(".") or type(error).__name__


def _remedy(path: Path) -> str:
    return f"Check that it is a bag and that it was copied as a whole. {_repair(path)}"


def _repair(path: Path) -> str:
    """Return how a bag of this format is mended for good."""
    if path.name.lower().endswith(ROS1):
        return "'rosbag reindex' of ROS 1 mends an unfinished one."
    if any(".mcap" in each.name.lower() for each in bag_files(path)):
        return "'mcap recover' mends an unfinished one."
    return "'ros2 bag reindex' mends an unfinished directory, 'sqlite3 FILE .recover' a file."
