# SPDX-License-Identifier: Apache-2.0
"""How the network's picture lies in the source picture, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.cameras import Intrinsics


@dataclass(frozen=True, slots=True)
class ImageMapping:
    """How the network's picture lies in the source picture.

    The source is resized to ``width`` x ``resized_height``, then rows ``crop_top`` to
    ``crop_top + height`` are kept.
    """

    source_width: int
    source_height: int
    width: int
    height: int
    resized_height: int
    crop_top: int

    @property
    def scale_x(self) -> float:
        """Network pixels per source pixel along x."""
        return self.width / self.source_width

    @property
    def scale_y(self) -> float:
        """Network pixels per source pixel along y."""
        return self.resized_height / self.source_height

    def intrinsics_to_source(self, intrinsics: Intrinsics) -> Intrinsics:
        """Carry the network picture's camera over to the source picture."""
        return Intrinsics(
            fx=intrinsics.fx / self.scale_x,
            fy=intrinsics.fy / self.scale_y,
            cx=intrinsics.cx / self.scale_x,
            cy=(intrinsics.cy + self.crop_top) / self.scale_y,
            width=self.source_width,
            height=self.source_height,
        )

    def intrinsics_from_source(self, intrinsics: Intrinsics) -> Intrinsics:
        """Carry the source picture's camera over to the network picture."""
        return Intrinsics(
            fx=intrinsics.fx * self.scale_x,
            fy=intrinsics.fy * self.scale_y,
            cx=intrinsics.cx * self.scale_x,
            cy=intrinsics.cy * self.scale_y - self.crop_top,
            width=self.width,
            height=self.height,
        )

    def mask_from_source(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Bring a mask of the source to [height, width], nearest neighbour."""
        size = (self.width, self.resized_height)
        whole = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)
        return whole[self.crop_top : self.crop_top + self.height].astype(bool)

    def depth_to_source(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring depth [height, width] to the source's size; NaN where rows were cut off.

        Nearest neighbour, because a mean of two depths lies on neither surface.
        """
        whole = np.full((self.resized_height, self.width), np.nan, np.float32)
        whole[self.crop_top : self.crop_top + self.height] = depth
        size = (self.source_width, self.source_height)
        return cv2.resize(whole, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.float32)
