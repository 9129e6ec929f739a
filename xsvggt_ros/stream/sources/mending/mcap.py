# SPDX-License-Identifier: Apache-2.0
"""MCAP files without an end: https://mcap.dev/spec."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from xsvggt_ros.stream.sources.mending.patched_file import PatchedFile

MAGIC = b"\x89MCAP0\r\n"
_RECORD = struct.Struct("<BQ")
_HEADER, _FOOTER, _MESSAGE, _CHUNK, _DATA_END = 0x01, 0x02, 0x05, 0x06, 0x0F

_END = _RECORD.pack(_DATA_END, 4) + bytes(4) + _RECORD.pack(_FOOTER, 20) + bytes(20) + MAGIC
"""End of the data, and a footer that says that there is no summary, so that readers scan."""


def mended_mcap(path: Path) -> PatchedFile:
    """Return a view of the file up to its last whole record, with a footer.

    Raises:
        ValueError: it is no MCAP, or holds no whole message or chunk.

    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError("it does not begin as an MCAP does")
        cut, messages = _whole_until(file, path.stat().st_size)
    if not messages:
        raise ValueError("it ends before its first whole chunk of messages")
    return PatchedFile(path, b"", cut, _END)


def _whole_until(file: BinaryIO, size: int) -> tuple[int, int]:
    """Return where the last whole record ends, and how many hold messages."""
    place, holding = len(MAGIC), 0
    while place + _RECORD.size <= size:
        kind, length = _RECORD.unpack(file.read(_RECORD.size))
        end = place + _RECORD.size + length
        if end > size or kind in (_DATA_END, _FOOTER) or not kind:
            break
        holding += kind in (_MESSAGE, _CHUNK)
        place = end
        file.seek(place)
    return place, holding
