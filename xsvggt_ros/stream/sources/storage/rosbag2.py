# SPDX-License-Identifier: Apache-2.0
"""The two file formats of rosbag2, SQLite and MCAP, whole or cut off.

**SQLite.** Messages of a recorder that was killed may still lie in the write-ahead log beside the
file (``-wal``; rosbag2's ``resilient`` preset), which a reader must be allowed to index; where it
is not, the file is copied. Of a file that lacks pages at its end, what the tree of messages still
leads to is read; SQLite's own ``.recover`` may find more.

**MCAP** (https://mcap.dev/spec). rosbags refuses a file for one channel that is not ROS 2, and the
reader of the MCAP project sorts a file without an index in memory. Here what a channel is decides
about that channel only, and a file without an end is scanned as far as it is whole.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias
from urllib.parse import quote
from zlib import crc32

from xsvggt_ros.stream.sources.storage.base import (
    EMPTY_TIMES,
    Channel,
    NoBagError,
    decompressed_chunk,
    kind_of,
)

SQLITE_MAGIC = b"SQLite format 3\0"
_LOGS = ("-wal", "-journal")
_SQLITE_LANGUAGES = {"ros2msg": "msg", "ros2idl": "idl"}


class SqliteStorage:
    """An SQLite file of rosbag2."""

    def __init__(self, path: Path, scratch: Path) -> None:
        """Find topics and messages; ``scratch`` is where the file may be copied to.

        Raises:
            ValueError: it is no rosbag2 in SQLite, or its topics or first message are not whole.
            OSError: it cannot be read, or not be copied.

        """
        self.damage: str | None = None
        self._last: int | None = None
        self._index: Path | None = None
        if not path.stat().st_size:
            raise ValueError("it is empty")
        try:
            self._connection = self._opened(path, scratch)
            try:
                self.channels, self.start, self.end = self._overview()
            except BaseException:
                self.close()
                raise
        except sqlite3.Error as error:
            raise ValueError(f"its topics cannot be read ({error})") from error

    def _opened(self, path: Path, scratch: Path) -> sqlite3.Connection:
        logs = [each for suffix in _LOGS if _size(each := _beside(path, suffix))]
        if not logs:
            return _connected(path, "mode=ro&immutable=1")
        shared = _beside(path, "-shm")
        if logs == [_beside(path, "-wal")] and os.access(path.parent, os.W_OK):
            self._index = None if shared.exists() else shared
            connection = _connected(path, "mode=ro")
            try:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            except sqlite3.OperationalError:
                connection.close()  # Somebody holds it, or the file system cannot share memory.
            else:
                return connection
        for each in (path, *logs):
            shutil.copy(each, scratch / each.name)
        return _connected(scratch / path.name, "mode=rw")

    def _overview(self) -> tuple[list[Channel], int, int]:
        """Return channels, and the times of the first and the last message."""
        if not self._has("topics"):
            raise NoBagError("it is a database, but none of rosbag2: it has no table of topics")
        try:
            found = self._counted("SELECT topic_id, count(*), min(timestamp), max(timestamp) "
                                  "FROM messages GROUP BY topic_id")  # fmt: skip
        except sqlite3.DatabaseError as error:
            # Else SQLite refuses a file that is shorter than its header says.
            self._connection.execute("PRAGMA writable_schema=ON")
            self.damage = str(error)
            found = self._counted_one_by_one()
            if not found:
                raise ValueError("it ends before its first whole message") from error
        definitions = self._definitions()
        channels = []
        for number, topic, kind, encoding in self._connection.execute(
            "SELECT id, name, type, serialization_format FROM topics ORDER BY id"
        ):
            count = found[number][0] if number in found else 0
            language, text = definitions.get(kind, ("", ""))
            channels.append(
                Channel(number, topic, kind_of(kind), encoding, language, text, count)
            )  # fmt: skip
        times = [EMPTY_TIMES, *(each[1:] for each in found.values())]
        return channels, min(start for start, _ in times), max(end for _, end in times)

    def _has(self, table: str) -> bool:
        """Tell whether there is a table; true where the list of tables cannot be read."""
        try:
            names = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_master")}
        except sqlite3.DatabaseError:
            return True
        return table in names

    def _counted(self, query: str) -> dict[int, tuple[int, int, int]]:
        return {number: rest for number, *rest in self._connection.execute(query)}

    def _counted_one_by_one(self) -> dict[int, tuple[int, int, int]]:
        """Read messages up to the first missing page."""
        found: dict[int, tuple[int, int, int]] = {}
        rows = self._connection.execute(
            "SELECT id, topic_id, timestamp, data FROM messages ORDER BY id"
        )
        try:
            for row, number, time, _ in rows:
                count, start, end = found.get(number, (0, *EMPTY_TIMES))
                found[number] = count + 1, min(start, time), max(end, time)
                self._last = row
        except sqlite3.DatabaseError:
            pass  # Here the file ends.
        return found

    def _definitions(self) -> dict[str, tuple[Any, str]]:
        """Return language and text of each type's definition; of old bags, none."""
        try:
            rows = self._connection.execute(
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            )
            return {
                kind: (_SQLITE_LANGUAGES.get(language, ""), text) for kind, language, text in rows
            }
        except sqlite3.DatabaseError:
            return {}

    def messages(self, numbers: Collection[int]) -> Iterator[tuple[int, int, bytes]]:
        """Yield the messages of some channels in the order of time; of a cut file, as recorded."""
        marks = ", ".join("?" * len(numbers))
        query = f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({marks})"
        values = [*numbers]
        if self._last is None:
            query += " ORDER BY timestamp, id"
        else:
            query += " AND id <= ? ORDER BY id"
            values.append(self._last)
        try:
            for number, time, data in self._connection.execute(query, values):
                yield number, time, bytes(data)
        except (sqlite3.DatabaseError, TypeError) as error:
            raise ValueError(str(error)) from error

    def close(self) -> None:
        """Close the file, and leave nothing beside it that was not there."""
        self._connection.close()
        if self._index is not None:
            self._index.unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _connected(path: Path, options: str) -> sqlite3.Connection:
    address = f"file:{quote(str(path.resolve()))}?{options}"
    return sqlite3.connect(address, uri=True, check_same_thread=False)


Octets: TypeAlias = "bytes | memoryview"

MCAP_MAGIC = b"\x89MCAP0\r\n"
_RECORD = struct.Struct("<BQ")
_HEADER, _FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK = range(1, 7)
_CHUNK_INDEX, _STATISTICS, _DATA_END, _SUMMARY_OFFSET = 0x08, 0x0B, 0x0F, 0x0E

_FOOTER_SIZE = _RECORD.size + 20 + len(MCAP_MAGIC)
_MESSAGE_HEAD = struct.Struct("<HIQQ")
_CHUNK_HEAD = struct.Struct("<QQQI")

_MCAP_LANGUAGES: dict[str, Literal["msg", "idl"]] = {
    "ros1msg": "msg", "ros2msg": "msg", "ros2idl": "idl", "omgidl": "idl",
}  # fmt: skip

_RUN = 1 << 22
"""Bytes of messages outside of chunks that are taken together."""


@dataclass(frozen=True, slots=True)
class _Block:
    """A chunk, or a run of records outside of chunks (``packed`` is False).

    ``channels`` are those that have messages in it; empty = not known.
    """

    offset: int
    size: int
    start: int
    end: int
    packed: bool = True
    channels: frozenset[int] = frozenset()


class _Fields:
    """Reads the fields of a record one after the other; ValueError where they are not there."""

    def __init__(self, data: Octets) -> None:
        self._data = bytes(data)
        self._place = 0

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        part = self._data[self._place : self._place + size]
        if len(part) < size:
            raise ValueError("a record is shorter than its fields")
        self._place += size
        return part

    def number(self, size: int) -> int:
        """Return an unsigned number of some bytes."""
        return int.from_bytes(self.take(size), "little")

    def octets(self) -> bytes:
        """Return bytes that are led by their number."""
        return self.take(self.number(4))

    def text(self) -> str:
        """Return a text that is led by its length."""
        return self.octets().decode("utf-8", "replace")


class McapStorage:
    """An MCAP file. Messages of overlapping chunks are held until their turn has come."""

    def __init__(self, path: Path) -> None:
        """Read the summary, or scan the file where it has none.

        Raises:
            ValueError: it is no MCAP file, or nothing in it is whole.
            OSError: it cannot be read.

        """
        self.damage: str | None = None
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._channels: dict[int, Channel] = {}
        self._blocks: list[_Block] = []
        self._counts: Counter[int] = Counter()
        self.start, self.end = EMPTY_TIMES
        self._size = path.stat().st_size
        self._file: BinaryIO = path.open("rb")
        try:
            if self._file.read(len(MCAP_MAGIC)) != MCAP_MAGIC:
                empty = "it is empty" if not self._size else "it does not begin as an MCAP does"
                raise ValueError(empty)
            if not self._read_summary():
                self._scan()
            if self.damage and not self._counts:
                raise ValueError("it ends before its first whole message")
        except BaseException:
            self._file.close()
            raise

    @property
    def channels(self) -> list[Channel]:
        """What the file holds."""
        return list(self._channels.values())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def messages(self, numbers: Collection[int]) -> Iterator[tuple[int, int, bytes]]:
        """Yield the messages of some channels in the order of time."""
        waiting: list[tuple[int, int, int, bytes]] = []
        order = 0
        wanted = frozenset(numbers)
        blocks = [b for b in self._blocks if not b.channels or b.channels & wanted]
        for block in sorted(blocks, key=lambda each: (each.start, each.offset)):
            while waiting and waiting[0][0] < block.start:
                time, _, number, message = heappop(waiting)
                yield number, time, message
            for kind, data in _records(memoryview(self._content(block))):
                if kind == _MESSAGE and len(data) >= _MESSAGE_HEAD.size:
                    number, _, time, _ = _MESSAGE_HEAD.unpack_from(data)
                    if number in wanted:
                        heappush(waiting, (time, order, number, bytes(data[_MESSAGE_HEAD.size :])))
                        order += 1
        while waiting:
            time, _, number, message = heappop(waiting)
            yield number, time, message

    def _content(self, block: _Block) -> bytes:
        """Return the records of a block; ValueError where it is damaged."""
        self._file.seek(block.offset)
        data = self._file.read(block.size)
        if len(data) < block.size:
            raise ValueError("it ends within a chunk")
        return _unpacked(data) if block.packed else data

    def _read_summary(self) -> bool:
        """Take channels, counts and chunks from the end of the file; tell whether they are there.

        A summary that lacks some of them is as good as none.
        """
        self._file.seek(max(0, self._size - _FOOTER_SIZE))
        end = self._file.read()
        if len(end) < _FOOTER_SIZE or not end.endswith(MCAP_MAGIC) or end[0] != _FOOTER:
            self.damage = "its end is missing"
            return False
        (start,) = struct.unpack_from("<Q", end, _RECORD.size)
        if not len(MCAP_MAGIC) <= start < self._size - _FOOTER_SIZE:
            return False
        self._file.seek(start)
        try:
            statistics = self._take_summary(self._file.read(self._size - _FOOTER_SIZE - start))
        except (ValueError, struct.error):
            statistics = None
        if statistics is None or len(self._channels) < statistics:
            self._forget()
            return False
        return True

    def _take_summary(self, data: bytes) -> int | None:
        """Take in a summary; return how many channels are announced, None where it lacks much."""
        announced, chunks = None, -1
        for kind, record in _records(data):
            if kind == _STATISTICS:
                fields = _Fields(record)
                messages, _, announced = fields.number(8), fields.number(2), fields.number(4)
                fields.take(8)
                chunks, times = fields.number(4), (fields.number(8), fields.number(8))
                counts = fields.octets()
                self._counts.update(dict(struct.iter_unpack("<HQ", counts)))
                self.start, self.end = times if messages else EMPTY_TIMES
                if messages and not chunks:
                    return None
            elif kind == _CHUNK_INDEX:
                fields = _Fields(record)
                start, end, offset, size = (fields.number(8) for _ in range(4))
                channels = frozenset(key for key, _ in struct.iter_unpack("<HQ", fields.octets()))
                begin = offset + _RECORD.size
                self._blocks.append(
                    _Block(begin, size - _RECORD.size, start, end, channels=channels)
                )
            else:
                self._define(kind, record)
        if announced is None or chunks != len(self._blocks):
            return None
        self._count()
        return announced

    def _forget(self) -> None:
        self._schemas.clear()
        self._channels.clear()
        self._counts.clear()
        self._blocks.clear()
        self.start, self.end = EMPTY_TIMES

    def _define(self, kind: int, record: Octets) -> None:
        """Take a schema or a channel."""
        if kind == _SCHEMA:
            fields = _Fields(record)
            number = fields.number(2)
            self._schemas[number] = fields.text(), fields.text(), fields.text()
        elif kind == _CHANNEL:
            fields = _Fields(record)
            number, schema = fields.number(2), fields.number(2)
            topic, encoding = fields.text(), fields.text()
            name, language, definition = self._schemas.get(schema, ("", "", ""))
            if language == "ros1msg" and encoding in ("", "cdr"):
                encoding = "ros1"
            if language in ("ros2msg", "ros2idl") and not encoding:
                encoding = "cdr"
            self._channels[number] = Channel(
                number, topic, kind_of(name), encoding, _MCAP_LANGUAGES.get(language, ""),
                definition if language in _MCAP_LANGUAGES else "",
            )  # fmt: skip

    def _scan(self) -> None:
        """Walk through the file up to the first record that is not whole."""
        offset = run = len(MCAP_MAGIC)
        times: list[int] = []
        while offset + _RECORD.size <= self._size:
            self._file.seek(offset)
            kind, length = _RECORD.unpack(self._file.read(_RECORD.size))
            end = offset + _RECORD.size + length
            if end > self._size or kind in (_DATA_END, _FOOTER) or not kind:
                if kind not in (_DATA_END, _FOOTER):
                    self.damage = self.damage or f"its record at byte {offset} is not whole"
                break
            if times and (kind == _CHUNK or offset - run > _RUN):
                self._close_run(run, offset, times)
                run, times = offset, []
            if kind == _CHUNK:
                if not self._scan_chunk(offset + _RECORD.size, length):
                    break
                run = end
            elif kind in (_SCHEMA, _CHANNEL):
                self._define(kind, self._file.read(length))
            elif kind == _MESSAGE and length >= _MESSAGE_HEAD.size:
                times.append(self._note(self._file.read(_MESSAGE_HEAD.size)))
            offset = end
        if times:
            self._close_run(run, offset, times)
        self._count()

    def _scan_chunk(self, offset: int, size: int) -> bool:
        """Take a chunk; tell whether it is whole."""
        self._file.seek(offset)
        data = self._file.read(size)
        times = []
        try:
            for kind, record in _records(_unpacked(data)):
                if kind == _MESSAGE and len(record) >= _MESSAGE_HEAD.size:
                    times.append(self._note(record))
                else:
                    self._define(kind, record)
        except ValueError as error:
            self.damage = self.damage or str(error)
            return False
        if times:
            self._blocks.append(_Block(offset, size, min(times), max(times)))
        return True

    def _note(self, message: Octets) -> int:
        """Count a message and return its time."""
        number, _, time, _ = _MESSAGE_HEAD.unpack_from(message)
        self._counts[number] += 1
        self.start, self.end = min(self.start, time), max(self.end, time)
        return int(time)

    def _close_run(self, start: int, end: int, times: list[int]) -> None:
        self._blocks.append(_Block(start, end - start, min(times), max(times), packed=False))

    def _count(self) -> None:
        for number, channel in self._channels.items():
            self._channels[number] = Channel(
                number, channel.topic, channel.kind, channel.encoding, channel.language,
                channel.definition, self._counts[number],
            )  # fmt: skip


def _unpacked(chunk: bytes) -> bytes:
    """Return the records of a chunk; ValueError where it is damaged."""
    fields = _Fields(chunk)
    _, _, size, checksum = _CHUNK_HEAD.unpack(fields.take(_CHUNK_HEAD.size))
    kind = fields.text()
    data = decompressed_chunk(fields.take(fields.number(8)), kind)
    if len(data) != size or (checksum and crc32(data) != checksum):
        raise ValueError("a chunk does not have the content that it announces")
    return data


def _records(data: Octets) -> Iterator[tuple[int, Octets]]:
    """Yield kind and content of records; ValueError where the last one is not whole."""
    offset = 0
    while offset < len(data):
        if offset + _RECORD.size > len(data):
            raise ValueError("a record is cut off")
        kind, length = _RECORD.unpack_from(data, offset)
        offset += _RECORD.size
        if offset + length > len(data):
            raise ValueError("a record is cut off")
        yield kind, data[offset : offset + length]
        offset += length
