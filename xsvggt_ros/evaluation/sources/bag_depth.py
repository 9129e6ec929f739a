# SPDX-License-Identifier: Apache-2.0
"""Depth of a bag, matched with its images by stamp."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import FrameError
from xsvggt_ros.stream.messages import MILLIMETRES, depth_of, in_metres, nanoseconds
from xsvggt_ros.stream.sources.bag_reader import BagReader, Recorded
from xsvggt_ros.stream.sources.topics import IMAGE, Topic

Depth = NDArray[np.float32]
HEADER = 12
"""Bytes before the PNG of a compressedDepth message: format, then two float32 for inverse depth."""

_WINDOW = 8
"""Depth messages held at most, around the stamp of the newest image."""


def recorded_depth(message: Any, kind: str, steps_per_metre: float = MILLIMETRES) -> Depth:
    """Return the metres of an Image or a compressedDepth message, NaN where unknown.

    Raises:
        FrameError: an encoding that is no depth, or damaged data.

    """
    try:
        if kind == IMAGE:
            return depth_of(message, steps_per_metre)
        return _compressed(message, steps_per_metre)
    except (AttributeError, TypeError, ValueError) as error:
        raise FrameError(f"a depth message is damaged ({error})") from error


def _compressed(message: Any, steps_per_metre: float) -> Depth:
    """Decode what compressed_depth_image_transport sends.

    Float depth is sent as 16-bit inverse depth, depth = a / (raw - b), with a and b in the header.
    """
    if "rvl" in message.format:
        raise FrameError("depth compressed as RVL is not read; record it as PNG, or raw")
    data = np.ascontiguousarray(message.data, np.uint8)
    raw = cv2.imdecode(data[HEADER:], cv2.IMREAD_UNCHANGED) if len(data) > HEADER else None
    if raw is None or raw.dtype != np.uint16 or raw.ndim != 2:
        raise FrameError(f"{len(data)} bytes of '{message.format}' hold no 16-bit depth")
    if "32FC1" not in message.format:
        return in_metres(raw, steps_per_metre)
    a, b = np.frombuffer(data[4:HEADER].tobytes(), "<f4")
    with np.errstate(divide="ignore"):
        depth = np.where(raw > 0, a / (raw.astype(np.float32) - b), np.nan)
    return in_metres(depth, steps_per_metre)


class _Held(NamedTuple):
    stamp: int
    message: Any


class DepthStream:
    """Finds the depth of each image while both run on; holds a few messages."""

    def __init__(
        self, reader: BagReader, topic: Topic, tolerance: int, steps_per_metre: float
    ) -> None:
        """Read ``topic``; stamps may differ by ``tolerance`` nanoseconds."""
        self._reader = reader
        self._topic = topic
        self._tolerance = tolerance
        self._steps = steps_per_metre
        self._messages: Iterator[Recorded] = reader.messages(topic)
        self._held: deque[_Held] = deque(maxlen=_WINDOW)

    def at(self, stamp: int) -> Depth | None:
        """Return the depth nearest to an image's stamp, or None where none is near enough.

        Raises:
            FrameError: it is damaged.
            SourceError: the bag cannot be read on.

        """
        while not self._held or self._held[-1].stamp < stamp:
            recorded = next(self._messages, None)
            if recorded is None:
                break
            self._hold(recorded)
        if not self._held:
            return None
        nearest = min(self._held, key=lambda each: abs(each.stamp - stamp))
        if abs(nearest.stamp - stamp) > self._tolerance:
            return None
        return recorded_depth(nearest.message, self._topic.kind, self._steps)

    def _hold(self, recorded: Recorded) -> None:
        try:
            message = self._reader.deserialize(recorded)
            stamp = nanoseconds(message.header.stamp)
        except (FrameError, AttributeError):
            return  # Without a stamp it belongs to no image.
        self._held.append(_Held(stamp or recorded.received, message))
