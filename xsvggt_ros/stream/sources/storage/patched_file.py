# SPDX-License-Identifier: Apache-2.0
"""A file that is seen with other bytes at its beginning and its end than it has."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO, Literal, cast


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
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        wanted = memoryview(buffer).nbytes
        data = self._at(self._place, wanted)
        memoryview(buffer)[: len(data)] = data
        self._place += len(data)
        return len(data)

    def _at(self, place: int, wanted: int) -> bytes:
        """Return bytes of one of the three parts; fewer than wanted where it ends."""
        if place < len(self._head):
            return self._head[place : place + wanted]
        if place < self._cut:
            self._file.seek(place)
            return self._file.read(min(wanted, self._cut - place))
        return self._tail[place - self._cut : place - self._cut + wanted]

    def close(self) -> None:
        self._file.close()
        super().close()
