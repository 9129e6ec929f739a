# SPDX-License-Identifier: Apache-2.0
"""How long after the image before it a recorded image is due."""

from __future__ import annotations

from typing import NamedTuple

from xsvggt_ros.stream.frame import Frame
from xsvggt_ros.stream.sources.base import SECOND

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
