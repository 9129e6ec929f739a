# SPDX-License-Identifier: Apache-2.0
"""A frame and what is true about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from xsvggt_ros.geometry.cameras import Intrinsics
    from xsvggt_ros.stream.frame import Frame


@dataclass(frozen=True, slots=True)
class FrameTruth:
    """What is known about one frame; what is not known is None.

    Attributes:
        camera_to_world: float64 [4, 4], metres; optical frame (x right, y down, z forward) into a
            world that all frames of the source share. The rotation is NaN where only positions
            are known.
        depth: float32 [H, W], metres along the optical axis, NaN where unknown. It shows what the
            image shows, maybe at another size.
        intrinsics: the pinhole camera of ``depth``; without depth, that of the image.

    """

    camera_to_world: NDArray[np.float64] | None = None
    depth: NDArray[np.float32] | None = None
    intrinsics: Intrinsics | None = None

    @property
    def has_points(self) -> bool:
        """Whether true points in the world are known."""
        if self.depth is None or self.camera_to_world is None or self.intrinsics is None:
            return False
        return bool(np.isfinite(self.camera_to_world).all())


@dataclass(frozen=True, slots=True)
class EvaluationFrame:
    """A frame for the engine, and the truth to compare its result with, if any is known."""

    frame: Frame
    truth: FrameTruth | None = None

    @property
    def stamp(self) -> int:
        """Time of acquisition in nanoseconds."""
        return self.frame.stamp
