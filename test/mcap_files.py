# SPDX-License-Identifier: Apache-2.0
"""Writes MCAP files of every kind for tests: https://mcap.dev/spec."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import lz4.frame
from rosbags.typesys import Stores, get_typestore

from xsvggt_ros.stream.sources.storage.base import zstd

MAGIC = b"\x89MCAP0\r\n"
PACK = {"": bytes, "lz4": lz4.frame.compress, "zstd": zstd.compress}


@dataclass(frozen=True)
class Topic:
    """A channel, its schema, and its messages as pairs of nanoseconds and data."""

    name: str
    kind: str
    messages: Sequence[tuple[int, bytes]]
    encoding: str = "cdr"
    schema_encoding: str = "ros2msg"
    definition: bytes | None = None


def record(op: int, content: bytes) -> bytes:
    return struct.pack("<BQ", op, len(content)) + content


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<I", len(data)) + data


def definition_of(kind: str) -> bytes:
    """What rosbag2 writes of a type."""
    return get_typestore(Stores.LATEST).generate_msgdef(kind, ros_version=2)[0].encode()


def write_mcap(
    path: Path,
    topics: Sequence[Topic],
    *,
    profile: str = "ros2",
    library: str = "test",
    compression: str = "zstd",
    chunks: int = 2,
    summary: bool = True,
) -> Path:
    """Write channels; ``chunks`` 0 = messages outside of chunks, ``summary`` False = no index."""
    schemas = [
        record(3, struct.pack("<H", n) + text(each.kind) + text(each.schema_encoding)
               + text(definition_of(each.kind) if each.definition is None else each.definition))
        if each.kind else b"" for n, each in enumerate(topics, 1)
    ]  # fmt: skip
    channels = [
        record(4, struct.pack("<HH", n, n if each.kind else 0) + text(each.name)
               + text(each.encoding) + text(b""))
        for n, each in enumerate(topics, 1)
    ]  # fmt: skip
    messages = sorted(
        (time, n, data) for n, each in enumerate(topics, 1) for time, data in each.messages
    )
    file = bytearray(MAGIC + record(1, text(profile) + text(library)))
    defined = b"".join(schemas) + b"".join(channels)
    indices = []
    if not chunks:
        file += defined + b"".join(map(_message, messages))
    for number in range(chunks):
        part = messages[number::chunks] if chunks > 1 else messages
        content = (defined if not number else b"") + b"".join(map(_message, part))
        packed = PACK[compression](content)
        times = [each[0] for each in part] or [0]
        chunk = record(6, struct.pack("<QQQI", min(times), max(times), len(content), crc32(content))
                       + text(compression) + struct.pack("<Q", len(packed)) + packed)  # fmt: skip
        indices.append(record(8, struct.pack("<QQQQ", min(times), max(times), len(file), len(chunk))
                              + text(b"") + struct.pack("<Q", 0) + text(compression)
                              + struct.pack("<QQ", len(packed), len(content))))  # fmt: skip
        file += chunk
    file += record(0x0F, bytes(4))
    start = len(file) if summary else 0
    if summary:
        counts = b"".join(struct.pack("<HQ", n, len(each.messages))
                          for n, each in enumerate(topics, 1))  # fmt: skip
        times = [each[0] for each in messages] or [0]
        file += defined + b"".join(indices) + record(
            0x0B, struct.pack("<QHIIIIQQ", len(messages), len(topics), len(topics), 0, 0, chunks,
                              min(times), max(times)) + text(counts))  # fmt: skip
    file += record(2, struct.pack("<QQI", start, 0, 0)) + MAGIC
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file)
    return path


def _message(each: tuple[int, int, bytes]) -> bytes:
    time, channel, data = each
    return record(5, struct.pack("<HIQQ", channel, 0, time, time) + data)
