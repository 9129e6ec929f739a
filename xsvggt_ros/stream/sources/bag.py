# SPDX-License-Identifier: Apache-2.0
"""Pictures of a ROS 1 or ROS 2 bag, read without ROS."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from xsvggt_ros.errors import FrameError
from xsvggt_ros.geometry.cameras import Calibration, is_rectified_topic
from xsvggt_ros.stream.frame import EncodedPicture, Frame, Picture
from xsvggt_ros.stream.imaging import decode_encoded, encoded_format
from xsvggt_ros.stream.messages import calibration_of, nanoseconds, picture_of
from xsvggt_ros.stream.sources.bag_reader import BagReader, Recorded
from xsvggt_ros.stream.sources.base import (
    DEFAULT_FRAME_ID,
    DEFAULT_RATE,
    SECOND,
    Source,
    refuse,
)
from xsvggt_ros.stream.sources.topics import (
    IMAGE,
    choose_camera_info_topic,
    choose_image_topic,
)

_logger = logging.getLogger(__name__)


class BagSource(Source):
    """Pictures of one image topic, in the order of the recording.

    Stamps and frame ids are those of the headers; the time of recording stands in for a zero
    stamp. A picture's calibration is the latest recorded before it on the ``camera_info``
    topic beside the image topic, or the first one where none came before.
    """

    def __init__(
        self, path: Path, *, topic: str | None = None, frame_id: str | None = None
    ) -> None:
        """Find the image topic and the first calibration.

        Raises:
            SourceError: the bag cannot be read, or the topic is missing or not the only one.

        """
        self._path = path
        self._frame_id = frame_id
        self._warned_of_other_camera = False
        with closing(BagReader(path)) as reader:
            for remark in reader.remarks:
                _logger.warning("%s", remark)
            topics = reader.topics()
            self._image = choose_image_topic(str(path), topics, topic)
            self._info = choose_camera_info_topic(topics, self._image.name)
            self.rate = _mean_rate(self._image.count, reader.duration)
            self._first_calibration = self._read_first_calibration(reader)
        self.name = f"{path}:{self._image.name}"

    @property
    def frame_count(self) -> int:
        """Number of messages on the image topic."""
        return self._image.count

    def __iter__(self) -> Iterator[Frame]:
        """Yield the pictures of the topic."""
        calibration, count = self._first_calibration, 0
        with closing(BagReader(self._path)) as reader:
            for message in reader.messages(self._image, self._info):
                if message.topic == self._image.name:
                    count += 1
                    yield self._frame(reader, message, calibration)
                else:
                    calibration = self._calibration(reader, message) or calibration
        if count < self._image.count:
            _logger.warning(
                "%s ended after %d pictures, and its index announces %d: it is damaged",
                self.name, count, self._image.count,
            )  # fmt: skip

    def _frame(
        self, reader: BagReader, recorded: Recorded, calibration: Calibration | None
    ) -> Frame:
        """Make a frame of a message; of a damaged one, a frame that refuses to be decoded."""
        try:
            with _fields_expected():
                return self._frame_of(reader.deserialize(recorded), recorded, calibration)
        except FrameError as error:
            frame_id = self._frame_id or DEFAULT_FRAME_ID
            return Frame(recorded.received, frame_id, partial(refuse, str(error)), calibration)

    def _frame_of(self, message: Any, recorded: Recorded, calibration: Calibration | None) -> Frame:
        raw = recorded.kind == IMAGE
        if calibration is not None and not calibration.speaks_of(message.header.frame_id):
            self._warn_of_other_camera(calibration, message.header.frame_id)
            calibration = None
        return Frame(
            stamp=nanoseconds(message.header.stamp) or recorded.received,
            frame_id=self._frame_id or message.header.frame_id or DEFAULT_FRAME_ID,
            decode=partial(_decode_raw if raw else _decode_compressed, message),
            calibration=calibration,
            encoded=None if raw else _encoded(message),
        )

    def _warn_of_other_camera(self, calibration: Calibration, frame_id: str) -> None:
        if not self._warned_of_other_camera:
            self._warned_of_other_camera = True
            _logger.warning(
                "%s: the camera_info speaks of frame '%s', the pictures are of '%s': it is not "
                "used",
                self._path, calibration.frame_id, frame_id,
            )  # fmt: skip

    def _read_first_calibration(self, reader: BagReader) -> Calibration | None:
        found = (self._calibration(reader, each) for each in reader.messages(self._info))
        return next(filter(None, found), None)

    def _calibration(self, reader: BagReader, recorded: Recorded) -> Calibration | None:
        try:
            with _fields_expected():
                rectified = is_rectified_topic(self._image.name)
                return calibration_of(reader.deserialize(recorded), rectified=rectified)
        except FrameError as error:
            _logger.warning("%s: %s The calibration before it stays.", self._path, error)
            return None


def _mean_rate(count: int, duration: int) -> float:
    return (count - 1) * SECOND / duration if count > 1 and duration > 0 else DEFAULT_RATE


@contextmanager
def _fields_expected() -> Iterator[None]:
    """Refuse a message whose fields are not those of its type.

    Some bags carry the definitions of their messages, and these can be damaged, too.
    """
    try:
        yield
    except (AttributeError, TypeError, ValueError) as error:
        raise FrameError(f"The message is damaged ({error}): record it again.") from error


def _decode_raw(message: Any) -> Picture:
    with _fields_expected():
        return picture_of(message)


def _decode_compressed(message: Any) -> Picture:
    with _fields_expected():
        return decode_encoded(message.data)


def _encoded(message: Any) -> EncodedPicture | None:
    kind = encoded_format(message.data)
    return EncodedPicture(message.data.tobytes(), kind) if kind else None
