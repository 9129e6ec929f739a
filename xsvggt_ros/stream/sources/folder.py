# SPDX-License-Identifier: Apache-2.0
"""A folder of pictures, in the natural order of their names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from xsvggt_ros.errors import FrameError, SourceError
from xsvggt_ros.stream.bits_in_use import BitsInUse
from xsvggt_ros.stream.frame import EncodedPicture, Frame, Picture
from xsvggt_ros.stream.imaging import decode_encoded, encoded_format
from xsvggt_ros.stream.sources.base import (
    DEFAULT_FRAME_ID,
    DEFAULT_RATE,
    Source,
    checked_rate,
    refuse,
    stamp_at,
)

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


class FolderSource(Source):
    """Pictures of a folder, or a single picture; stamps count from zero at an even rate."""

    def __init__(
        self, path: Path, *, rate: float | None = None, frame_id: str | None = None
    ) -> None:
        """List the pictures.

        Raises:
            SourceError: the folder holds no picture, or cannot be read.

        """
        self.name = str(path)
        self.rate = checked_rate(rate) or DEFAULT_RATE
        self._frame_id = frame_id or DEFAULT_FRAME_ID
        self._files = [path] if path.is_file() else _pictures_of(path)

    @property
    def frame_count(self) -> int:
        """Number of picture files."""
        return len(self._files)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the pictures."""
        bits = BitsInUse()
        for index, file in enumerate(self._files):
            yield self._frame(stamp_at(index, self.rate), file, bits)

    def _frame(self, stamp: int, file: Path, bits: BitsInUse) -> Frame:
        try:
            data = file.read_bytes()
        except OSError as error:
            failure = f"Cannot read {file}: {error.strerror}. Check the file and its rights."
            return Frame(stamp, self._frame_id, partial(refuse, failure))
        kind = encoded_format(data)
        encoded = EncodedPicture(data, kind) if kind else None
        decode = partial(_decode, file, data, bits)
        return Frame(stamp, self._frame_id, decode, encoded=encoded, bits=bits)


def is_picture(path: Path) -> bool:
    """Tell by its extension whether a file is a picture."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def _pictures_of(folder: Path) -> list[Path]:
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise SourceError(f"Cannot list {folder}: {error.strerror}. Check its rights.") from error
    pictures = (entry for entry in entries if is_picture(entry) and not entry.is_dir())
    files = sorted(pictures, key=natural_order)
    if not files:
        raise SourceError(
            f"{folder} holds no picture: looked for {', '.join(PICTURE_SUFFIXES)} and found "
            f"{_summary(entries)}. Give a folder of pictures, a video, or a bag (a .bag, .db3 or "
            ".mcap file, or the folder that holds its metadata.yaml)."
        )
    return files


def _summary(entries: list[Path]) -> str:
    names = sorted(entry.name for entry in entries)[:3]
    return f"{len(entries)} other entries ({', '.join(names)}, ...)" if names else "nothing"


def natural_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sort 2 before 10; equal numbers such as 1 and 01 in the order of their names."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def _decode(file: Path, data: bytes, bits: BitsInUse) -> Picture:
    try:
        return decode_encoded(data, bits=bits)
    except FrameError as error:
        raise FrameError(f"{file}: {error}") from error
