# SPDX-License-Identifier: Apache-2.0
"""MCAP bags whose recording was cut off, read as far as they go.

A recorder that loses power leaves a file without the closing records that readers look for first,
and maybe half a record at its end. The file itself is left as it is: it is shown to the reader as
if it ended properly after the last whole record (MCAP specification, "Format Description").
"""

from __future__ import annotations

import io
import logging
import os
import struct
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from typing_extensions import Buffer, Self

logger = logging.getLogger(__name__)

MAGIC = b"\x89MCAP0\r\n"
_HEAD = struct.Struct("<BQ")
"""Operation and length of a record."""

_DATA_END, _FOOTER = 0x0F, 0x02
CLOSING = _HEAD.pack(_DATA_END, 4) + bytes(4) + _HEAD.pack(_FOOTER, 20) + bytes(20) + MAGIC
"""What a file without an index ends with; zero stands for checksums that are not there."""


class BagPath:
    """A path to a bag, as rosbags asks for one, that closes an MCAP file which nobody closed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def __truediv__(self, key: Self | PurePath | str) -> BagPath:
        return BagPath(self._path / str(key))

    @property
    def stem(self) -> str:
        """Name without suffix."""
        return self._path.stem

    @property
    def suffix(self) -> str:
        """End of the name, with its dot."""
        return self._path.suffix

    def exists(self) -> bool:
        """Return whether something is there."""
        return self._path.exists()

    def is_dir(self) -> bool:
        """Return whether it is a folder."""
        return self._path.is_dir()

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return what the system knows of it."""
        return self._path.stat(follow_symlinks=follow_symlinks)

    def read_text(self, encoding: str | None = None) -> str:
        """Return the whole file as text."""
        return self._path.read_text(encoding=encoding)

    def open(self, *arguments: Any, **options: Any) -> BinaryIO:
        """Open the file; of an MCAP file that was cut off, what is whole, properly closed."""
        stream: BinaryIO = self._path.open(*arguments, **options)
        if self.suffix.lower() != ".mcap" or is_closed(stream):
            return stream
        end = end_of_whole_records(stream)
        size = self._path.stat().st_size
        logger.warning(
            "%s was cut off while it was recorded: it is read up to its last whole record, %d of "
            "%d bytes", self._path, end, size,
        )  # fmt: skip
        return io.BufferedReader(_Closed(stream, end))


def is_closed(stream: BinaryIO) -> bool:
    """Return whether an MCAP file ends as it should, or is none at all; rewinds it."""
    stream.seek(0)
    is_mcap = stream.read(len(MAGIC)) == MAGIC
    size = stream.seek(0, io.SEEK_END)
    closed = False
    if is_mcap and size >= 2 * len(MAGIC):
        stream.seek(-len(MAGIC), io.SEEK_END)
        closed = stream.read() == MAGIC
    stream.seek(0)
    return closed or not is_mcap


def end_of_whole_records(stream: BinaryIO) -> int:
    """Return where the last whole record ends that belongs to the data; rewinds the file."""
    size = stream.seek(0, io.SEEK_END)
    end = stream.seek(len(MAGIC))
    while True:
        head = stream.read(_HEAD.size)
        if len(head) < _HEAD.size:
            break
        operation, length = _HEAD.unpack(head)
        after = end + _HEAD.size + length
        if after > size or operation in (_DATA_END, _FOOTER, 0):
            break
        end = stream.seek(after)
    stream.seek(0)
    return end


class _Closed(io.RawIOBase):
    """The first ``end`` bytes of a file, and the closing records behind them."""

    def __init__(self, stream: BinaryIO, end: int) -> None:
        self._stream = stream
        self._end = end
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        size = self._end + len(CLOSING)
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer)
        if self._place < self._end:
            self._stream.seek(self._place)
            data = self._stream.read(min(len(view), self._end - self._place))
        else:
            begin = self._place - self._end
            data = CLOSING[begin : begin + len(view)]
        view[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()
