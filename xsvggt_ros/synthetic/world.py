# SPDX-License-Identifier: Apache-2.0
"""A furnished room as tensors: what there is, what it looks like, what lights it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

from xsvggt_ros.synthetic.cameras import inverse_tone_map
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
        """Return the world at a time; ``seconds`` broadcasts against the leading sides."""
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
