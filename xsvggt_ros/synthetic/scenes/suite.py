# SPDX-License-Identifier: Apache-2.0
"""Held-out streams in which memory is asked for: their seeds are never trained on.

A change of layouts, paths, rendering or draws changes them: figures before and after cannot be
compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.synthetic.held_out import FIRST_HELD_OUT_SEED
from xsvggt_ros.synthetic.scenes.draw import Draw
from xsvggt_ros.synthetic.scenes.layouts import WORLDS
from xsvggt_ros.synthetic.scenes.paths import Pace
from xsvggt_ros.synthetic.scenes.streams import (
    Plan,
    Streams,
    StreamSettings,
    joined_plans,
    planned,
    rendered,
)

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
    """Return what the streams of a suite are made of."""
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
        plans.append(planned(Draw(1, generator), suite.frames, settings))
    return joined_plans(plans)


def suite_streams(
    suite: Suite, settings: StreamSettings, streams: slice | int, device: torch.device | str = "cpu"
) -> Streams:
    """Return rendered streams of a suite; arguments as :func:`suite_plan` takes them."""
    noise = torch.Generator().manual_seed(suite.first_seed)
    with torch.no_grad():
        return rendered(suite_plan(suite, settings, streams).to(device), settings, noise)
