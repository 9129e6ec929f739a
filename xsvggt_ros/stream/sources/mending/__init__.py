# SPDX-License-Identifier: Apache-2.0
"""Bags that broke off, made readable as far as they are whole; the files stay as they are.

A recorder that is killed leaves no index, and a full disk or a broken copy cuts a file anywhere.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from xsvggt_ros.stream.sources.mending.mcap import mended_mcap
from xsvggt_ros.stream.sources.mending.rosbag1 import mended_rosbag1
from xsvggt_ros.stream.sources.mending.sqlite import mended_sqlite

__all__ = ["PARTS", "bag_files", "mended"]

PARTS = (".mcap", ".db3")
"""Suffixes of the files that a folder of rosbag2 holds."""


def bag_files(path: Path) -> list[Path]:
    """Return the files with messages of a bag: of a folder, those in it, in order."""
    if path.is_file():
        return [path]
    return sorted(each for each in path.iterdir() if each.suffix in PARTS)


def mended(path: Path, scratch: TemporaryDirectory[str]) -> Any:
    """Return something that rosbags can open in place of a damaged file of a bag.

    It is a view of the file with an end put to it; of an SQLite file, a copy in ``scratch``,
    because its pages have no order.

    Raises:
        ValueError: nothing whole is in it, or it is no such file.
        OSError: it cannot be read, or the copy cannot be written.

    """
    if path.suffix == ".mcap":
        return mended_mcap(path)
    if path.suffix == ".bag":
        return mended_rosbag1(path)
    if path.suffix == ".db3":
        return mended_sqlite(path, Path(scratch.name))
    raise ValueError(f"{path.suffix or 'this'} is no suffix of a bag")
