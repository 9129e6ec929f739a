# SPDX-License-Identifier: Apache-2.0
"""A stream of a suite as frames, for whatever takes frames one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.synthetic.cameras import intrinsics_for
from xsvggt_ros.synthetic.scenes.streams import Plan, rendered
from xsvggt_ros.synthetic.scenes.suite import SUITES, suite_named, suite_plan, suite_settings
from xsvggt_ros.synthetic.sequence import LONGEST, SyntheticFrame

SEPARATOR = "#"
"""Between a suite and the number of one of its streams."""

_RATE = 10.0
"""Frames per second that stamps tell of."""


class SceneSequence:
    """One stream of a suite, rendered as it is asked for; depth is NaN where there is sky."""

    def __init__(self, name: str, width: int = 112, height: int = 84) -> None:
        """Plan a stream.

        Args:
            name: suite and number, such as `landmarks_100_lap50#3`.
            width: of an image, pixels.
            height: of an image, pixels.

        Raises:
            ConfigurationError: there is no such suite or number.

        """
        suite, number = split_name(name)
        self._suite = suite_named(suite)
        self.name = name
        self._seed = self._suite.first_seed + number
        self._settings = suite_settings(self._suite, width, height)
        self._plan = suite_plan(self._suite, self._settings, slice(number, number + 1))
        degrees = math.degrees(float(self._plan.field_of_view[0]))
        self.intrinsics = intrinsics_for(width, height, degrees)
        self.poses: NDArray[np.float64] = self._plan.poses[0].double().numpy()

    def __len__(self) -> int:
        """Return the number of frames."""
        return self._suite.frames

    def __iter__(self) -> Iterator[SyntheticFrame]:
        """Yield all frames."""
        return map(self.frame, range(len(self)))

    def frame(self, index: int) -> SyntheticFrame:
        """Render one frame."""
        noise = torch.Generator().manual_seed(self._seed * LONGEST + index)
        with torch.inference_mode():
            found = rendered(_part(self._plan, slice(index, index + 1)), self._settings, noise)
        depth = torch.where(found.seen, found.truth.depth * found.unit, torch.nan)
        color = (255 * found.images[0, 0]).round().byte().movedim(0, -1)
        return SyntheticFrame(
            index,
            round((index + 1) * 1e9 / _RATE),
            np.ascontiguousarray(color.numpy()),
            depth[0, 0].numpy(),
            self.poses[index],
            self.intrinsics,
        )


def _part(plan: Plan, frames: slice) -> Plan:
    """Return the same worlds with some of the frames."""
    return Plan(
        plan.scenes,
        plan.poses[:, frames],
        plan.field_of_view,
        plan.exposure,
        plan.gamma,
        plan.noise,
    )


def split_name(name: str) -> tuple[str, int]:
    """Return suite and number of a stream.

    Raises:
        ConfigurationError: it is no such name.

    """
    suite, separator, number = name.partition(SEPARATOR)
    if not separator or not number.isdecimal():
        raise ConfigurationError(
            f"'{name}' names no stream of a suite; write SUITE{SEPARATOR}NUMBER, such as "
            f"{next(iter(SUITES))}{SEPARATOR}0"
        )
    return suite, int(number)
