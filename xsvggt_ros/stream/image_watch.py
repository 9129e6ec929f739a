# SPDX-License-Identifier: Apache-2.0
"""Whether an image shows anything: a network is as sure of a covered lens as of a room."""

from __future__ import annotations

import cv2
import numpy as np

from xsvggt_ros.stream.frame import ImageArray

DARK = 16
"""Of 255: below is black, with the noise of a sensor."""
BRIGHT = 250
"""Above is white, where nothing is told apart any more."""
SHARE = 95
"""Percent of the image that is black or white, where it is called so."""
FLAT = 6
"""Levels of grey within which an image has no texture."""
MOST_ALIKE = 30
"""Images in a row that are the same in every pixel; the noise of a real sensor never repeats."""

_BLOCK = 7
"""Pixels along each edge of what is averaged, so that noise is no texture."""


def blindness(color: ImageArray) -> str | None:
    """Return why an image, uint8 RGB [h, w, 3], shows nothing; None where it shows a scene."""
    height, width = color.shape[:2]
    blocks = (max(1, width // _BLOCK), max(1, height // _BLOCK))
    whole = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY)
    gray = cv2.resize(whole, blocks, interpolation=cv2.INTER_AREA)
    low, high = np.percentile(gray, (100 - SHARE, SHARE))
    if high < DARK:
        return (
            f"the image is dark: {SHARE} % of it below {DARK} of 255; look for a covered lens, "
            "give light, or raise the exposure"
        )
    if low > BRIGHT:
        return (
            f"the image is overexposed: {SHARE} % of it above {BRIGHT} of 255; lower the exposure"
        )
    if high - low < FLAT:
        return (
            f"the image has no texture: nearly all of it within {high - low:.0f} levels of grey; "
            "look for a covered or fogged lens"
        )
    return None


class ImageWatch:
    """Follows the images of one camera.

    Attributes:
        blind: whether the newest one shows nothing.

    """

    def __init__(self) -> None:
        self.blind = False
        self._last: ImageArray | None = None
        self._alike = 0

    def judge(self, color: ImageArray) -> tuple[str, ...]:
        """Return what is wrong with the newest image, in words; nothing where it shows a scene."""
        reason = blindness(color)
        self.blind = reason is not None
        same = self._last is not None and np.array_equal(self._last, color)
        self._alike = self._alike + 1 if same else 1
        self._last = color
        if reason:
            return (reason,)
        if self._alike >= MOST_ALIKE:
            return (
                f"{self._alike} images in a row are the same in every pixel; restart the camera's "
                "driver, unless it is a simulation at rest",
            )
        return ()
