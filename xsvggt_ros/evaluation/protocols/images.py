# SPDX-License-Identifier: Apache-2.0
"""Images as the reference's loaders hand them to the network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xsvggt_ros.errors import EvaluationError
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.stream.frame import ImageArray

PATCH = 14


def long_side(pixels: ImageArray, side: int = 518, patch: int = PATCH) -> ImageArray:
    """Resize so that the long side is ``side`` and both are multiples of the patch, nothing cut.

    The loader of video and monocular depth: first to the long side, keeping the aspect, then to the
    next smaller multiples. Both steps are Lanczos; where images grow the first one is bicubic.
    """
    image = Image.fromarray(pixels)
    width, height = image.size
    longest = max(width, height)
    shrinks = longest > side
    first = (round(width * side / longest), round(height * side / longest))
    image = image.resize(first, Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC)
    whole = (_floor(first[0], patch), _floor(first[1], patch))
    return np.array(image.resize(whole, Image.Resampling.LANCZOS), np.uint8)


def _floor(length: int, patch: int) -> int:
    """Return the largest multiple of the patch that fits, at least one patch."""
    return max(length // patch * patch, patch)


def cropped(
    pixels: ImageArray, depth: NDArray[np.float32], camera: Intrinsics, width: int, height: int
) -> tuple[ImageArray, NDArray[np.float32], Intrinsics]:
    """Bring image and depth to one size, the principal point in the middle before that.

    The loader of DUSt3R's data sets, which multi-view reconstruction is measured with: crop
    symmetrically around the principal point, scale until the target is covered, crop the middle.
    Images are resampled by Lanczos, depth by nearest neighbour.

    Args:
        pixels: uint8 [H, W, 3], of any size; brought to that of the depth first.
        depth: float32 [H, W].
        camera: of the depth.
        width: of the result.
        height: of the result.

    Raises:
        EvaluationError: the principal point lies at the edge of the image.

    """
    image = Image.fromarray(pixels)
    if image.size != (camera.width, camera.height):
        image = image.resize((camera.width, camera.height), Image.Resampling.LANCZOS)
    cx, cy = round(camera.cx), round(camera.cy)
    half_x, half_y = min(cx, camera.width - cx), min(cy, camera.height - cy)
    if half_x <= camera.width / 5 or half_y <= camera.height / 5:
        raise EvaluationError(
            f"the principal point ({camera.cx}, {camera.cy}) is too near the edge of the "
            f"{camera.width}x{camera.height} image to crop around it"
        )
    left, top = cx - half_x, cy - half_y
    image = image.crop((left, top, cx + half_x, cy + half_y))
    depth = depth[top : cy + half_y, left : cx + half_x]
    scale = max(width / image.width, height / image.height) + 1e-8
    size = (int(image.width * scale), int(image.height * scale))
    method = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    image = image.resize(size, method)
    rows = np.minimum(((np.arange(size[1])) / scale).astype(int), depth.shape[0] - 1)
    columns = np.minimum(((np.arange(size[0])) / scale).astype(int), depth.shape[1] - 1)
    depth = depth[rows][:, columns]
    right, down = (size[0] - width) // 2, (size[1] - height) // 2
    image = image.crop((right, down, right + width, down + height))
    # Pixel corners scale, centres do not: the half pixel goes in and out again.
    moved = Intrinsics(
        fx=camera.fx * scale,
        fy=camera.fy * scale,
        cx=(camera.cx - left + 0.5) * scale - 0.5 - right,
        cy=(camera.cy - top + 0.5) * scale - 0.5 - down,
        width=width,
        height=height,
    )
    return np.array(image, np.uint8), depth[down : down + height, right : right + width], moved
