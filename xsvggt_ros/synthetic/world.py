# SPDX-License-Identifier: Apache-2.0
"""A furnished room as tensors: what there is, what it looks like, what lights it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from xsvggt_ros.synthetic.cameras import inverse_tone_map
from xsvggt_ros.synthetic.materials import Color, Material
from xsvggt_ros.synthetic.shapes import FAR_AWAY, Solid, Solids

WALLS = 6
"""Surfaces of the room itself, after all solids: west, east, south, north, floor, ceiling."""


@dataclass(frozen=True)
class Lights:
    """Lamps; each is a small square that casts soft shadows.

    Attributes:
        position: [..., L, 3], metres.
        color: [..., L, 3], linear; light at one metre.
        radius: [..., L], metres.
        ambient: [..., 3], light that comes from everywhere.
        even: [..., 1] in [0, 1], how little of the ambient light corners and slopes take away.

    """

    position: Tensor
    color: Tensor
    radius: Tensor
    ambient: Tensor
    even: Tensor


@dataclass(frozen=True)
class Tint:
    """Colours that vary slowly over the room: waves of its own, or one chart for all rooms.

    Attributes:
        wave: [..., 9, 3], radians per metre, three waves per colour channel.
        phase: [..., 9].
        slope: [..., 3], how fast red rises with x, green with y, blue with z, in a finished image
            of full scale 1, per metre.
        start: [..., 3], the values at the room's least corner.
        charted: [..., 1] in [0, 1], the share of the chart against the waves.
        amount: [..., 1] in [0, 1], how much of the surfaces' own colour gives way.

    """

    wave: Tensor
    phase: Tensor
    slope: Tensor
    start: Tensor
    charted: Tensor
    amount: Tensor

    def at(self, point: Tensor) -> Tensor:
        """Return the tint of points [..., R, 3] as linear colours [..., R, 3]."""
        angle = point @ self.wave.transpose(-1, -2) + self.phase.unsqueeze(-2)
        waves = 0.45 + 0.6 * angle.sin().unflatten(-1, (3, 3)).mean(dim=-1)
        chart = (self.start.unsqueeze(-2) + self.slope.unsqueeze(-2) * point).clamp(0.02, 0.98)
        return torch.lerp(
            waves.clamp(0.04, 0.95), inverse_tone_map(chart), self.charted.unsqueeze(-2)
        )


def no_tint() -> Tint:
    """Return the tint that leaves all colours as they are."""
    zeros, one = torch.zeros(3), torch.zeros(1)
    return Tint(torch.zeros(9, 3), torch.zeros(9), zeros, zeros, one, one)


_CHART_RANGE = (0.15, 0.85)
"""Values of the least and the greatest corner in an image of full scale 1."""


def chart_tint(largest: tuple[float, float, float], amount: float) -> Tint:
    """Return the tint by which a finished image's red tells x, its green y and its blue z.

    Even over the largest room, metres, so that a value means the same position in all rooms;
    ``amount`` as in :class:`Tint`.
    """
    low, high = _CHART_RANGE
    return replace(
        no_tint(),
        slope=(high - low) / torch.tensor(largest),
        start=torch.full((3,), low),
        charted=torch.ones(1),
        amount=torch.tensor([amount]),
    )


_Part = TypeVar("_Part", Solids, Lights, Tint)


@dataclass(frozen=True)
class World:
    """A room with z up, metres, float32; leading sides, if any, are a batch.

    Attributes:
        low: [..., 3], the room's least corner.
        high: [..., 3], its greatest.
        solids: boxes, ellipsoids and cylinders, in the order of :class:`Solid`.
        materials: [..., solids + WALLS, ROW].

    """

    low: Tensor
    high: Tensor
    solids: tuple[Solids, Solids, Solids]
    materials: Tensor
    lights: Lights
    tint: Tint

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.low.device

    @property
    def count(self) -> int:
        """Number of solids."""
        return sum(len(each) for each in self.solids)

    def to(self, device: torch.device | str) -> World:
        """Return the world on another device."""
        return _mapped(self, lambda tensor: tensor.to(device))

    def at(self, seconds: Tensor) -> World:
        """Return the world at a time in seconds [...], which broadcasts against leading sides."""
        boxes, ellipsoids, cylinders = (each.at(seconds) for each in self.solids)
        return replace(self, solids=(boxes, ellipsoids, cylinders))

    @property
    def moves(self) -> bool:
        """Whether anything in it moves."""
        return any(bool(each.sway.abs().sum() > 0) for each in self.solids)

    def kinds(self) -> Tensor:
        """Return the kind of each surface, int64 [solids + WALLS]; walls count as boxes."""
        counts = [len(each) for each in self.solids]
        kind = [torch.full((n,), k, dtype=torch.long) for k, n in enumerate(counts)]
        return torch.cat([*kind, torch.zeros(WALLS, dtype=torch.long)]).to(self.device)

    def frames(self) -> Tensor:
        """Return centre, half size and turn of each solid and of the room, [..., solids + 1, 8]."""
        parts = [torch.cat([each.centre, each.half, each.turn], dim=-1) for each in self.solids]
        upright = torch.zeros_like(self.low[..., :2]) + torch.tensor([1.0, 0.0], device=self.device)
        room = torch.cat([(self.low + self.high) / 2, (self.high - self.low) / 2, upright], dim=-1)
        lead = torch.broadcast_shapes(*(part.shape[:-2] for part in parts), room.shape[:-1])
        parts.append(room.unsqueeze(-2))
        return torch.cat([part.expand(*lead, *part.shape[-2:]) for part in parts], dim=-2)

    def clearance(self, points: Tensor) -> Tensor:
        """Return how far points [P, 3] are from the nearest surface, [P] metres, of one world.

        Negative inside a solid or outside of the room.
        """
        free = torch.minimum(points - self.low, self.high - points).amin(dim=-1)
        for kind in Solid:
            solids = self.solids[kind]
            if len(solids):
                free = torch.minimum(free, solids.distance(kind, points).amin(dim=-1))
        return free


Change = Callable[[Tensor], Tensor]


def _mapped(world: World, change: Change) -> World:
    """Return a world with every tensor changed."""
    boxes, ellipsoids, cylinders = (_each(solids, change) for solids in world.solids)
    return World(
        low=change(world.low),
        high=change(world.high),
        solids=(boxes, ellipsoids, cylinders),
        materials=change(world.materials),
        lights=_each(world.lights, change),
        tint=_each(world.tint, change),
    )


def _each(part: _Part, change: Change) -> _Part:
    return type(part)(*(change(getattr(part, entry.name)) for entry in fields(part)))


def batched(worlds: Sequence[World]) -> World:
    """Stack worlds along a new leading side, followed by one of length 1 for the frames.

    Worlds with fewer solids are filled up with solids far away.
    """
    counts = [max(len(world.solids[kind]) for world in worlds) for kind in Solid]
    filled = [_filled(world, counts) for world in worlds]
    boxes, ellipsoids, cylinders = (
        _stacked([world.solids[kind] for world in filled]) for kind in Solid
    )
    return World(
        low=torch.stack([world.low for world in filled]).unsqueeze(1),
        high=torch.stack([world.high for world in filled]).unsqueeze(1),
        solids=(boxes, ellipsoids, cylinders),
        materials=torch.stack([world.materials for world in filled]).unsqueeze(1),
        lights=_stacked([world.lights for world in filled]),
        tint=_stacked([world.tint for world in filled]),
    )


def _stacked(parts: Sequence[_Part]) -> _Part:
    columns = ([getattr(part, entry.name) for part in parts] for entry in fields(parts[0]))
    return type(parts[0])(*(torch.stack(column).unsqueeze(1) for column in columns))


def _filled(world: World, counts: list[int]) -> World:
    solids: list[Solids] = []
    materials: list[Tensor] = []
    start = 0
    for kind in Solid:
        each = world.solids[kind]
        missing = counts[kind] - len(each)
        own = world.materials[start : start + len(each)]
        start += len(each)
        materials += [own, own.new_zeros(missing, own.shape[1])]
        blank = each.centre.new_zeros(missing, 3)
        turn = each.turn.new_tensor([[1.0, 0.0]]).expand(missing, 2)
        solids.append(
            Solids(
                torch.cat([each.centre, blank + FAR_AWAY]),
                torch.cat([each.half, blank + 1]),
                torch.cat([each.turn, turn]),
                torch.cat([each.sway, blank]),
                torch.cat([each.pulse, blank[:, :2]]),
            )
        )
    materials.append(world.materials[start:])
    return replace(world, solids=(solids[0], solids[1], solids[2]), materials=torch.cat(materials))


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
        """Return the part turned about the origin, then moved.

        Args:
            x: metres.
            y: metres.
            angle: radians, about the vertical.

        """
        cosine, sine = math.cos(angle), math.sin(angle)
        px, py, pz = self.centre
        centre = (x + cosine * px - sine * py, y + sine * px + cosine * py, pz)
        return Part(
            self.solid, centre, self.half, self.material, self.angle + angle, self.sway, self.pulse
        )


def block(low: Vector, size: Vector, material: Material, angle: float = 0.0) -> Part:
    """Return a box.

    Args:
        low: least corner, metres.
        size: metres.
        material: of its surface.
        angle: about the vertical, radians.

    """
    centre = (low[0] + size[0] / 2, low[1] + size[1] / 2, low[2] + size[2] / 2)
    return Part(Solid.BOX, centre, (size[0] / 2, size[1] / 2, size[2] / 2), material, angle)


def ball(centre: Vector, radii: Vector, material: Material) -> Part:
    """Return an ellipsoid.

    Args:
        centre: metres.
        radii: metres.
        material: of its surface.

    """
    return Part(Solid.ELLIPSOID, centre, radii, material)


def post(foot: Vector, radius: float, height: float, material: Material) -> Part:
    """Return an upright cylinder.

    Args:
        foot: centre of the foot, metres.
        radius: metres.
        height: metres.
        material: of its surface.

    """
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
