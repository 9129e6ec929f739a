# SPDX-License-Identifier: Apache-2.0
"""A source that gives out no more images than its listener has room for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from threading import Condition

from xsvggt_ros.errors import FrameError
from xsvggt_ros.stream.frame import Frame, ImageArray
from xsvggt_ros.stream.sources import Source

logger = logging.getLogger(__name__)


class MeteredSource(Source):
    """Gives out an image when fewer than ``window`` of those before are still under way.

    Nothing at all comes out before the first :meth:`allow`. Images that cannot be decoded are
    left out here, so that each one given out gets an answer.

    Attributes:
        sent: images given out.
        left_out: images that could not be decoded.
        cut: whether the source had more than ``limit`` images; without one, never.

    """

    def __init__(self, source: Source, *, window: int, limit: int | None = None) -> None:
        self.name = source.name
        self.rate = source.rate
        self.sent = 0
        self.left_out = 0
        self.cut = False
        self._source = source
        self._limit = limit
        self._window = window
        self._allowed = 0
        self._closed = False
        self._changed = Condition()

    @property
    def frame_count(self) -> int | None:
        """Number of images that will come, None where only reading tells."""
        count = self._source.frame_count
        return count if count is None or self._limit is None else min(count, self._limit)

    def allow(self, answered: int) -> None:
        """Say how many images have been answered, refusals included."""
        with self._changed:
            self._allowed = answered + self._window
            self._changed.notify_all()

    def close(self) -> None:
        """End the iteration under way."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Frame]:
        """Yield decoded frames, each when there is room for it."""
        for frame in self._source:
            if self.sent == self._limit:
                self.cut = True
                return
            decoded = self._decoded(frame)
            if decoded is None:
                continue
            if not self._wait_for_room():
                return
            self.sent += 1
            yield decoded

    def _decoded(self, frame: Frame) -> Frame | None:
        try:
            image: ImageArray = frame.decode()
        except FrameError as error:
            logger.warning("the image of stamp %d ns is left out: %s", frame.stamp, error)
            self.left_out += 1
            return None
        return replace(frame, decode=lambda: image)

    def _wait_for_room(self) -> bool:
        """Return False where the source was closed meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self.sent < self._allowed)
            return not self._closed
