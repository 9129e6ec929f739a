# SPDX-License-Identifier: Apache-2.0
"""How much light reaches a surface."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from xsvggt_ros.synthetic.world import World

Blocked = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Whether anything lies between points [..., R, 3] and the ends of the rays from them [..., R, 3],
asked only where a mask [..., R] says so."""

_SKIN = 2e-3
_FAINT = 1e-4
_CORNER = 0.35
"""Metres over which a corner of the room darkens."""


def corner_shade(world: World, point: Tensor, normal: Tensor) -> Tensor:
    """Return what of the ambient light corners leave, [..., R] in (0, 1]."""
    low, high = world.low.unsqueeze(-2), world.high.unsqueeze(-2)
    edge = torch.minimum(point - low, high - point).clamp(min=0)
    darkened = 0.4 * torch.exp(-edge / _CORNER) * (normal.abs() < 0.5)
    return (1 - darkened).prod(dim=-1)


def light_at(
    world: World, point: Tensor, normal: Tensor, spot: tuple[float, float], blocked: Blocked | None
) -> Tensor:
    """Return the light that reaches points, [..., R, 3].

    Args:
        world: with its lamps.
        point: [..., R, 3].
        normal: [..., R, 3], unit.
        spot: the place on each lamp that this sample sees, in its radii; several samples make the
            edges of shadows soft.
        blocked: tells where a lamp is hidden; None = no shadows.

    """
    lights = world.lights
    upward = 0.85 + 0.15 * normal[..., 2]
    shade = (corner_shade(world, point, normal) * upward).unsqueeze(-1)
    shade = shade ** (1 - lights.even.unsqueeze(-2))
    light = lights.ambient.unsqueeze(-2) * shade
    start = point + _SKIN * normal
    single = lights.color.ndim == 2
    for index in range(lights.position.shape[-2]):
        if single and not bool(lights.color[index].any()):
            continue
        radius = lights.radius[..., index].unsqueeze(-1)
        place = lights.position[..., index, :].clone()
        place[..., 0:1] += spot[0] * radius
        place[..., 1:2] += spot[1] * radius
        ray = place.unsqueeze(-2) - start
        square = (ray * ray).sum(dim=-1)
        slope = (ray * normal).sum(dim=-1).clamp(min=0) / (square.sqrt() + 1e-6)
        share = slope / (square + 1)
        if blocked is not None:
            share = share * ~blocked(start, ray, share > _FAINT)
        light = light + share.unsqueeze(-1) * lights.color[..., index, :].unsqueeze(-2)
    return light
