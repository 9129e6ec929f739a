# SPDX-License-Identifier: Apache-2.0
"""What every file format of bags has in common, and what recorders compress."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, Protocol

import lz4.frame

READ_ENCODINGS = ("cdr", "ros1")
"""Serializations of messages that are read."""


class NoBagError(ValueError):
    """A file is whole, but no bag."""


@dataclass(frozen=True, slots=True)
class Channel:
    """Messages of one type on one topic, as one file holds them.

    Attributes:
        number: in its file.
        topic: its name.
        kind: type of its messages, ``package/msg/Name`` for those of ROS; empty = not said.
        encoding: of its messages: ``cdr`` (ROS 2), ``ros1``, or what is not read here.
        language: of ``definition``; empty where there is none that can be read.
        definition: of the type, the types in it included.
        count: of its messages.

    """

    number: int
    topic: str
    kind: str
    encoding: str
    language: Literal["msg", "idl", ""] = ""
    definition: str = ""
    count: int = 0

    @property
    def is_read(self) -> bool:
        """Whether its messages can be read at all."""
        return self.encoding in READ_ENCODINGS


class Storage(Protocol):
    """One file of a bag.

    Attributes:
        start: time of the first message, nanoseconds; above ``end`` where there is none.
        end: time of the last message, nanoseconds.
        damage: why the file is not whole, and None where it is.

    """

    start: int
    end: int
    damage: str | None

    @property
    def channels(self) -> list[Channel]:
        """What the file holds."""
        ...

    def messages(self, numbers: Collection[int]) -> Iterator[tuple[int, int, bytes]]:
        """Yield number of the channel, time in nanoseconds and data, in the order of time.

        Raises:
            ValueError: the file is damaged here.
            OSError: it cannot be read.

        """
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def kind_of(name: str) -> str:
    """Return the name of a type as ROS 2 writes it: ROS 1 leaves ``msg`` out."""
    return re.sub(r"^([A-Za-z]\w*)/([A-Za-z]\w*)$", r"\1/msg/\2", name)


EMPTY_TIMES = (2**63 - 1, 0)
"""Start and end of a file without messages."""


if sys.version_info >= (3, 14):  # the standard library has it from then on
    zstd = import_module("compression.zstd")
else:
    from backports import zstd as zstd

ZSTD = ".zstd"
"""Suffix of a file that rosbag2 has compressed as a whole."""

_PART = 1 << 18
"""Bytes that are unpacked at a time."""

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def decompressed_chunk(data: bytes, kind: str) -> bytes:
    """Return what a chunk of an MCAP file holds; ``kind`` is as the file says it.

    Raises:
        ValueError: an unknown kind, or damaged data.

    """
    if kind in ("", "none"):
        return data
    if kind not in ("lz4", "zstd"):
        raise ValueError(f"its chunks are compressed as '{kind}'; lz4 and zstd are read")
    try:
        return bytes(lz4.frame.decompress(data)) if kind == "lz4" else zstd.decompress(data)
    except (RuntimeError, zstd.ZstdError, EOFError) as error:
        raise ValueError(f"a compressed chunk is damaged ({error})") from error


def decompressed_message(data: bytes) -> bytes:
    """Return a message as it was before rosbag2 compressed it, if it did.

    No serialized message begins as a zstd frame does: its first byte is 0.

    Raises:
        ValueError: damaged data.

    """
    if not data.startswith(ZSTD_MAGIC):
        return data
    try:
        return zstd.decompress(data)
    except (zstd.ZstdError, EOFError) as error:
        raise ValueError(f"its compressed data are damaged ({error})") from error


def decompressed_file(path: Path, scratch: Path) -> Path:
    """Write what a compressed file holds into ``scratch``, as far as it is whole.

    Raises:
        OSError: it cannot be read, or there is no room.

    """
    goal = scratch / path.name.removesuffix(ZSTD)
    with path.open("rb") as packed, goal.open("wb") as plain, suppress(zstd.ZstdError):
        unpacking = zstd.ZstdDecompressor()
        while data := packed.read(_PART):
            while data:
                plain.write(unpacking.decompress(data))
                data = unpacking.unused_data if unpacking.eof else b""
                if unpacking.eof:
                    unpacking = zstd.ZstdDecompressor()
    return goal
