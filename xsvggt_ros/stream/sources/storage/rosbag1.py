# SPDX-License-Identifier: Apache-2.0
"""ROS 1 bags, whole or not: http://wiki.ros.org/Bags/Format/2.0.

Chunks are followed by the index of their messages; what a cut file lacks is the list of connections
and chunks at its end, which is gathered here from the chunks themselves.
"""

from __future__ import annotations

import bz2
import io
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

import lz4.frame
from rosbags.rosbag1 import Reader

from xsvggt_ros.stream.sources.storage.base import EMPTY_TIMES, Channel


class PatchedFile:
    """Stands in for a ``Path`` where a reader of bags opens one.

    What it shows is ``head``, then the file from there up to ``cut``, then ``tail``.
    """

    def __init__(self, path: Path, head: bytes, cut: int, tail: bytes) -> None:
        self._path = path
        self._head, self._cut, self._tail = head, cut, tail
        self.suffix, self.name, self.stem = path.suffix, path.name, path.stem

    def __str__(self) -> str:
        """Return the path of the file."""
        return str(self._path)

    def exists(self) -> bool:
        """Tell that the file is there."""
        return self._path.exists()

    def is_dir(self) -> bool:
        """Tell that it is no directory."""
        return False

    def open(self, mode: Literal["rb"] = "rb") -> BinaryIO:
        """Open what is shown."""
        raw = _PatchedRaw(self._path.open(mode), self._head, self._cut, self._tail)
        return io.BufferedReader(cast("io.RawIOBase", raw), 1 << 16)


class _PatchedRaw(io.RawIOBase):
    def __init__(self, file: BinaryIO, head: bytes, cut: int, tail: bytes) -> None:
        self._file, self._head, self._cut, self._tail = file, head, cut, tail
        self._size = cut + len(tail)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        wanted = memoryview(buffer).nbytes
        data = self._at(self._position, wanted)
        memoryview(buffer)[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _at(self, offset: int, wanted: int) -> bytes:
        """Return bytes of one of the three parts; fewer than wanted where it ends."""
        if offset < len(self._head):
            return self._head[offset : offset + wanted]
        if offset < self._cut:
            self._file.seek(offset)
            return self._file.read(min(wanted, self._cut - offset))
        return self._tail[offset - self._cut : offset - self._cut + wanted]

    def close(self) -> None:
        self._file.close()
        super().close()


MAGIC = b"#ROSBAG V2.0\n"
_U32, _U64 = struct.Struct("<L"), struct.Struct("<Q")
_BAG_HEADER, _INDEX, _CHUNK, _CHUNK_INFO, _CONNECTION = 3, 4, 5, 6, 7

_DECOMPRESS = {"none": bytes, "bz2": bz2.decompress, "lz4": lz4.frame.decompress}


class _Record(NamedTuple):
    offset: int
    header: dict[str, bytes]
    data_place: int
    data_size: int

    @property
    def kind(self) -> int:
        return self.header.get("op", b"\0")[0]

    @property
    def end(self) -> int:
        return self.data_place + self.data_size


@dataclass
class _Chunk:
    """A whole chunk; messages of each connection, and the times of the first and the last."""

    record: _Record
    counts: dict[int, int] = field(default_factory=dict)
    times: list[tuple[int, int]] = field(default_factory=list)


def indexed(path: Path) -> PatchedFile:
    """Return a view of the bag up to its last whole chunk, with an index.

    Raises:
        ValueError: it is no ROS 1 bag, or holds no whole chunk.

    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError("it does not begin as a ROS 1 bag does")
        header = _record_at(file, len(MAGIC), path.stat().st_size)
        if header is None or header.kind != _BAG_HEADER:
            raise ValueError("its header is damaged")
        chunks, cut = _whole_chunks(file, header.end, path.stat().st_size)
        if not chunks:
            raise ValueError("it ends before its first whole chunk of messages")
        connections = _connections(file, chunks)
        file.seek(0)
        head = file.read(header.data_place)
    for name, value in (
        (b"index_pos=", _U64.pack(cut)),
        (b"conn_count=", _U32.pack(len(connections))),
        (b"chunk_count=", _U32.pack(len(chunks))),
    ):
        offset = head.index(name) + len(name)
        head = head[:offset] + value + head[offset + len(value) :]
    tail = b"".join([*connections.values(), *map(_chunk_info, chunks)])
    return PatchedFile(path, head, cut, tail)


def _fields(data: bytes) -> dict[str, bytes]:
    """Return the fields of a record's header."""
    fields, offset = {}, 0
    while offset + 4 <= len(data):
        (size,) = _U32.unpack_from(data, offset)
        name, _, value = data[offset + 4 : offset + 4 + size].partition(b"=")
        fields[name.decode("ascii", "replace")] = value
        offset += 4 + size
    return fields


def _record_at(file: BinaryIO, offset: int, size: int) -> _Record | None:
    """Return the record at an offset, or None where it is not whole."""
    file.seek(offset)
    prefix = file.read(4)
    if len(prefix) < 4:
        return None
    (header_size,) = _U32.unpack(prefix)
    if offset + 8 + header_size > size:
        return None
    fields = _fields(file.read(header_size))
    (data_size,) = _U32.unpack(file.read(4))
    record = _Record(offset, fields, offset + 8 + header_size, data_size)
    return record if record.end <= size else None


def _whole_chunks(file: BinaryIO, offset: int, size: int) -> tuple[list[_Chunk], int]:
    """Return the chunks that have an index, and where the last index ends."""
    chunks: list[_Chunk] = []
    cut = offset
    while (record := _record_at(file, offset, size)) is not None:
        if record.kind == _CHUNK:
            chunks.append(_Chunk(record))
        elif record.kind == _INDEX and chunks:
            _note_index(file, record, chunks[-1])
            cut = record.end
        elif record.kind == _CONNECTION or record.kind == _CHUNK_INFO:
            break  # The bag's own index, of which parts are missing.
        offset = record.end
    return [chunk for chunk in chunks if chunk.times], cut


def _note_index(file: BinaryIO, record: _Record, chunk: _Chunk) -> None:
    (connection,) = _U32.unpack(record.header["conn"])
    file.seek(record.data_place)
    data = file.read(record.data_size)
    chunk.counts[connection] = record.data_size // 12
    chunk.times += [struct.unpack_from("<LL", data, at) for at in range(0, len(data) - 11, 12)]


def _connections(file: BinaryIO, chunks: list[_Chunk]) -> dict[int, bytes]:
    """Return the record of each connection; its first chunk begins with it."""
    found: dict[int, bytes] = {}
    for chunk in chunks:
        if not chunk.counts.keys() <= found.keys():
            file.seek(chunk.record.data_place)
            compression = chunk.record.header["compression"].decode()
            data = _DECOMPRESS[compression](file.read(chunk.record.data_size))
            for connection, record in _connection_records(data):
                found.setdefault(connection, record)
    return found


def _connection_records(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 8 <= len(data):
        (header_size,) = _U32.unpack_from(data, offset)
        fields = _fields(data[offset + 4 : offset + 4 + header_size])
        (data_size,) = _U32.unpack_from(data, offset + 4 + header_size)
        end = offset + 8 + header_size + data_size
        if fields.get("op", b"\0")[0] == _CONNECTION:
            yield _U32.unpack(fields["conn"])[0], data[offset:end]
        offset = end


def _chunk_info(chunk: _Chunk) -> bytes:
    """Return the record that tells where a chunk lies and what is in it."""
    first, last = min(chunk.times), max(chunk.times)
    fields = {
        "ver": _U32.pack(1),
        "chunk_pos": _U64.pack(chunk.record.offset),
        "start_time": struct.pack("<LL", *first),
        "end_time": struct.pack("<LL", *last),
        "count": _U32.pack(len(chunk.counts)),
        "op": bytes([_CHUNK_INFO]),
    }
    words = [name.encode() + b"=" + value for name, value in fields.items()]
    header = b"".join(_U32.pack(len(word)) + word for word in words)
    data = b"".join(struct.pack("<LL", *pair) for pair in chunk.counts.items())
    return _U32.pack(len(header)) + header + _U32.pack(len(data)) + data


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
