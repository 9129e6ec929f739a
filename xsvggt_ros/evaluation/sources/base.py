# SPDX-License-Identifier: Apache-2.0
"""What every source of frames with ground truth offers, and what one may ask of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Protocol

from xsvggt_ros.errors import ConfigurationError, SourceError

if TYPE_CHECKING:  # the command line makes options of SourceOptions, and is to start at once
    from xsvggt_ros.evaluation.frame import EvaluationFrame

NO_TRUTH = "none"
"""Names the absence of a truth, so that none is looked for."""


@dataclass(frozen=True)
class SourceOptions:
    """What to take of a source; an option that does not apply to a source is refused.

    Attributes:
        kind: of a directory, where it cannot be told from the files, such as ``tum``.
        sequence: name of one sequence, where the path holds several.
        start: frames left out at the beginning.
        stride: take every nth frame.
        limit: the most frames taken; None takes all.
        topic: image topic of a bag that has several.
        depth_topic: depth topic of a bag; ``none`` leaves depth out.
        truth: where a bag's poses come from: a topic, two frames as ``map->camera``, a TUM, KITTI
            or EuRoC file, or ``none``.
        tolerance: seconds by which stamps of image and truth may differ.
        intrinsics: fx, fy, cx, cy in pixels, for recordings that do not say; a negative fy means
            that y points up there, as in ICL-NUIM.
        depth_scale: steps per metre of 16-bit depth images, where it is not what the kind says.
        room: kind of room of a synthetic sequence.
        width: of a synthetic image, pixels.
        height: of a synthetic image, pixels.

    Raises:
        ConfigurationError: a number out of range.

    """

    kind: str | None = None
    sequence: str | None = None
    start: int = 0
    stride: int = 1
    limit: int | None = None
    topic: str | None = None
    depth_topic: str | None = None
    truth: str | None = None
    tolerance: float = 0.02
    intrinsics: tuple[float, float, float, float] | None = None
    depth_scale: float | None = None
    room: str | None = None
    width: int | None = None
    height: int | None = None

    def __post_init__(self) -> None:
        least = {"start": 0, "stride": 1, "limit": 1, "width": 8, "height": 8}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise ConfigurationError(f"{name} is {value}; it must be {smallest} or more")
        if not 0 < self.tolerance <= 10:
            raise ConfigurationError(
                f"a tolerance of {self.tolerance} s is impossible; give one above 0 and up to 10"
            )
        if self.intrinsics is not None:
            fx, fy, *_ = self.intrinsics
            if not all(map(isfinite, self.intrinsics)) or fx <= 0 or fy == 0:
                raise ConfigurationError(
                    f"intrinsics of {', '.join(f'{each:g}' for each in self.intrinsics)} are those "
                    "of no camera; give fx,fy,cx,cy in pixels"
                )
        if self.depth_scale is not None and not 0 < self.depth_scale < float("inf"):
            raise ConfigurationError(
                f"a depth scale of {self.depth_scale} is impossible; give steps per metre, such as "
                "1000 or 5000"
            )

    def refuse(self, source: str, *names: str) -> None:
        """Raise ConfigurationError where one of the named options is set but means nothing."""
        for name in names:
            if getattr(self, name) is not None:
                raise ConfigurationError(
                    f"{source} knows no option {name} ('{getattr(self, name)}'); leave it out"
                )


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
