# SPDX-License-Identifier: Apache-2.0
"""The size of a picture file."""

from __future__ import annotations

from pathlib import Path

import cv2

from xsvggt_ros.errors import SourceError


def picture_size(path: Path) -> tuple[int, int]:
    """Return width and height in pixels.

    Raises:
        SourceError: it cannot be read.

    """
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.is_file() else None
    if picture is None:
        raise SourceError(f"cannot read the picture {path}; is the data set complete?")
    return picture.shape[1], picture.shape[0]
