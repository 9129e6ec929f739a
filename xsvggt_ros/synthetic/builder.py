# SPDX-License-Identifier: Apache-2.0
"""Collects solids one by one and turns them into a world."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from xsvggt_ros.synthetic.materials import Color, Material
from xsvggt_ros.synthetic.shapes import Solid, Solids
from xsvggt_ros.synthetic.world import Lights, Tint, World

Vector = tuple[float, float, float]

LAMPS = 3
"""Lamps of every world, dark ones included, so that worlds can be stacked."""


@dataclass(frozen=True)
class Part:
    """One solid: centre and half extents in metres, angle in radians about the vertical."""

    solid: Solid
    centre: Vector
    half: Vector
    material: Material
    angle: float = 0.0
    sway: Vector = (0.0, 0.0, 0.0)
    pulse: tuple[float, float] = (0.0, 0.0)

    def squeezed(self, scale: float) -> Part:
        """Return the part made lower, so that what is too high fits under a ceiling."""
        if scale >= 1:
            return self
        (x, y, z), (hx, hy, hz) = self.centre, self.half
        return replace(self, centre=(x, y, z * scale), half=(hx, hy, hz * scale))

    def placed(self, x: float, y: float, angle: float) -> Part:
        """Return the part turned about the origin by ``angle`` and moved to x, y."""
        cosine, sine = math.cos(angle), math.sin(angle)
        px, py, pz = self.centre
        centre = (x + cosine * px - sine * py, y + sine * px + cosine * py, pz)
        return Part(
            self.solid, centre, self.half, self.material, self.angle + angle, self.sway, self.pulse
        )


def block(low: Vector, size: Vector, material: Material, angle: float = 0.0) -> Part:
    """Return a box from its least corner and its size, metres."""
    centre = (low[0] + size[0] / 2, low[1] + size[1] / 2, low[2] + size[2] / 2)
    return Part(Solid.BOX, centre, (size[0] / 2, size[1] / 2, size[2] / 2), material, angle)


def ball(centre: Vector, radii: Vector, material: Material) -> Part:
    """Return an ellipsoid."""
    return Part(Solid.ELLIPSOID, centre, radii, material)


def post(foot: Vector, radius: float, height: float, material: Material) -> Part:
    """Return an upright cylinder from the centre of its foot."""
    centre = (foot[0], foot[1], foot[2] + height / 2)
    return Part(Solid.CYLINDER, centre, (radius, radius, height / 2), material)


@dataclass(frozen=True)
class Lamp:
    """A light: place, linear colour at one metre, and size in metres."""

    position: Vector
    color: Color
    radius: float


def assemble_world(
    size: Vector,
    parts: Sequence[Part],
    walls: Sequence[Material],
    lamps: Sequence[Lamp],
    ambient: Color,
    tint: Tint,
    even: float = 0.0,
) -> World:
    """Build the tensors of a room that reaches from the origin to ``size``.

    ``walls`` are six materials: west, east, south, north, floor, ceiling. ``even`` in [0, 1] is how
    little of the ambient light corners and slopes take away.
    """
    ordered = [[part for part in parts if part.solid is kind] for kind in Solid]
    boxes, ellipsoids, cylinders = (_solids(each) for each in ordered)
    rows = [part.material.row() for each in ordered for part in each]
    rows += [material.row() for material in walls]
    dark = Lamp((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.0)
    lit = [*lamps, *[dark] * (LAMPS - len(lamps))]
    return World(
        low=torch.zeros(3),
        high=torch.tensor(size),
        solids=(boxes, ellipsoids, cylinders),
        materials=torch.tensor(rows),
        lights=Lights(
            torch.tensor([each.position for each in lit]),
            torch.tensor([each.color for each in lit]),
            torch.tensor([each.radius for each in lit]),
            torch.tensor(ambient),
            torch.tensor([even]),
        ),
        tint=tint,
    )


def _solids(parts: list[Part]) -> Solids:
    def table(rows: list[tuple[float, ...]], width: int) -> torch.Tensor:
        return torch.tensor(rows, dtype=torch.float32).reshape(-1, width)

    return Solids(
        table([part.centre for part in parts], 3),
        table([part.half for part in parts], 3),
        table([(math.cos(part.angle), math.sin(part.angle)) for part in parts], 2),
        table([part.sway for part in parts], 3),
        table([part.pulse for part in parts], 2),
    )
