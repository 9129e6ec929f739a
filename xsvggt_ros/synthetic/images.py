# SPDX-License-Identifier: Apache-2.0
"""Images and depth maps as bytes of files."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

JPEG_QUALITY = 95


def png(image: NDArray[np.uint8] | NDArray[np.uint16]) -> bytes:
    """Return RGB [H, W, 3] or 16-bit [H, W] as PNG, without loss."""
    return _encoded(".png", image, [])


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """Return RGB [H, W, 3] as JPEG."""
    return _encoded(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


def depth_steps(depth: NDArray[np.float32], steps: float) -> NDArray[np.uint16]:
    """Return depth in 1/``steps`` metres, 0 where it is out of range."""
    scaled = np.rint(depth.astype(np.float64) * steps)
    scaled[~((scaled > 0) & (scaled <= 65535))] = 0
    return scaled.astype(np.uint16)


def _encoded(
    suffix: str, image: NDArray[np.uint8] | NDArray[np.uint16], options: list[int]
) -> bytes:
    ordered = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    good, data = cv2.imencode(suffix, ordered, options)
    assert good, f"OpenCV cannot write {suffix}"
    return bytes(data)
