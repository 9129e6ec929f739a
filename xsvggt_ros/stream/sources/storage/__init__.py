# SPDX-License-Identifier: Apache-2.0
"""The files of bags, one module per format, whole or not.

A recorder that is killed writes neither an index nor ``metadata.yaml``, and a full disk or a broken
copy cuts a file anywhere. What is whole is read.
"""

from __future__ import annotations

from pathlib import Path

from xsvggt_ros.stream.sources.images import natural_order
from xsvggt_ros.stream.sources.storage.base import (
    READ_ENCODINGS,
    ZSTD,
    ZSTD_MAGIC,
    Channel,
    NoBagError,
    Storage,
    decompressed_file,
    decompressed_message,
)
from xsvggt_ros.stream.sources.storage.rosbag1 import MAGIC as ROS1_MAGIC
from xsvggt_ros.stream.sources.storage.rosbag1 import Rosbag1Storage
from xsvggt_ros.stream.sources.storage.rosbag2 import (
    MCAP_MAGIC,
    SQLITE_MAGIC,
    McapStorage,
    SqliteStorage,
)

__all__ = [
    "READ_ENCODINGS",
    "ROS1",
    "ZSTD_MAGIC",
    "Channel",
    "NoBagError",
    "Storage",
    "bag_files",
    "decompressed_message",
    "holds_bag",
    "is_bag_file",
    "open_storage",
]

PARTS = (".mcap", ".db3", f".mcap{ZSTD}", f".db3{ZSTD}")
"""Ends of the names of files that a directory of rosbag2 holds."""


ROS1 = (".bag", ".bag.active")
"""Ends of the names of ROS 1 bags; a recorder that was killed leaves the latter."""


_ROS1_OF_ANY_VERSION = b"#ROSBAG V"
_MAGIC = {MCAP_MAGIC: ".mcap", SQLITE_MAGIC: ".db3", ROS1_MAGIC: ".bag", ZSTD_MAGIC: ZSTD}
"""What files of each format begin with, and the end of their names."""


def is_bag_file(path: Path) -> bool:
    """Tell by its name whether a file is a bag, or a part of one."""
    return path.name.lower().endswith((*ROS1, *PARTS)) and not path.name.startswith(".")


def holds_bag(path: Path) -> bool:
    """Tell by its first bytes whether a file is a bag, whatever its name.

    Raises:
        OSError: it cannot be read.

    """
    kind, known = _format_of(path), {".mcap", ".db3", ".bag"}
    return kind in known or (kind == ZSTD and not known.isdisjoint(map(str.lower, path.suffixes)))


def _format_of(path: Path) -> str:
    """Return the end that the name of a file with such bytes should have; empty = not known.

    Raises:
        OSError: it cannot be read.

    """
    with path.open("rb") as file:
        head = file.read(max(map(len, _MAGIC)))
    return next((suffix for magic, suffix in _MAGIC.items() if head.startswith(magic)), "")


def bag_files(path: Path) -> list[Path]:
    """Return the files with messages of a bag: of a directory, those in it, in order.

    Of a file and its compressed copy, which a killed recorder leaves side by side, the file counts.
    """
    if not path.is_dir():
        return [path]
    found = [
        each
        for each in path.iterdir()
        if is_bag_file(each) and each.name.lower().endswith(PARTS) and not each.is_dir()
    ]
    plain = {each.name.lower() for each in found}
    alone = [
        each
        for each in found
        if not each.name.lower().endswith(ZSTD) or each.name.lower().removesuffix(ZSTD) not in plain
    ]
    return sorted(alone, key=natural_order)


def open_storage(path: Path, scratch: Path) -> Storage:
    """Open one file of a bag; ``scratch`` is a directory for what must be unpacked or copied.

    Raises:
        ValueError: nothing whole is in it, or it is no such file.
        OSError: it cannot be read, or there is no room in ``scratch``.

    """
    path = path.resolve()  # What lies beside a file, lies beside it and not beside a link to it.
    kind = _format_of(path)
    if kind == ZSTD:
        path = decompressed_file(path, scratch)
        kind = _format_of(path)
    kind = kind or _suffix(path)
    if kind == ".bag":
        _require_rosbag1(path)
    if kind == ".mcap":
        return McapStorage(path)
    if kind == ".db3":
        return SqliteStorage(path, scratch)
    if kind == ".bag":
        return Rosbag1Storage(path)
    raise ValueError(f"{path.suffix or 'this'} is no suffix of a bag")


def _require_rosbag1(path: Path) -> None:
    """Raise ValueError for a file that is no ROS 1 bag; its reader tells which version it is."""
    with path.open("rb") as file:
        head = file.read(len(_ROS1_OF_ANY_VERSION))
    if head != _ROS1_OF_ANY_VERSION:
        raise ValueError("it does not begin as a ROS 1 bag does" if head else "it is empty")


def _suffix(path: Path) -> str:
    """Return the format that the name of a file tells."""
    name = path.name.lower().removesuffix(ZSTD)
    return ".bag" if name.endswith(ROS1) else Path(name).suffix
