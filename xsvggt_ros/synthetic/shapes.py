# SPDX-License-Identifier: Apache-2.0
"""Boxes, ellipsoids and cylinders: where a ray meets them, which way they face, how far they are.

Every solid stands upright, may be turned about the vertical, and becomes a unit solid after a
shift, a turn and a scaling; distances along a ray survive that, so each kind has one formula.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum

import torch
from torch import Tensor

FAR_AWAY = 1e6
"""Metres; where the solids are put that only fill up a batch."""

_TINY = 1e-9
_NEAREST = 1e-4


class Solid(IntEnum):
    """Kinds of solid, in the order in which a world keeps them."""

    BOX = 0
    ELLIPSOID = 1
    CYLINDER = 2


def pick(table: Tensor, index: Tensor) -> Tensor:
    """Return rows [..., R, C] of a table [..., K, C] by index [..., R]; leading sides broadcast."""
    if table.ndim == 2:
        return table[index]
    while table.ndim < index.ndim + 1:
        table = table.unsqueeze(-3)
    return torch.take_along_dim(table, index.unsqueeze(-1), dim=-2)


@dataclass(frozen=True)
class Solids:
    """Solids of one kind, float32; leading sides, if any, are a batch.

    Attributes:
        centre: [..., K, 3], metres, z up.
        half: [..., K, 3], half of the extent along the solid's own axes, metres.
        turn: [..., K, 2], cosine and sine of the angle about the vertical.
        sway: [..., K, 3], metres; a moving solid swings about its centre by this much.
        pulse: [..., K, 2], radians per second and radians at time 0 of that swing.

    """

    centre: Tensor
    half: Tensor
    turn: Tensor
    sway: Tensor
    pulse: Tensor

    def __len__(self) -> int:
        """Return how many there are in each world."""
        return self.centre.shape[-2]

    def subset(self, chosen: Tensor) -> Solids:
        """Return the solids at ``chosen``, an index [n] or a mask [K] over unbatched solids."""
        return Solids(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def at(self, seconds: Tensor) -> Solids:
        """Return the solids at a time in seconds [...], which broadcasts against leading sides."""
        angle = self.pulse[..., 0] * seconds.unsqueeze(-1) + self.pulse[..., 1]
        centre = self.centre + self.sway * angle.sin().unsqueeze(-1)
        return Solids(centre, self.half, self.turn, self.sway, self.pulse)

    def _unit(self, vector: Tensor, *, point: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return x, y, z [..., R, K] of world vectors [..., R, 3] in each solid's unit frame."""
        x, y, z = (part.unsqueeze(-1) for part in vector.unbind(-1))
        if point:
            cx, cy, cz = (part.unsqueeze(-2) for part in self.centre.unbind(-1))
            x, y, z = x - cx, y - cy, z - cz
        cosine, sine = (part.unsqueeze(-2) for part in self.turn.unbind(-1))
        hx, hy, hz = (part.unsqueeze(-2) for part in self.half.unbind(-1))
        return (cosine * x + sine * y) / hx, (cosine * y - sine * x) / hy, z / hz

    def entry(self, kind: Solid, origin: Tensor, direction: Tensor) -> Tensor:
        """Return how many ``direction`` lengths lie before each solid, [..., R, K]; inf = miss.

        ``origin`` is [..., R, 3] or [..., 1, 3] and lies outside of every solid.
        """
        o, d = self._unit(origin, point=True), self._unit(direction, point=False)
        if kind is Solid.BOX:
            near, far = _slab(o[0], d[0])
            for axis in (1, 2):
                low, high = _slab(o[axis], d[axis])
                near, far = torch.maximum(near, low), torch.minimum(far, high)
        elif kind is Solid.ELLIPSOID:
            near, far = _quadric(
                d[0] * d[0] + d[1] * d[1] + d[2] * d[2],
                o[0] * d[0] + o[1] * d[1] + o[2] * d[2],
                o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - 1,
            )
        else:
            near, far = _quadric(
                d[0] * d[0] + d[1] * d[1],
                o[0] * d[0] + o[1] * d[1],
                o[0] * o[0] + o[1] * o[1] - 1,
            )
            low, high = _slab(o[2], d[2])
            near, far = torch.maximum(near, low), torch.minimum(far, high)
        return near.masked_fill(~((near <= far) & (near > _NEAREST)), torch.inf)

    def distance(self, kind: Solid, points: Tensor) -> Tensor:
        """Return the distance of points [P, 3] to each solid, [P, K] metres, negative inside.

        Exact for boxes and round solids, never too large for the others.
        """
        unit = self._unit(points, point=True)
        hx, hy, hz = (part.unsqueeze(-2) for part in self.half.unbind(-1))
        if kind is Solid.BOX:
            beyond = [
                part.abs() * half - half for part, half in zip(unit, (hx, hy, hz), strict=True)
            ]
        elif kind is Solid.ELLIPSOID:
            least = torch.minimum(torch.minimum(hx, hy), hz)
            return ((unit[0] ** 2 + unit[1] ** 2 + unit[2] ** 2).sqrt() - 1) * least
        else:
            radial = ((unit[0] ** 2 + unit[1] ** 2).sqrt() - 1) * torch.minimum(hx, hy)
            beyond = [radial, unit[2].abs() * hz - hz]
        outside = sum(part.clamp(min=0) ** 2 for part in beyond)
        assert isinstance(outside, Tensor)
        inside = beyond[0]
        for part in beyond[1:]:
            inside = torch.maximum(inside, part)
        return outside.sqrt() + inside.clamp(max=0)


def _slab(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Return where rays enter and leave the slab between -1 and 1."""
    steep = torch.where(direction.abs() < _TINY, _TINY, direction)
    inverse = 1 / steep
    middle, reach = -origin * inverse, inverse.abs()
    return middle - reach, middle + reach


def _quadric(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Return where a t^2 + 2 b t + c changes its sign; an empty interval where it never does."""
    a = a.clamp(min=_TINY * _TINY)
    square = b * b - a * c
    root = square.clamp(min=0).sqrt()
    return ((-b - root) / a).masked_fill(square < 0, torch.inf), (-b + root) / a


@dataclass(frozen=True)
class Surface:
    """What rays have met, per ray.

    Attributes:
        normal: [..., R, 3], unit length, towards the ray's side.
        texture: [..., R, 2], metres along the surface.

    """

    normal: Tensor
    texture: Tensor


def surface_at(kind: Tensor, solid: Tensor, point: Tensor) -> Surface:
    """Return normals and texture coordinates of points on solids.

    Args:
        kind: int64 [..., R], of :class:`Solid`.
        solid: [..., R, 8]: centre, half sizes, turn.
        point: [..., R, 3].

    """
    half, cosine, sine = solid[..., 3:6], solid[..., 6], solid[..., 7]
    shifted = point - solid[..., :3]
    local = _turned(shifted, cosine, -sine)
    unit = local / half
    size = unit.abs()
    radius = unit[..., :2].norm(dim=-1)

    axis = size.argmax(dim=-1)
    box = torch.nn.functional.one_hot(axis, 3).to(unit.dtype) * unit.sign()
    cap = size[..., 2] > radius
    side = torch.stack([unit[..., 0], unit[..., 1], torch.zeros_like(radius)], dim=-1)
    top = torch.stack([torch.zeros_like(radius)] * 2 + [unit[..., 2].sign()], dim=-1)
    cylinder = torch.where(cap.unsqueeze(-1), top, side)
    is_box, is_cylinder = (kind == Solid.BOX), (kind == Solid.CYLINDER)
    normal = torch.where(is_cylinder.unsqueeze(-1), cylinder, unit)
    normal = torch.where(is_box.unsqueeze(-1), box, normal) / half
    normal = _turned(normal / normal.norm(dim=-1, keepdim=True), cosine, sine)

    around = torch.atan2(unit[..., 1], unit[..., 0]) * half[..., 0]
    x, y, z = local.unbind(-1)
    flat = torch.where(is_box, axis == 2, is_cylinder & cap)
    u = torch.where(is_box & (axis == 0), y, torch.where(is_box | flat, x, around))
    v = torch.where(flat, y, z)
    return Surface(normal, torch.stack([u, v], dim=-1))


def _turned(vector: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn vectors [..., 3] about the vertical."""
    x, y, z = vector.unbind(-1)
    return torch.stack([cosine * x - sine * y, sine * x + cosine * y, z], dim=-1)
