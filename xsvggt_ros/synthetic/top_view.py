# SPDX-License-Identifier: Apache-2.0
"""A room from above, its ceiling taken off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.synthetic.cameras import tone_map
from xsvggt_ros.synthetic.renderer import Quality, render
from xsvggt_ros.synthetic.shapes import Solids
from xsvggt_ros.synthetic.world import World

ALTITUDE = 200.0
"""Metres; from so far off a room looks as in a parallel projection."""

HANGS_ABOVE = 0.7
"""Share of the room's height above which a solid counts as part of the ceiling."""


def room_from_above(world: World, pixels: int = 480) -> NDArray[np.uint8]:
    """Render a room from above: x to the right, y upwards, from wall to wall.

    Rays that come from outside pass the ceiling, since a room is met from within only.

    Args:
        world: one world.
        pixels: of the image's longer side.

    Returns:
        RGB uint8 [h, w, 3].

    """
    low, high = world.low.double().cpu().numpy(), world.high.double().cpu().numpy()
    per_metre = pixels / float((high - low)[:2].max())
    width, height = (round(per_metre * float(side)) for side in (high - low)[:2])
    focal = per_metre * (ALTITUDE - float(low[2]))
    camera = Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)
    pose = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    pose[:3, 3] = torch.tensor([*(low + high)[:2] / 2, ALTITUDE])
    with torch.inference_mode():
        light = render(
            _without_lamps(world), pose.to(world.device), camera, Quality(1, shadows=False)
        ).light
        return (255 * tone_map(light)).round().to(torch.uint8).cpu().numpy()


def _without_lamps(world: World) -> World:
    """Return a world without what hangs from the ceiling."""
    limit = world.low[2] + HANGS_ABOVE * (world.high[2] - world.low[2])
    kept = [each.centre[:, 2] - each.half[:, 2] < limit for each in world.solids]
    walls = torch.ones(len(world.materials) - world.count, dtype=torch.bool, device=world.device)
    solids: list[Solids] = [
        each.subset(chosen) for each, chosen in zip(world.solids, kept, strict=True)
    ]
    return replace(
        world,
        solids=(solids[0], solids[1], solids[2]),
        materials=world.materials[torch.cat([*kept, walls])],
    )
