# SPDX-License-Identifier: Apache-2.0
"""How the network's image lies in the source image, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.cameras import Intrinsics

CUT_SAID = 0.02
"""Share of the rows that may be cut off without a word."""

STRETCH_SAID = 1.25
"""Factor between the scales of the two axes up to which nothing is said."""


@dataclass(frozen=True, slots=True)
class ImageMapping:
    """How the network's image lies in the source image.

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

    @property
    def remark(self) -> str:
        """What of the source is lost or out of proportion, in a sentence; empty for little."""
        size = f"images of {self.source_width}x{self.source_height}"
        kept = self.height / self.resized_height
        if kept < 1 - CUT_SAID:
            rows = round(kept * self.source_height)
            return (
                f"{size} are higher than wide: the middle {rows} rows are used, "
                f"{100 - 100 * kept:.0f} % is cut off; turn the camera, or cut them yourself, to "
                "choose another part"
            )
        stretch = self.scale_y / self.scale_x
        if max(stretch, 1 / stretch) > STRETCH_SAID:
            change = "stretched" if stretch > 1 else "squeezed"
            return (
                f"{size} are {change} {max(stretch, 1 / stretch):.1f} times in height, to whole "
                "patches of the network: poses and depth suffer; cut them to a usual shape, or "
                "raise input.width"
            )
        return ""

    def intrinsics_to_source(self, intrinsics: Intrinsics) -> Intrinsics:
        """Carry the network image's camera over to the source image."""
        return Intrinsics(
            fx=intrinsics.fx / self.scale_x,
            fy=intrinsics.fy / self.scale_y,
            cx=intrinsics.cx / self.scale_x,
            cy=(intrinsics.cy + self.crop_top) / self.scale_y,
            width=self.source_width,
            height=self.source_height,
        )

    def intrinsics_from_source(self, intrinsics: Intrinsics) -> Intrinsics:
        """Carry the source image's camera over to the network image."""
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
