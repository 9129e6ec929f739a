# SPDX-License-Identifier: Apache-2.0
"""What recorders compress: chunks of a file, whole files, and single messages."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import lz4.frame

if sys.version_info >= (3, 14):  # the standard library has it from then on
    zstd = import_module("compression.zstd")
else:
    from backports import zstd

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
