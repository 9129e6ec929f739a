# SPDX-License-Identifier: Apache-2.0
"""What every source of images has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from xsvggt_ros.errors import FrameError, SourceError
from xsvggt_ros.stream.frame import SECOND, Frame, ImageArray

if TYPE_CHECKING:
    from typing_extensions import Self


DEFAULT_RATE = 10.0
"""Images per second where nothing says otherwise."""

DEFAULT_FRAME_ID = "camera_optical_frame"
"""Optical frame of a camera that has no name (REP-103)."""

LOWEST_RATE, HIGHEST_RATE = 0.0001, 1e6
"""Hz; below, the seconds of a stamp soon outgrow the 32 bits that ROS has for them."""


class Source(ABC):
    """Images in the order in which they were taken.

    Each iteration starts from the beginning and holds one frame at a time. An image that
    cannot be read is a frame whose ``decode`` raises, never a gap.

    Attributes:
        name: what people call it, for messages.
        rate: nominal images per second.

    """

    name: str
    rate: float

    @property
    @abstractmethod
    def frame_count(self) -> int | None:
        """Number of frames, or None where only reading tells; a video's may be an estimate."""

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames from the first one on; raise SourceError where reading fails."""

    def close(self) -> None:  # noqa: B027
        """Let go of what is open; a source that holds nothing open has nothing to do."""

    def __enter__(self) -> Self:
        """Return the source itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the source."""
        self.close()


def checked_rate(rate: float | None) -> float | None:
    """Return the rate, or raise SourceError where no clock can follow it."""
    if rate is None or LOWEST_RATE <= rate <= HIGHEST_RATE:
        return rate
    raise SourceError(
        f"A rate of {rate} Hz is impossible: give one from {LOWEST_RATE} to {HIGHEST_RATE:.0f}, "
        "such as 10."
    )


def stamp_at(index: int, rate: float) -> int:
    """Return the stamp of an image of an even sequence, in nanoseconds.

    The first one is stamped after one period: zero means "no time" to ROS clocks and to tf2.
    """
    return round((index + 1) * SECOND / rate)


def refuse(failure: str) -> ImageArray:
    """Stand in for the ``decode`` of an image that could not even be read."""
    raise FrameError(failure)


LONGEST_GAP = 10.0
"""Seconds between two images, or ten of their usual distance, beyond which a pause is cut."""
CUT_TO = 1.0
"""Seconds that stand for a longer pause."""

_USUAL_GAPS = 3
"""Times the usual distance of two images, but a second at least, that no stamp is believed alone
when the times of recording deny it."""


class Gap(NamedTuple):
    """The distance of two images.

    Attributes:
        nanoseconds: 0 where it is not known, so that it takes one period of the recording.
        pause: what was cut to CUT_TO, in nanoseconds; 0 where nothing was.

    """

    nanoseconds: int
    pause: int = 0


def gap_between(previous: Frame, frame: Frame, rate: float) -> Gap:
    """Return how long after ``previous`` a frame is due.

    Stamps come first. Where they jump, as between images before and after the first /clock, or at
    one wrong stamp, the times of recording count; where these jump as well, the pause is cut.

    Args:
        previous: the frame before it.
        frame: the frame.
        rate: usual images per second.

    """
    longest = round(SECOND * max(LONGEST_GAP, 10 / rate))
    gap, recorded = frame.stamp - previous.stamp, 0
    if frame.recorded is not None and previous.recorded is not None:
        recorded = frame.recorded - previous.recorded
    denied = gap > _USUAL_GAPS * max(SECOND, SECOND / rate) and 0 < recorded < gap // _USUAL_GAPS
    if 0 < gap <= longest and not denied:
        return Gap(gap)
    if 0 < recorded <= longest:
        return Gap(recorded)
    return Gap(0) if gap <= longest else Gap(round(CUT_TO * SECOND), gap)
