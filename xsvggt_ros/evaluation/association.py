# SPDX-License-Identifier: Apache-2.0
"""How much of a run has ground truth, and whether its scales agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.metrics.depth import DepthScore
from xsvggt_ros.metrics.trajectory import TrajectoryScore

Stamps = tuple[int, int]
"""The first and the last, nanoseconds."""

DISAGREEMENT = 2.0
"""Factor between the scales of path and depth from which they cannot both be right."""

_SECOND = 1e9


@dataclass(frozen=True)
class Association:
    """How many frames have a truth, and when images and truth were taken.

    Attributes:
        frames: with a result.
        with_pose: of these with a true pose.
        with_depth: of these with true depth.
        images: times of the images; None where there are none.
        truth: times of the true poses; None where poses have no times of their own.

    """

    frames: int
    with_pose: int
    with_depth: int
    images: Stamps | None
    truth: Stamps | None

    @property
    def words(self) -> str:
        """The association in a sentence."""
        text = (
            f"{self.with_pose} of {self.frames} frames have a true pose, {self.with_depth} true "
            "depth"
        )
        if self.images is None or (self.truth is None and not self.with_pose):
            return text
        text += f"; images were taken from {_range(self.images)}"
        if self.truth is None:
            return text
        return f"{text}, true poses from {_range(self.truth)}{self._apart}"

    @property
    def _apart(self) -> str:
        assert self.images is not None
        assert self.truth is not None
        if self.with_pose or self.overlap:
            return ""
        off = (self.truth[0] - self.images[0]) / _SECOND
        return (
            f": the truth begins {abs(off):.3f} s {'after' if off > 0 else 'before'} the images; "
            "bring both to the same clock"
        )

    @property
    def overlap(self) -> bool:
        """Whether there is a time at which there are images and truth."""
        if self.images is None or self.truth is None:
            return True
        return self.truth[0] <= self.images[1] and self.images[0] <= self.truth[1]

    def summary(self) -> dict[str, Any]:
        """Return it in types that JSON holds; times in seconds."""
        return {
            "frames": self.frames,
            "with_pose": self.with_pose,
            "with_depth": self.with_depth,
            "images_s": _seconds(self.images),
            "truth_s": _seconds(self.truth),
        }


def associate(
    stamps: NDArray[np.int64], others: NDArray[np.int64], tolerance: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Match each stamp with the nearest other one.

    Args:
        stamps: int64 [n], nanoseconds, ascending.
        others: int64 [m], likewise.
        tolerance: nanoseconds between the stamps of a pair, at most.

    Returns:
        Indices into ``stamps`` and ``others`` of the pairs no further than ``tolerance`` apart.

    """
    if not len(stamps) or not len(others):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    after = np.searchsorted(others, stamps).clip(0, len(others) - 1)
    before = (after - 1).clip(0)
    nearer_before = np.abs(stamps - others[before]) <= np.abs(others[after] - stamps)
    nearest = np.where(nearer_before, before, after).astype(np.int64)
    matched = np.flatnonzero(np.abs(others[nearest] - stamps) <= tolerance).astype(np.int64)
    return matched, nearest[matched]


def disagreement(
    path: TrajectoryScore | None, depth: DepthScore | None, steps_per_metre: float | None
) -> str:
    """Return a sentence where path and depth of the truth ask for scales that are far apart.

    Args:
        path: after Sim(3); its scale brings the estimate to the path's metres.
        depth: after alignment; its scale brings the estimate to the depth's metres.
        steps_per_metre: that depth was read with, where it is known.

    """
    if path is None or depth is None or min(path.scale, depth.alignment.scale) <= 0:
        return ""
    factor = depth.alignment.scale / path.scale
    if 1 / DISAGREEMENT < factor < DISAGREEMENT or path.ate.rmse > path.extent / 2:
        return ""
    given = f" (now {steps_per_metre:g})" if steps_per_metre else ""
    larger, large = ("larger", "large") if factor > 1 else ("smaller", "small")
    times = max(factor, 1 / factor)
    return (
        f"true depth is {times:.1f} times {larger} than the true path says: is it read at a wrong "
        f"scale? A --depth-scale{given} {times:.1f} times as {large} would fit; as it is, clouds "
        "are not to be trusted"
    )


def _range(stamps: Stamps) -> str:
    return f"{stamps[0] / _SECOND:.3f} to {stamps[1] / _SECOND:.3f} s"


def _seconds(stamps: Stamps | None) -> list[float] | None:
    return None if stamps is None else [each / _SECOND for each in stamps]
