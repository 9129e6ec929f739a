# SPDX-License-Identifier: Apache-2.0
"""What every source offers: frames, each with what is true about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation.request import SourceOptions

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


class EvaluationSource(Protocol):
    """Frames in the order in which they were taken, each with what is true about it.

    Iteration begins again each time, holds one frame at a time, and drops none: an image that
    cannot be read is a frame whose ``decode`` raises.

    Attributes:
        name: what people call it, for headings and directories.
        kind: of recording, such as ``bag`` or ``tum``.
        warnings: what a reader of results must know; iterating may add to it.

    """

    name: str
    kind: str
    warnings: list[str]

    @property
    def frame_count(self) -> int | None:
        """Number of frames, or None where only reading tells."""
        ...

    def __iter__(self) -> Iterator[EvaluationFrame]:
        """Yield the frames from the first one on; raise SourceError where reading fails."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return where frames and truth come from, in types that JSON holds."""
        ...


def selected(options: SourceOptions, count: int, source: str) -> range:
    """Return the numbers of the frames that ``options`` take out of ``count``.

    Raises:
        SourceError: none is left.

    """
    every = range(options.start, count, options.stride)[: options.limit]
    if not every:
        raise SourceError(
            f"{source} has {count} frames, so that none is left after the first "
            f"{options.start}; start earlier"
        )
    return every
