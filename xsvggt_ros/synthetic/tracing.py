# SPDX-License-Identifier: Apache-2.0
"""What each ray meets first; on a CPU only what may lie in its way is looked at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from xsvggt_ros.synthetic.shapes import Solid
from xsvggt_ros.synthetic.world import World

_CLEARED = 0.999
"""Share of the way to a lamp that must be free; its own shade lies at the end."""


def room_exit(world: World, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Return where rays from inside meet the room: lengths [..., R] and which wall, 0 to 5."""
    steep = torch.where(direction.abs() < 1e-9, 1e-9, direction)
    goal = torch.where(steep > 0, world.high.unsqueeze(-2), world.low.unsqueeze(-2))
    lengths, axis = ((goal - origin) / steep).min(dim=-1)
    upper = torch.take_along_dim(steep, axis.unsqueeze(-1), dim=-1).squeeze(-1) > 0
    return lengths, 2 * axis + upper


def first_hit(
    world: World, origin: Tensor, direction: Tensor, bundles: list[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Return lengths [..., R] to the nearest surface and its index among solids and walls.

    Args:
        world: one, or a batch.
        origin: [..., 1, 3], inside of the room and outside of all solids.
        direction: [..., R, 3].
        bundles: sizes of runs of neighbouring rays of one world; for each, solids out of its way
            are sorted out first. None = do not.

    """
    best, wall = room_exit(world, origin, direction)
    which = world.count + wall
    if bundles is None:
        return _nearest(world, origin, direction, best, which, None)
    runs = direction.split(bundles)
    parts = [
        _nearest(world, origin, *run)
        for run in zip(
            runs, best.split(bundles), which.split(bundles), _in_sight(world, origin, runs),
            strict=True,
        )
    ]  # fmt: skip
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _nearest(
    world: World,
    origin: Tensor,
    direction: Tensor,
    best: Tensor,
    which: Tensor,
    sight: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Lower ``best`` where one of the solids is nearer; ``sight`` [K] = which may be."""
    start = 0
    for kind in Solid:
        solids, offset = world.solids[kind], start
        start += len(solids)
        chosen = None
        if sight is not None:
            chosen = sight[offset:start].nonzero()[:, 0]
            solids = solids.subset(chosen)
        if not len(solids):
            continue
        length, index = solids.entry(kind, origin, direction).min(dim=-1)
        number = (index if chosen is None else chosen[index]) + offset
        closer = length < best
        best, which = torch.where(closer, length, best), torch.where(closer, number, which)
    return best, which


def _in_sight(world: World, origin: Tensor, runs: Sequence[Tensor]) -> Tensor:
    """Return for each run of rays from ``origin`` [1, 3] which solids it may meet, bool [T, K].

    A run is taken as the cone around it, a solid as the sphere around it.
    """
    axes, openings = [], []
    for run in runs:
        rays = run / run.norm(dim=-1, keepdim=True)
        mean = rays.mean(dim=0)
        axes.append(mean / mean.norm())
        openings.append((rays @ axes[-1]).min())
    axis, opening = torch.stack(axes), torch.stack(openings).clamp(-1, 1).acos() + 1e-3
    towards = torch.cat([each.centre for each in world.solids]) - origin
    radius = torch.cat([each.half for each in world.solids]).norm(dim=-1)
    distance = towards.norm(dim=-1).clamp(min=1e-6)
    angle = (axis @ (towards / distance.unsqueeze(-1)).T).clamp(-1, 1).acos()
    reach = (radius / distance).clamp(max=1).asin()
    return (angle <= opening.unsqueeze(-1) + reach) | (radius >= distance)


def blocked(
    world: World, start: Tensor, ray: Tensor, lit: Tensor, bundles: list[int] | None = None
) -> Tensor:
    """Return whether a solid lies between ``start`` and ``start + ray``, bool [..., R].

    Only where ``lit`` [..., R] is the answer asked for; ``bundles`` as in :func:`first_hit`, and
    there all rays of a run end at one point.
    """
    if bundles is None:
        return _dark(world, start, ray, sort=False)
    parts = []
    runs = zip(start.split(bundles), ray.split(bundles), lit.split(bundles), strict=True)
    for run_start, run_ray, run_lit in runs:
        dark = torch.zeros_like(run_lit)
        some = run_lit.nonzero()[:, 0]
        if len(some):
            dark[some] = _dark(world, run_start[some], run_ray[some], sort=True)
        parts.append(dark)
    return torch.cat(parts)


def _dark(world: World, start: Tensor, ray: Tensor, *, sort: bool) -> Tensor:
    dark = torch.zeros_like(ray[..., 0], dtype=torch.bool)
    near = _between(world, start, ray) if sort else None
    first = 0
    for kind in Solid:
        solids, offset = world.solids[kind], first
        first += len(solids)
        if near is not None:
            solids = solids.subset(near[offset:first].nonzero()[:, 0])
        if len(solids):
            dark = dark | (solids.entry(kind, start, ray) < _CLEARED).any(dim=-1)
    return dark


def _between(world: World, start: Tensor, ray: Tensor) -> Tensor:
    """Return which solids may shade a run of points from the lamp that their rays end at, bool [K].

    Such a solid reaches into the cone from the lamp around the points, no further off than the
    farthest of them.
    """
    lamp = (start + ray)[0]
    lengths = ray.norm(dim=-1)
    ways = -ray / lengths.unsqueeze(-1)
    axis = ways.mean(dim=0)
    axis = axis / axis.norm().clamp(min=1e-6)
    opening = (ways @ axis).min().clamp(-1, 1).acos() + 1e-3
    towards = torch.cat([each.centre for each in world.solids]) - lamp
    radius = torch.cat([each.half for each in world.solids]).norm(dim=-1)
    distance = towards.norm(dim=-1).clamp(min=1e-6)
    angle = ((towards @ axis) / distance).clamp(-1, 1).acos()
    reach = (radius / distance).clamp(max=1).asin()
    inside = (angle <= opening + reach) & (distance <= lengths.max() + radius)
    return inside | (radius >= distance)
