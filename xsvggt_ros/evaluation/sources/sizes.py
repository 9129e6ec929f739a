# SPDX-License-Identifier: Apache-2.0
"""The size of an image file, and the camera of images of that size."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2

from xsvggt_ros.errors import SourceError
from xsvggt_ros.geometry.cameras import Intrinsics

logger = logging.getLogger(__name__)


def image_size(path: Path) -> tuple[int, int]:
    """Return width and height in pixels.

    Raises:
        SourceError: it cannot be read.

    """
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if image is None:
        raise SourceError(f"cannot read the image {path}; is the data set complete?")
    return image.shape[1], image.shape[0]


def camera_of(
    camera: tuple[float, float, float, float], image: Path, size: tuple[int, int] | None = None
) -> Intrinsics:
    """Return the camera of images as they lie on disk.

    Args:
        camera: fx, fy, cx, cy; fy may be negative (y up), and counts without its sign.
        image: one of the images.
        size: width and height that the numbers are for; None = that of the images.

    Raises:
        SourceError: the image cannot be read.

    """
    fx, fy, cx, cy = camera
    actual = image_size(image)
    known = Intrinsics(fx, abs(fy), cx, cy, *(size or actual))
    width, height = actual
    if size is not None and size != actual:
        logger.warning(
            "images are %dx%d, and the camera's numbers are for %dx%d: they are scaled%s",
            width, height, *size,
            "" if known.has_shape_of(*actual) else ", though the images have another shape: if "
            "they were cut, clouds are wrong; give fx,fy,cx,cy (--intrinsics)",
        )  # fmt: skip
        return known.at_size(*actual)
    if not known.is_plausible:
        logger.warning(
            "the principal point (%g, %g) is far from the middle of images of %dx%d: are these "
            "the camera's numbers for another size? Give those for this size (--intrinsics)",
            cx, cy, width, height,
        )  # fmt: skip
    return known
