# SPDX-License-Identifier: Apache-2.0
"""Images and exact depth of a world, by casting one or more rays through each pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.synthetic.cameras import pixel_rays
from xsvggt_ros.synthetic.materials import paint
from xsvggt_ros.synthetic.shapes import Solid, pick, surface_at
from xsvggt_ros.synthetic.world import World

_CLEARED = 0.999
"""Share of the way to a lamp that must be free; its own shade lies at the end."""


def room_exit(world: World, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Return where rays from inside meet the room: lengths [..., R] and which wall, 0 to 5.

    Args:
        world: with its room.
        origin: inside the room, [..., R, 3].
        direction: of any length, [..., R, 3].

    """
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
    seen: Tensor = (angle <= opening.unsqueeze(-1) + reach) | (radius >= distance)
    return seen


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
    seen: Tensor = inside | (radius >= distance)
    return seen


Blocked = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Whether anything lies between points [..., R, 3] and the ends of the rays from them [..., R, 3],
asked only where a mask [..., R] says so."""

_SKIN = 2e-3
_FAINT = 1e-4
_CORNER = 0.35
"""Metres over which a corner of the room darkens."""


def corner_shade(world: World, point: Tensor, normal: Tensor) -> Tensor:
    """Return what of the ambient light corners leave, [..., R] in (0, 1].

    Args:
        world: with its room.
        point: on a surface, [..., R, 3].
        normal: of the surface there, [..., R, 3].

    """
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


TILE = 64
"""Most pixels along a side of the tiles that a CPU traces at a time; solids out of sight of a tile
are sorted out for it."""


@dataclass(frozen=True)
class Quality:
    """How images are made.

    Attributes:
        samples: rays per pixel: 1, or 4 for smooth edges and soft shadows.
        shadows: whether solids cast shadows.

    Raises:
        ConfigurationError: another number of samples.

    """

    samples: int = 4
    shadows: bool = True

    def __post_init__(self) -> None:
        if self.samples not in (1, 4):
            raise ConfigurationError(f"samples per pixel is {self.samples}; choose 1 or 4")


@dataclass(frozen=True)
class Rendering:
    """Images of a world, float32.

    Attributes:
        light: [..., H, W, 3], linear light, before exposure.
        depth: [..., H, W], metres along the optical axis through the pixel's centre, exact.

    """

    light: Tensor
    depth: Tensor


def render(
    world: World, camera_to_world: Tensor, intrinsics: Intrinsics, quality: Quality
) -> Rendering:
    """Render one image, or a batch.

    Args:
        world: one world, and then the pose is [4, 4]; or a batch of worlds from :func:`batched`,
            and then the poses are [B, F, 4, 4].
        camera_to_world: float32 poses on the world's device.
        intrinsics: of all images.
        quality: rays per pixel and shadows.

    """
    offsets = [(0.0, 0.0)]
    if quality.samples == 4:
        offsets += [(-0.125, -0.375), (0.375, -0.125), (0.125, 0.375), (-0.375, 0.125)]
    lights: list[Tensor] = []
    depths: list[Tensor] = []
    for number, offset in enumerate(offsets):
        single = _Pass(
            world,
            camera_to_world,
            pixel_rays(intrinsics, offset).to(world.device),
            (2.2 * offset[0], 2.2 * offset[1]),
            quality.shadows,
            1 / intrinsics.fx,
        )
        depth, light = single.depth_and_light(only_depth=number == 0 and quality.samples > 1)
        depths.append(depth)
        if light is not None:
            # Each sample is limited, or a lamp would fray the edges in front of it.
            lights.append(light.clamp(max=4))
    return Rendering(torch.stack(lights).mean(dim=0), depths[0])


@cache
def _tiles(height: int, width: int) -> tuple[Tensor, Tensor, list[int]]:
    """Return the order of pixels tile by tile, its inverse, and the tiles' sizes."""
    pixels = torch.arange(height * width).view(height, width)
    down, across = -(-height // TILE), -(-width // TILE)
    tiles = [
        tile.reshape(-1)
        for rows in pixels.tensor_split(down)
        for tile in rows.tensor_split(across, dim=1)
    ]
    order = torch.cat(tiles)
    return order, order.argsort(), [len(tile) for tile in tiles]


@dataclass(frozen=True)
class _Pass:
    """One ray through each pixel of one image, or of a batch."""

    world: World
    pose: Tensor
    rays: Tensor
    spot: tuple[float, float]
    shadows: bool
    pixel: float

    def depth_and_light(self, *, only_depth: bool) -> tuple[Tensor, Tensor | None]:
        """Return depth [..., H, W] and, if wanted, linear light [..., H, W, 3]."""
        height, width = self.rays.shape[:2]
        rays = self.rays.reshape(-1, 3)
        inverse, bundles = None, None
        if self.pose.ndim == 2 and not self.rays.is_cuda:
            order, inverse, bundles = _tiles(height, width)
            rays = rays[order]
        direction = rays @ self.pose[..., :3, :3].transpose(-1, -2)
        origin = self.pose[..., None, :3, 3]
        depth, which = first_hit(self.world, origin, direction, bundles)
        light = None if only_depth else self._shade(origin, direction, depth, which, bundles)
        if inverse is not None:
            depth = depth[inverse]
            light = None if light is None else light[inverse]
        size = (height, width)
        return depth.unflatten(-1, size), None if light is None else light.unflatten(-2, size)

    def _shade(
        self,
        origin: Tensor,
        direction: Tensor,
        depth: Tensor,
        which: Tensor,
        bundles: list[int] | None,
    ) -> Tensor:
        """Return the linear light that comes from what the rays met, [..., R, 3]."""
        world, lead = self.world, which.shape
        point = origin + depth.unsqueeze(-1) * direction
        solid = pick(world.frames(), which.clamp(max=world.count))
        surface = surface_at(world.kinds()[which], solid, point)
        inside = (which >= world.count).unsqueeze(-1)
        normal = torch.where(inside, -surface.normal, surface.normal)
        rows = pick(world.materials, which)
        slant = (direction * normal).sum(dim=-1).abs() / direction.norm(dim=-1)
        footprint = depth * self.pixel / slant.clamp(min=0.15)
        color, shines = paint(
            surface.texture.reshape(-1, 2), rows.reshape(-1, rows.shape[-1]), footprint.reshape(-1)
        )
        color, shines = color.reshape(*lead, 3), shines.reshape(*lead, 1)
        tint = world.tint.amount.unsqueeze(-2) * ~shines
        color = torch.lerp(color, world.tint.at(point), tint)
        hidden = partial(blocked, world, bundles=bundles) if self.shadows else None
        return torch.where(shines, color, color * light_at(world, point, normal, self.spot, hidden))


def render_sequence(
    world: World,
    poses: Tensor,
    seconds: Tensor,
    intrinsics: Intrinsics,
    quality: Quality,
) -> Rendering:
    """Render the frames of one world, one after the other.

    Args:
        world: in which it happens.
        poses: camera to world, [F, 4, 4].
        seconds: of the frames, [F].
        intrinsics: of the camera.
        quality: samples of each pixel, and shadows.

    """
    frames = []
    for pose, second in zip(poses, seconds, strict=True):
        frames.append(render(world.at(second), pose, intrinsics, quality))
    return Rendering(
        torch.stack([each.light for each in frames]), torch.stack([each.depth for each in frames])
    )
