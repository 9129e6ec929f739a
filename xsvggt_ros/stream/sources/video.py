# SPDX-License-Identifier: Apache-2.0
"""A video file."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import SourceError
from xsvggt_ros.stream.frame import Frame, ImageArray
from xsvggt_ros.stream.sources.base import (
    DEFAULT_FRAME_ID,
    DEFAULT_RATE,
    SECOND,
    Source,
    checked_rate,
    stamp_at,
)

_logger = logging.getLogger(__name__)

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
