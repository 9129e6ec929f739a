# SPDX-License-Identifier: Apache-2.0
"""Images of a ROS 1 or ROS 2 bag, read without ROS."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from statistics import median_low
from typing import Any

from xsvggt_ros.errors import FrameError
from xsvggt_ros.geometry.cameras import Calibration, is_rectified_topic
from xsvggt_ros.stream.frame import SECOND, BitsInUse, EncodedImage, Frame, ImageArray
from xsvggt_ros.stream.imaging import encoded_format
from xsvggt_ros.stream.messages import (
    IMAGE,
    calibration_of,
    choose_camera_info_topic,
    choose_image_topic,
    compressed_image_of,
    frame_name,
    image_of,
    nanoseconds,
)
from xsvggt_ros.stream.sources.bag_reader import BagReader, Recorded
from xsvggt_ros.stream.sources.base import (
    DEFAULT_FRAME_ID,
    DEFAULT_RATE,
    Source,
    refuse,
)

_logger = logging.getLogger(__name__)

_SLOWEST = 0.1
"""Hz; a bag that is slower as a whole is looked into."""
_LOOKED_AT = 50
"""Images at its beginning."""
_OTHER_CLOCK = 86_400 * SECOND
"""Nanoseconds between stamp and recording, from which on they are of different clocks."""


class BagSource(Source):
    """Images of one image topic, in the order of the recording.

    Stamps and frame ids are those of the headers; the time of recording stands in for a zero
    stamp, in the clock of those that are not zero, and for stamps that repeat. An image's
    calibration is the latest recorded before it on the ``camera_info`` topic beside the image
    topic, or the first one where none came before.
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
        self._bits = BitsInUse()
        with closing(BagReader(path)) as reader:
            for remark in reader.remarks:
                _logger.warning("%s", remark)
            topics = reader.topics()
            self._image = choose_image_topic(str(path), topics, topic)
            self._info = choose_camera_info_topic(topics, self._image.name)
            self.rate = self._read_rate(reader)
            self._shift = self._read_shift(reader)
            self._stamped = self._reads_stamps(reader)
            self._first_calibration = self._read_first_calibration(reader)
        self.name = f"{path}:{self._image.name}"

    @property
    def frame_count(self) -> int:
        """Number of messages on the image topic."""
        return self._image.count

    def __iter__(self) -> Iterator[Frame]:
        """Yield the images of the topic."""
        calibration, count, self._bits = self._first_calibration, 0, BitsInUse()
        with closing(BagReader(self._path)) as reader:
            for message in reader.messages(self._image, self._info):
                if message.topic == self._image.name:
                    count += 1
                    yield self._frame(reader, message, calibration)
                else:
                    calibration = self._calibration(reader, message) or calibration
        if count < self._image.count:
            _logger.warning(
                "%s ended after %d images, and its index announces %d: it is damaged",
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
            decode = partial(refuse, str(error))
            received = recorded.received
            return Frame(received, frame_id, decode, calibration, recorded=received)

    def _frame_of(self, message: Any, recorded: Recorded, calibration: Calibration | None) -> Frame:
        raw = recorded.kind == IMAGE
        read = image_of if raw else compressed_image_of
        frame_id = frame_name(message.header.frame_id)
        if calibration is not None and not calibration.speaks_of(frame_id):
            self._warn_of_other_camera(calibration, frame_id)
            calibration = None
        return Frame(
            stamp=self._stamp(message, recorded),
            frame_id=self._frame_id or frame_id or DEFAULT_FRAME_ID,
            decode=partial(_decode, read, message, self._bits),
            calibration=calibration,
            encoded=None if raw else _encoded(message),
            bits=self._bits,
            recorded=recorded.received,
        )

    def _stamp(self, message: Any, recorded: Recorded) -> int:
        """Return when an image was taken, as the recording tells where its header does not."""
        stamp = nanoseconds(message.header.stamp) if self._stamped else 0
        return stamp or max(0, recorded.received + self._shift)

    def _reads_stamps(self, reader: BagReader) -> bool:
        """Return whether stamps tell images apart; a driver may send one and the same for long.

        Where they do not, and the times of recording do, it is said.
        """
        stamps, times = [], []
        for recorded in islice(reader.messages(self._image), _LOOKED_AT):
            try:
                stamps.append(nanoseconds(reader.deserialize(recorded).header.stamp))
            except (FrameError, AttributeError):
                continue
            times.append(recorded.received)
        apart, apart_in_time = len(set(stamps)), len(set(times))
        if 0 in stamps or apart > len(stamps) / 2 or apart_in_time <= 2 * apart:
            return True
        _logger.warning(
            "%s: only %d of the first %d stamps on %s differ: the times of recording stand in; "
            "have the driver stamp each image",
            self._path, apart, len(stamps), self._image.name,
        )  # fmt: skip
        return False

    def _read_rate(self, reader: BagReader) -> float:
        """Return images per second: by the whole bag, or by the first ones where that cannot be.

        A recorder whose clock was set in between makes a bag of 50 years.
        """
        rate = _mean_rate(self._image.count, reader.duration)
        if rate >= _SLOWEST:
            return rate
        times = [each.received for each in islice(reader.messages(self._image), _LOOKED_AT)]
        gaps = [after - before for before, after in pairwise(times) if after > before]
        return SECOND / median_low(gaps) if gaps else DEFAULT_RATE

    def _read_shift(self, reader: BagReader) -> int:
        """Return what to add to times of recording so that they are of the clock of the stamps.

        Stamps of a simulation begin near zero, times of recording in 1970. Where both are of one
        clock, they differ by delays, which are nobody's shift.
        """
        for recorded in islice(reader.messages(self._image), _LOOKED_AT):
            try:
                stamp = nanoseconds(reader.deserialize(recorded).header.stamp)
            except (FrameError, AttributeError):
                continue
            if stamp:
                shift = stamp - recorded.received
                return shift if abs(shift) > _OTHER_CLOCK else 0
        return 0

    def _warn_of_other_camera(self, calibration: Calibration, frame_id: str) -> None:
        if not self._warned_of_other_camera:
            self._warned_of_other_camera = True
            _logger.warning(
                "%s: the camera_info speaks of frame '%s', the images are of '%s': it is not "
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


def _decode(read: Callable[..., ImageArray], message: Any, bits: BitsInUse) -> ImageArray:
    with _fields_expected():
        return read(message, bits)


def _encoded(message: Any) -> EncodedImage | None:
    kind = encoded_format(message.data)
    return EncodedImage(message.data.tobytes(), message.format or kind) if kind else None
