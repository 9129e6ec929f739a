# SPDX-License-Identifier: Apache-2.0
"""Where recorded images come from: a directory, a video or a bag, behind one interface."""

from __future__ import annotations

from pathlib import Path

from xsvggt_ros.errors import SourceError
from xsvggt_ros.stream.sources.bag import BagSource
from xsvggt_ros.stream.sources.bag_reader import METADATA
from xsvggt_ros.stream.sources.base import Source
from xsvggt_ros.stream.sources.files import DirectorySource, VideoSource
from xsvggt_ros.stream.sources.images import is_image, is_rare_image, is_read
from xsvggt_ros.stream.sources.storage import bag_files, holds_bag, is_bag_file
from xsvggt_ros.stream.sources.storage.base import ZSTD_MAGIC

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
    location = Path(path).expanduser()
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
