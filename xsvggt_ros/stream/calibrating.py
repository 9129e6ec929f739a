# SPDX-License-Identifier: Apache-2.0
"""Known cameras in the stream: their images are rectified, their intrinsics are used."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Literal

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.geometry.cameras import Calibration
from xsvggt_ros.geometry.rectification import Rectification, rectification
from xsvggt_ros.stream.frame import ImageArray

logger = logging.getLogger(__name__)

CalibrationUse = Literal["auto", "raw", "rectified", "ignore"]

_MOST_KEPT = 8
"""Calibrations: a rig has one for each camera."""
_MOST_SAID = 20
MOSTLY_SEEN = 0.5
"""Share of a rectified image that its source should fill."""

CALIBRATION_USES: tuple[CalibrationUse, ...] = ("auto", "raw", "rectified", "ignore")


class Calibrator:
    """Finds for each image how to rectify it; maps are built once for a calibration.

    ``use``: ``raw`` = the images come as the lens made them, ``rectified`` = they have been
    rectified already, ``auto`` = as the calibration says, ``ignore`` = no calibration is used.
    What cannot be used is said once for each calibration.
    """

    def __init__(self, use: CalibrationUse = "auto") -> None:
        self._use = use
        self._found: dict[tuple[Calibration, int, int], Rectification | None] = {}
        self._said: set[str] = set()

    def find(self, calibration: Calibration | None, image: ImageArray) -> Rectification | None:
        """Return how to rectify ``image``, None where its camera is not known."""
        if calibration is None or self._use == "ignore":
            return None
        height, width = image.shape[:2]
        key = calibration, width, height
        if key not in self._found:
            if len(self._found) >= _MOST_KEPT:
                del self._found[next(iter(self._found))]
            self._found[key] = self._make(*key)
        return self._found[key]

    def _make(self, calibration: Calibration, width: int, height: int) -> Rectification | None:
        if not calibration.known:
            self._say(logging.INFO, "the camera_info is uncalibrated: the network's own is used")
            return None
        if self._use != "auto":
            calibration = replace(calibration, rectified=self._use == "rectified")
        try:
            found = rectification(calibration, width, height)
        except ConfigurationError as error:
            self._say(logging.WARNING, f"the calibration is not used: {error}")
            return None
        self._tell(calibration, found)
        return found

    def _tell(self, calibration: Calibration, found: Rectification) -> None:
        size = f"{found.intrinsics.width}x{found.intrinsics.height}"
        if found.scaled:
            self._say(
                logging.WARNING,
                f"the camera_info is for {calibration.width}x{calibration.height} pixels, the "
                f"images have {size}: it is scaled to them",
            )
        if found.seen is not None and found.seen.mean() < MOSTLY_SEEN:
            self._say(
                logging.WARNING,
                f"by the camera_info the camera sees only {found.seen.mean():.0%} of its rectified "
                "image, and the rest stays black: check focal lengths, distortion and binning",
            )
        how = "rectified here" if found.maps is not None else "used as they are"
        self._say(logging.INFO, f"the camera is known, and images of {size} pixels are {how}")

    def _say(self, level: int, text: str) -> None:
        """Log once: a lens that focuses has another calibration in each image."""
        if text not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(text)
            logger.log(level, text)
