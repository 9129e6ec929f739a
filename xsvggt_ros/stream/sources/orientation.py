# SPDX-License-Identifier: Apache-2.0
"""The one rule of orientation: images and videos of unknown cameras are turned upright.

Phones store pixels as the sensor reads them and say in EXIF how they are to be turned; OpenCV turns
videos by the same token. Pixels whose camera is known stay where its calibration says they are:
those of ROS messages and of data sets.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image

from xsvggt_ros.stream.frame import ImageArray

_TAG = 0x0112

_TIFF = (b"II*\0", b"MM\0*")

UPRIGHT = 1
_TURNS = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: image.transpose(1, 0, 2)[:, ::-1],
    7: lambda image: image.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda image: image.transpose(1, 0, 2)[::-1],
}
"""What brings an image upright, by the value of EXIF."""


def orientation(data: bytes) -> int:
    """Return the orientation that an image file says, 1 to 8; 1 where it says none.

    OpenCV turns a TIFF upright whenever it reads one, so that nothing is left to be done.
    """
    if data.startswith(_TIFF):
        return UPRIGHT
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                value = image.getexif().get(_TAG, UPRIGHT)
    except Exception:  # noqa: BLE001 - what is wrong with the file, its decoder says
        return UPRIGHT
    return value if value in _TURNS else UPRIGHT


def turned(image: ImageArray, value: int) -> ImageArray:
    """Return an image upright that was stored with an orientation."""
    return np.ascontiguousarray(_TURNS[value](image)) if value in _TURNS else image
