# SPDX-License-Identifier: Apache-2.0
"""Writes a sequence where other programs can read it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from xsvggt_ros.errors import ConfigurationError, OutputError
from xsvggt_ros.geometry.files import UNFINISHED, replacing_directory, require_writable
from xsvggt_ros.synthetic.export_bag import BagWriter
from xsvggt_ros.synthetic.export_directory import DirectoryWriter
from xsvggt_ros.synthetic.export_tum import TumWriter
from xsvggt_ros.synthetic.sequence import Sequence, SyntheticFrame


class FrameWriter(Protocol):
    """Takes the frames of a sequence, one after the other."""

    def add(self, frame: SyntheticFrame) -> None:
        """Write one frame."""
        ...


FORMATS: dict[str, Callable[[Path], AbstractContextManager[FrameWriter]]] = {
    "directory": DirectoryWriter,
    "bag": BagWriter,
    "tum": TumWriter,
}
"""directory: images, depth, cameras and trajectory. bag: rosbag2 (mcap). tum: as TUM RGB-D."""


def write_sequence(
    sequence: Sequence,
    destination: Path,
    kind: str,
    each: Callable[[int], None] = lambda done: None,
) -> Path:
    """Write a sequence, whole or not at all; ``each`` hears the number of frames after every one.

    Raises:
        ConfigurationError: an unknown format.
        OutputError: the place is taken, or nothing can be written there.

    """
    if kind not in FORMATS:
        raise ConfigurationError(f"format '{kind}' is unknown; choose one of {', '.join(FORMATS)}")
    if destination.exists() and (
        not destination.is_dir() or any(entry.name != UNFINISHED for entry in destination.iterdir())
    ):
        raise OutputError(
            f"'{destination}' exists and is not empty; choose another place or remove it"
        )
    require_writable(destination)
    with replacing_directory(destination) as place, FORMATS[kind](place) as writer:
        for done, frame in enumerate(sequence, start=1):
            writer.add(frame)
            each(done)
    return destination
