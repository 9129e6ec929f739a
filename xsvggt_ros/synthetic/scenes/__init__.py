# SPDX-License-Identifier: Apache-2.0
"""A stream of a suite as frames, for whatever takes frames one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.synthetic.cameras import intrinsics_for
from xsvggt_ros.synthetic.scenes.layouts import WORLDS, Pace
from xsvggt_ros.synthetic.scenes.scene import Draw
from xsvggt_ros.synthetic.scenes.streams import (
    Plan,
    Streams,
    StreamSettings,
    concatenate_plans,
    plan_streams,
    render_streams,
)
from xsvggt_ros.synthetic.sequence import FIRST_HELD_OUT_SEED, LONGEST, SyntheticFrame

SEEDS = 64
"""Streams of a suite; the first ones are taken where fewer are asked for."""


@dataclass(frozen=True)
class Suite:
    """Streams of one kind.

    Attributes:
        name: what it is called.
        first_seed: of its SEEDS streams, one after the other.
        world: one of WORLDS.
        frames: of each stream.
        lap: frames after which a camera is back where it was.

    """

    name: str
    first_seed: int
    world: str
    frames: int
    lap: int


def _suites() -> dict[str, Suite]:
    lengths = ((100, 50), (100, 100), (300, 50), (300, 200), (1000, 200), (3000, 1000))
    found = {}
    for world_index, world in enumerate(WORLDS):
        for index, (frames, lap) in enumerate(lengths):
            name = f"{world}_{frames}_lap{lap}"
            seed = FIRST_HELD_OUT_SEED + 10_000 + 1_000 * world_index + 100 * index
            found[name] = Suite(name, seed, world, frames, lap)
    return found


SUITES: dict[str, Suite] = _suites()
"""For each of WORLDS 100, 300, 1000 and 3000 frames, with places that come back after 50, 100, 200
and 1000 frames: `landmarks_100_lap50` and so on."""


def suite_named(name: str) -> Suite:
    """Return a suite; raise ConfigurationError where there is none of that name."""
    if name not in SUITES:
        raise ConfigurationError(f"suite '{name}' is unknown; choose one of {', '.join(SUITES)}")
    return SUITES[name]


def suite_settings(suite: Suite, width: int = 112, height: int = 84) -> StreamSettings:
    """Return what the streams of a suite are made of.

    Args:
        suite: which one.
        width: of the images, pixels.
        height: likewise.

    """
    laps = suite.frames / suite.lap
    return StreamSettings(
        worlds=tuple(float(each == suite.world) for each in WORLDS),  # type: ignore[arg-type]
        width=width,
        height=height,
        samples=1,
        pace=Pace((laps, laps), least_period=1.0, returns=0.0),
        noise=0.01,
    )


def suite_plan(suite: Suite, settings: StreamSettings, streams: slice | int) -> Plan:
    """Return the plan of some streams of a suite, on the CPU; the same ones every time.

    Args:
        suite: which.
        settings: of its images.
        streams: how many of the first ones, or which.

    Raises:
        ConfigurationError: more streams than there are, or none.

    """
    chosen = range(SEEDS)[streams if isinstance(streams, slice) else slice(0, streams)]
    if not chosen or (isinstance(streams, int) and streams > SEEDS):
        raise ConfigurationError(f"{streams} streams were asked for; a suite has 1 to {SEEDS}")
    plans = []
    for index in chosen:
        generator = torch.Generator().manual_seed(suite.first_seed + index)
        plans.append(plan_streams(Draw(1, generator), suite.frames, settings))
    return concatenate_plans(plans)


def suite_streams(
    suite: Suite, settings: StreamSettings, streams: slice | int, device: torch.device | str = "cpu"
) -> Streams:
    """Return rendered streams of a suite.

    Args:
        suite: which one.
        settings: see :func:`suite_settings`.
        streams: numbers of the streams.
        device: on which they are rendered.

    """
    noise = torch.Generator().manual_seed(suite.first_seed)
    with torch.no_grad():
        return render_streams(suite_plan(suite, settings, streams).to(device), settings, noise)


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
            found = render_streams(
                _part(self._plan, slice(index, index + 1)), self._settings, noise
            )
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
