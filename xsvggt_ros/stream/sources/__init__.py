# SPDX-License-Identifier: Apache-2.0
"""Where recorded images come from, behind one interface: a directory or a video, here, or a bag.

Images of a directory come in the order that their names tell.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import FrameError, SourceError
from xsvggt_ros.paths import in_home
from xsvggt_ros.stream.frame import SECOND, BitsInUse, EncodedImage, Frame, ImageArray
from xsvggt_ros.stream.imaging import decode_encoded, encoded_format
from xsvggt_ros.stream.sources.bag import BagSource
from xsvggt_ros.stream.sources.bag_reader import METADATA
from xsvggt_ros.stream.sources.base import (
    DEFAULT_FRAME_ID,
    DEFAULT_RATE,
    Source,
    checked_rate,
    refuse,
    stamp_at,
)
from xsvggt_ros.stream.sources.images import (
    IMAGE_SUFFIXES,
    UPRIGHT,
    ImageList,
    entries,
    images_in,
    is_image,
    is_rare_image,
    is_read,
    list_images,
    orientation,
    turned,
)
from xsvggt_ros.stream.sources.storage import ROS1, ZSTD_MAGIC, bag_files, holds_bag, is_bag_file

__all__ = ["METADATA", "Source", "is_bag", "open_source"]

_ARCHIVES = {
    b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz",
    b"7z\xbc\xaf\x27\x1c": "7-Zip", b"Rar!\x1a\x07": "RAR", ZSTD_MAGIC: "zstd",
}  # fmt: skip
"""What packed files begin with."""

_TAR_AT = 257
_LONGEST_MAGIC = _TAR_AT + 5

_CAMERA_FORMATS = {".svo": "ZED", ".svo2": "ZED", ".oni": "OpenNI", ".klg": "Kintinuous"}


def open_source(
    path: str | Path,
    *,
    rate: float | None = None,
    topic: str | None = None,
    frame_id: str | None = None,
) -> Source:
    """Open what a path holds: a directory of images, an image, a video or a ROS 1/2 bag.

    Args:
        path: the directory or file.
        rate: images per second of a directory (10 by default); replaces a video's own stamps.
        topic: image topic of a bag, needed where it holds several.
        frame_id: replaces the name of the camera's optical frame.

    Raises:
        SourceError: nothing is there, nothing can read it, or an option does not apply to it.

    """
    location = in_home(path)
    if not location.exists():
        raise SourceError(
            f"{path} is an address: images come from files here, and live ones over topics; start "
            "a driver that publishes them, such as gscam, and the node"
            if "://" in str(path)
            else f"{location} does not exist: give a directory of images, a video or a bag."
        )
    if location.name == METADATA and location.is_file():
        location = location.parent  # It stands for the bag that it is of.
    if is_bag(location):
        return _open_bag(location, rate, topic, frame_id)
    if topic is not None:
        raise SourceError(
            f"{location} is no bag, so it has no topic '{topic}': leave the topic out."
        )
    if location.is_dir() or is_image(location):
        return DirectorySource(location, rate=rate, frame_id=frame_id)
    if is_rare_image(location) and location.suffix.lower() != ".gif":
        if not is_read(location):
            raise SourceError(
                f"{location} is an image that this OpenCV does not read: convert it to JPEG or PNG."
            )
        return DirectorySource(location, rate=rate, frame_id=frame_id)
    _refuse_other_formats(location)
    return VideoSource(location, rate=rate, frame_id=frame_id)


def _refuse_other_formats(location: Path) -> None:
    """Raise SourceError for a file that has to be unpacked or exported first."""
    if not location.is_file():
        return
    with location.open("rb") as file:
        head = file.read(_LONGEST_MAGIC)
    packed = next((name for magic, name in _ARCHIVES.items() if head.startswith(magic)), "")
    if head[_TAR_AT:].startswith(b"ustar"):
        packed = "tar"
    if packed:
        raise SourceError(f"{location} is packed ({packed}): unpack it, and give what it holds.")
    if location.suffix.lower() in _CAMERA_FORMATS:
        raise SourceError(
            f"{location} is in the format of {_CAMERA_FORMATS[location.suffix.lower()]}, which "
            "only its own tools read: export it as images or a video."
        )


def is_bag(location: Path) -> bool:
    """Tell whether a path is a ROS 1 or ROS 2 bag: a file, or a directory of rosbag2.

    A recorder that is killed leaves no metadata, or empty ones; an SQLite file may be empty while
    all messages are in the log beside it.
    """
    metadata = location / METADATA
    try:
        if location.is_file():
            return is_bag_file(location) or holds_bag(location)
        if metadata.is_file() and b"rosbag2_bagfile_information" in metadata.read_bytes():
            return True
        return location.is_dir() and any(map(_holds_something, bag_files(location)))
    except OSError as error:
        raise SourceError(f"Cannot read {location}: {error.strerror}. Check its rights.") from error


def _holds_something(file: Path) -> bool:
    log = file.with_name(f"{file.name}-wal")
    if not file.exists():
        return False  # a link to nothing
    return bool(file.stat().st_size) or (log.is_file() and bool(log.stat().st_size))


def _open_bag(
    location: Path, rate: float | None, topic: str | None, frame_id: str | None
) -> Source:
    if rate is not None:
        raise SourceError(
            f"{location} is a bag, its images have stamps of their own: leave the rate of "
            f"{rate} Hz out."
        )
    return BagSource(location, topic=topic, frame_id=frame_id)


_logger = logging.getLogger(__name__)

_BELOW = 3
"""Levels of directories that are looked through for what a directory itself does not hold."""

_MOST_LOOKED_AT = 500


class DirectorySource(Source):
    """Images of a directory, or a single one; an even rate replaces times that are their names."""

    def __init__(
        self, path: Path, *, rate: float | None = None, frame_id: str | None = None
    ) -> None:
        """List the images.

        Raises:
            SourceError: the directory holds no image, or cannot be read.

        """
        self.name = str(path)
        given = checked_rate(rate)
        self._frame_id = frame_id or DEFAULT_FRAME_ID
        listed = _single(path) if path.is_file() else _images_of(path)
        self._files = listed.files
        self._stamps = None if given else listed.stamps
        self.rate = given or _mean_rate(listed.stamps) or DEFAULT_RATE
        for remark in listed.remarks:
            _logger.warning("%s", remark)
        if self._stamps:
            _logger.warning(
                "%s: names of images are taken for times in %s; a rate replaces them",
                self.name, listed.unit,
            )  # fmt: skip

    @property
    def frame_count(self) -> int:
        """Number of image files."""
        return len(self._files)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the images."""
        bits = BitsInUse()
        for index, file in enumerate(self._files):
            stamp = self._stamps[index] if self._stamps else stamp_at(index, self.rate)
            yield self._frame(stamp, file, bits)

    def _frame(self, stamp: int, file: Path, bits: BitsInUse) -> Frame:
        try:
            data = file.read_bytes()
        except OSError as error:
            failure = f"Cannot read {file}: {error.strerror}. Check the file and its rights."
            return Frame(stamp, self._frame_id, partial(refuse, failure))
        kind, turn = encoded_format(data), orientation(data)
        # Who receives the file as it is would see it lying on its side.
        encoded = EncodedImage(data, kind) if kind and turn == UPRIGHT else None
        decode = partial(_decode, file, data, turn, bits)
        return Frame(stamp, self._frame_id, decode, encoded=encoded, bits=bits)


def _mean_rate(stamps: list[int] | None) -> float | None:
    if not stamps or len(stamps) < 2:
        return None
    return (len(stamps) - 1) * SECOND / (stamps[-1] - stamps[0])


def _single(file: Path) -> ImageList:
    count = images_in(file)
    if count < 2:
        return ImageList([file], None)
    return ImageList([file], None, (f"{file} holds {count} images: the first is taken.",))


def _images_of(directory: Path) -> ImageList:
    listed = list_images(directory)
    if not listed.files:
        found = " ".join([_summary(entries(directory)), *listed.remarks, *_elsewhere(directory)])
        raise SourceError(
            f"{directory} holds no image: looked for {', '.join(IMAGE_SUFFIXES)} and found "
            f"{found} Give a directory of images, a video, or a bag (a .bag, .db3 or .mcap file, "
            "or the directory that holds them)."
        )
    return listed


def _summary(found: list[Path]) -> str:
    names = sorted(entry.name for entry in found)[:3]
    return f"{len(found)} other entries ({', '.join(names)}, ...)." if names else "nothing."


def _elsewhere(directory: Path) -> Iterator[str]:
    """Yield a sentence that names what the directory holds instead of images."""
    bags = [each.name for each in entries(directory) if each.name.lower().endswith(ROS1)]
    if bags:
        yield f"It holds {len(bags)} ROS 1 bags ({', '.join(sorted(bags)[:3])}): name one."
    below = sorted(each.relative_to(directory).as_posix() for each in _holders(directory, _BELOW))
    if below:
        more = f" and {len(below) - 5} more" if len(below) > 5 else ""
        word = "directory" if len(below) == 1 else "directories"
        does = "does" if len(below) == 1 else "do"
        yield f"But its {word} {', '.join(below[:5])}{more} {does}: name one."


def _holders(directory: Path, levels: int) -> Iterator[Path]:
    """Yield the directories below one that hold images or a bag."""
    try:
        below = [each for each in entries(directory) if each.is_dir()][:_MOST_LOOKED_AT]
    except SourceError:
        return
    for each in below:
        try:
            if bag_files(each) or any(map(_is_any_image, each.iterdir())):
                yield each
                continue
        except OSError:
            continue
        if levels > 1:
            yield from _holders(each, levels - 1)


def _is_any_image(path: Path) -> bool:
    return is_image(path) or is_rare_image(path)


def _decode(file: Path, data: bytes, turn: int, bits: BitsInUse) -> ImageArray:
    try:
        return turned(decode_encoded(data, bits=bits), turn)
    except FrameError as error:
        raise FrameError(f"{file}: {error}") from error


_MILLISECOND = SECOND // 1000


class VideoSource(Source):
    """Frames of a video; stamps are the container's, or even where a rate is given."""

    def __init__(
        self, path: Path, *, rate: float | None = None, frame_id: str | None = None
    ) -> None:
        """Open the file once, to see that it plays.

        Raises:
            SourceError: OpenCV cannot read a first frame.

        """
        self.name = str(path)
        self._path = path
        self._even_rate = checked_rate(rate)
        self._frame_id = frame_id or DEFAULT_FRAME_ID
        capture = self._open()
        self.rate = self._even_rate or _rate_of(capture)
        self._expected = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        readable = capture.grab()
        capture.release()
        if not readable:
            raise self._unreadable()

    @property
    def frame_count(self) -> int | None:
        """Number of frames that the container announces."""
        return self._expected or None

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; a video that breaks off ends with a warning."""
        capture = self._open()
        try:
            yield from self._read(capture)
        finally:
            capture.release()

    def _read(self, capture: cv2.VideoCapture) -> Iterator[Frame]:
        index, stamp = 0, 0
        while True:
            good, bgr = capture.read()
            if not good:
                break
            stamp = self._stamp(capture, index, stamp)
            yield Frame(stamp, self._frame_id, partial(_rgb, np.asarray(bgr, np.uint8)))
            index += 1
        if index < self._expected:
            self._warn_of_the_end(index)

    def _warn_of_the_end(self, count: int) -> None:
        _logger.warning(
            "%s ended after %d frames, its container announces %d: it is truncated or damaged, "
            "or the container only estimates.",
            self.name,
            count,
            self._expected,
        )

    def _stamp(self, capture: cv2.VideoCapture, index: int, previous: int) -> int:
        """Take the container's time, one period late as all even stamps, or keep the pace."""
        if self._even_rate:
            return stamp_at(index, self._even_rate)
        period = stamp_at(0, self.rate)
        position = period + round(capture.get(cv2.CAP_PROP_POS_MSEC) * _MILLISECOND)
        return position if position > previous else previous + period

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            raise self._unreadable()
        return capture

    def _unreadable(self) -> SourceError:
        return SourceError(
            f"{self.name} is no video that OpenCV can read: it is damaged, its codec is missing, "
            "or it is no video. Give a video, an image (.jpg, .png), or a bag (.bag, .db3, "
            ".mcap, or the directory with metadata.yaml)."
        )


def _rate_of(capture: cv2.VideoCapture) -> float:
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    return rate if math.isfinite(rate) and rate > 0 else DEFAULT_RATE


def _rgb(bgr: NDArray[np.uint8]) -> ImageArray:
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
