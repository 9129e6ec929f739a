# SPDX-License-Identifier: Apache-2.0
"""A batch of worlds as tensors: boxes, posts, ground, what they look like and what lights them.

Where rays meet them: patterns in space, lamps, glow and sky.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor


@cache
def constant(values: Any, device: torch.device) -> Tensor:
    """Return nested tuples of numbers as a float32 tensor that is copied to a device only once.

    A copy from the host waits for all that the device has still to do.
    """
    return torch.tensor(values, dtype=torch.float32, device=device)


@dataclass(frozen=True)
class Draw:
    """Draws numbers for ``worlds`` worlds; equal generators give equal numbers.

    Attributes:
        worlds: how many worlds, the first dimension of all that is drawn.
        generator: where the numbers come from; its device is theirs.

    """

    worlds: int
    generator: torch.Generator

    @property
    def device(self) -> torch.device:
        """Where the numbers are."""
        return self.generator.device

    def share(self, *shape: int) -> Tensor:
        """Return numbers in [0, 1), float32 [worlds, *shape]."""
        return torch.rand(
            (self.worlds, *shape), generator=self.generator, device=self.generator.device
        )

    def uniform(self, low: float | Tensor, high: float | Tensor, *shape: int) -> Tensor:
        """Return numbers in [low, high), [worlds, *shape].

        Args:
            low: a number, or a tensor that broadcasts to the result.
            high: likewise.
            shape: of the result, after the worlds.

        """
        return low + (high - low) * self.share(*shape)

    def spread(self, low: float, high: float, *shape: int) -> Tensor:
        """Return positive numbers in [low, high) whose logarithm is uniform.

        Args:
            low: above zero.
            high: above ``low``.
            shape: of the result, after the worlds.

        """
        return self.uniform(math.log(low), math.log(high), *shape).exp()

    def chance(self, probability: float, *shape: int) -> Tensor:
        """Return truths, bool [worlds, *shape]."""
        return self.share(*shape) < probability

    def sign(self, *shape: int) -> Tensor:
        """Return -1 or 1."""
        return torch.where(self.chance(0.5, *shape), 1.0, -1.0)

    def normal(self, *shape: int) -> Tensor:
        """Return numbers of mean 0 and variance 1."""
        return torch.randn(
            (self.worlds, *shape), generator=self.generator, device=self.generator.device
        )

    def choice(self, weights: tuple[float, ...], *shape: int) -> Tensor:
        """Return indices of ``weights``, each as often as its weight says, int64."""
        edges = constant(weights, self.device).cumsum(0)
        return torch.bucketize(self.share(*shape) * edges[-1], edges[:-1].contiguous(), right=True)

    def order(self, count: int) -> Tensor:
        """Return a random order of ``count`` things, int64 [worlds, count]."""
        return self.share(count).argsort(dim=1)


FLOOR, CEILING, FIRST_BOX = 0, 1, 2
"""Surfaces: the floor, the ceiling, then boxes, then posts."""

FAR = 30.0
"""Metres along a ray beyond which there is sky."""

BURIED = -50.0
"""Height of what is not there: below the floor nothing is ever seen."""

_Batched = TypeVar("_Batched", "Textures", "Scenes")


@dataclass(frozen=True)
class Textures:
    """What surfaces look like; all tensors are [worlds, surfaces, ...].

    Attributes:
        colors: [..., 3, 3], a ground colour and two others that patterns lead to, linear.
        scale: [...], metres of a pattern's details.
        kind: [...], int64: 0 clouds, 1 checks, 2 bands.
        amount: [..., 2], how much the first and the second pattern count, in [0, 1].
        seed: [...], int64, of the patterns.
        glow: [...], share of the colour that needs no light.

    """

    colors: Tensor
    scale: Tensor
    kind: Tensor
    amount: Tensor
    seed: Tensor
    glow: Tensor


@dataclass(frozen=True)
class Scenes:
    """Worlds with z up and the floor at 0, in metres; all tensors begin with [worlds].

    Attributes:
        box_center: [..., boxes, 3].
        box_half: [..., boxes, 3], half of the sides.
        box_yaw: [..., boxes], radians about the vertical.
        post_center: [..., posts, 2].
        post_radius: [..., posts].
        post_height: [..., posts]; 0 = not there.
        ceiling: [...], height; above FAR there is none.
        textures: of all surfaces.
        lamps: [..., lamps, 3], places.
        lamp_color: [..., lamps, 3], linear light at one metre.
        ambient: [..., 3], light from everywhere.
        sky: [..., 2, 3], colours at the horizon and at the zenith.
        patterned: whether any surface has more than bands; where none has, none is computed.

    """

    box_center: Tensor
    box_half: Tensor
    box_yaw: Tensor
    post_center: Tensor
    post_radius: Tensor
    post_height: Tensor
    ceiling: Tensor
    textures: Textures
    lamps: Tensor
    lamp_color: Tensor
    ambient: Tensor
    sky: Tensor
    patterned: bool = True

    @property
    def first_post(self) -> int:
        """Index of the first surface that is a post."""
        return FIRST_BOX + self.box_yaw.shape[1]

    def to(self, device: torch.device | str) -> Scenes:
        """Return the same worlds on another device."""
        return replace(_mapped(self, device), textures=_mapped(self.textures, device))


def _mapped(batch: _Batched, device: torch.device | str) -> _Batched:
    moved = {
        each.name: getattr(batch, each.name).to(device)
        for each in fields(batch)
        if isinstance(getattr(batch, each.name), Tensor)
    }
    return replace(batch, **moved)


def concatenate_scenes(batches: list[Scenes]) -> Scenes:
    """Return one batch of all worlds of several."""
    whole = {
        each.name: torch.cat([getattr(batch, each.name) for batch in batches])
        for each in fields(Scenes)
        if each.name not in ("textures", "patterned")
    }
    textures = {
        each.name: torch.cat([getattr(batch.textures, each.name) for batch in batches])
        for each in fields(Textures)
    }
    return Scenes(
        **whole,
        textures=Textures(**textures),
        patterned=any(batch.patterned for batch in batches),
    )


_TINY = 1e-7


class Hits(NamedTuple):
    """What rays meet first, [worlds, frames, rays, ...].

    Attributes:
        distance: in lengths of the ray; FAR where there is sky.
        surface: int64; 0 where there is sky, too.
        normal: [..., 3], of unit length, towards the camera's side.

    """

    distance: Tensor
    surface: Tensor
    normal: Tensor


def trace(scenes: Scenes, origin: Tensor, rays: Tensor) -> Hits:
    """Return what rays meet.

    Args:
        scenes: the worlds.
        origin: where the rays of a frame begin, [worlds, frames, 3], above the floor.
        rays: [worlds, frames, rays, 3], of any length.

    """
    distance, surface = _planes(scenes, origin, rays)
    normal = torch.zeros_like(rays)
    normal[..., 2] = torch.where(surface == FLOOR, 1.0, -1.0)
    if scenes.box_yaw.shape[1]:
        near, box = _boxes(scenes, origin, rays)
        closer = near < distance
        distance = torch.where(closer, near, distance)
        surface = torch.where(closer, box + FIRST_BOX, surface)
        normal = torch.where(
            closer.unsqueeze(-1), _box_normal(scenes, origin, rays, near, box), normal
        )
    if scenes.post_radius.shape[1]:
        near, post = _posts(scenes, origin, rays)
        closer = near < distance
        distance = torch.where(closer, near, distance)
        surface = torch.where(closer, post + scenes.first_post, surface)
        normal = torch.where(
            closer.unsqueeze(-1), _post_normal(scenes, origin, rays, near, post), normal
        )
    return Hits(distance, surface, normal)


def _away_from_zero(value: Tensor) -> Tensor:
    return torch.where(value.abs() < _TINY, _TINY, value)


def _planes(scenes: Scenes, origin: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    height = origin[..., 2, None]
    rise = _away_from_zero(rays[..., 2])
    down = torch.where(rise < 0, -height / rise, FAR)
    up = torch.where(rise > 0, (scenes.ceiling[:, None, None] - height) / rise, FAR)
    distance = torch.minimum(torch.minimum(down, up), torch.full_like(down, FAR))
    return distance, torch.where((up < down) & (up < FAR), CEILING, FLOOR)


def _boxes(scenes: Scenes, origin: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance to the nearest box and which one it is."""
    cos, sin = scenes.box_yaw.cos()[:, None, None], scenes.box_yaw.sin()[:, None, None]
    away = origin[:, :, None, None] - scenes.box_center[:, None, None]
    x, y, z = rays[..., None, 0], rays[..., None, 1], rays[..., None, 2]
    begins = (
        away[..., 0] * cos + away[..., 1] * sin,
        away[..., 1] * cos - away[..., 0] * sin,
        away[..., 2],
    )
    enters, leaves = None, None
    for axis, ray in enumerate((x * cos + y * sin, y * cos - x * sin, z)):
        slope = 1 / _away_from_zero(ray)
        middle = -begins[axis] * slope
        reach = scenes.box_half[:, None, None, :, axis] * slope.abs()
        enters = middle - reach if enters is None else torch.maximum(enters, middle - reach)
        leaves = middle + reach if leaves is None else torch.minimum(leaves, middle + reach)
    assert enters is not None
    assert leaves is not None
    near, box = torch.where((enters < leaves) & (enters > 0), enters, FAR).min(dim=-1)
    return near, box


def _chosen(values: Tensor, index: Tensor) -> Tensor:
    """Return ``values`` [worlds, things, ...] at ``index`` [worlds, frames, rays]."""
    flat = index.flatten(1)
    for _ in range(values.ndim - 2):
        flat = flat.unsqueeze(-1)
    taken = values.gather(1, flat.expand(-1, -1, *values.shape[2:]))
    found: Tensor = taken.unflatten(1, index.shape[1:])
    return found


def _box_normal(
    scenes: Scenes, origin: Tensor, rays: Tensor, distance: Tensor, box: Tensor
) -> Tensor:
    center, half = _chosen(scenes.box_center, box), _chosen(scenes.box_half, box)
    yaw = _chosen(scenes.box_yaw, box)
    cos, sin = yaw.cos(), yaw.sin()
    away = origin[:, :, None] + distance.unsqueeze(-1) * rays - center
    local = torch.stack(
        [
            away[..., 0] * cos + away[..., 1] * sin,
            away[..., 1] * cos - away[..., 0] * sin,
            away[..., 2],
        ],
        dim=-1,
    )
    depth = (local.abs() - half).argmax(dim=-1, keepdim=True)
    face = torch.zeros_like(local).scatter(-1, depth, 1.0) * local.sign()
    return torch.stack(
        [
            face[..., 0] * cos - face[..., 1] * sin,
            face[..., 0] * sin + face[..., 1] * cos,
            face[..., 2],
        ],
        dim=-1,
    )


def _posts(scenes: Scenes, origin: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance to the nearest post, its top included, and which one it is."""
    away = origin[:, :, None, None, :2] - scenes.post_center[:, None, None]
    radius, height = scenes.post_radius[:, None, None], scenes.post_height[:, None, None]
    x, y, z = (rays[..., axis, None] for axis in range(3))
    level = origin[:, :, None, None, 2]
    square = (x * x + y * y).clamp(min=_TINY)
    along = away[..., 0] * x + away[..., 1] * y
    outside = (away * away).sum(dim=-1) - radius * radius
    root = along * along - square * outside
    side = (-along - root.clamp(min=0).sqrt()) / square
    on_side = (root > 0) & (side > 0) & (level + side * z <= height)
    top = (height - level) / _away_from_zero(z)
    inside = square * top * top + 2 * along * top + outside < 0
    on_top = inside & (top > 0) & (height > 0)
    near = torch.minimum(torch.where(on_side, side, FAR), torch.where(on_top, top, FAR))
    distance, post = near.min(dim=-1)
    return distance, post


def _post_normal(
    scenes: Scenes, origin: Tensor, rays: Tensor, distance: Tensor, post: Tensor
) -> Tensor:
    place = origin[:, :, None] + distance.unsqueeze(-1) * rays
    across = (place[..., :2] - _chosen(scenes.post_center, post)) / _chosen(
        scenes.post_radius, post
    ).unsqueeze(-1)
    on_top = place[..., 2] > _chosen(scenes.post_height, post) - 1e-3
    upright = torch.cat([across, torch.zeros_like(across[..., :1])], dim=-1)
    up = torch.zeros_like(upright)
    up[..., 2].fill_(1.0)
    return torch.where(on_top.unsqueeze(-1), up, upright)


_X, _Y, _Z, _SEED, _MIX = 73856093, 19349663, 83492791, 49979687, 668265263
_MASK = (1 << 24) - 1


def _hashed(x: Tensor, y: Tensor, z: Tensor, seed: Tensor) -> Tensor:
    """Return a number in [0, 1) for each cell; all arguments int64."""
    mixed = (x * _X) ^ (y * _Y) ^ (z * _Z) ^ (seed * _SEED)
    mixed = ((mixed ^ (mixed >> 13)) & _MASK) * _MIX
    return ((mixed >> 11) & 0xFFFF).float() / 65536


def clouds(place: Tensor, seed: Tensor) -> Tensor:
    """Return noise in [0, 1) that changes over a distance of about 1.

    Args:
        place: [..., 3].
        seed: [...], int64.

    """
    corner = place.floor()
    part = place - corner
    part = part * part * (3 - 2 * part)
    x, y, z = corner.long().unbind(-1)
    u, v, w = part.unbind(-1)

    def row(dy: int, dz: int) -> Tensor:
        left, right = _hashed(x, y + dy, z + dz, seed), _hashed(x + 1, y + dy, z + dz, seed)
        return torch.lerp(left, right, u)

    low = torch.lerp(row(0, 0), row(1, 0), v)
    high = torch.lerp(row(0, 1), row(1, 1), v)
    return torch.lerp(low, high, w)


def _patterned(place: Tensor, kind: Tensor, seed: Tensor) -> Tensor:
    """Return the first pattern of surfaces, in [0, 1]; ``place`` in units of its details."""
    noise = (2 * clouds(place, seed) + clouds(2.7 * place, seed + 1)) / 3
    checks = _shifted(place, seed).floor().sum(dim=-1) % 2
    return torch.where(kind == 1, checks, torch.where(kind == 2, _bands(place, seed), noise))


def _shifted(place: Tensor, seed: Tensor) -> Tensor:
    return place + ((seed % 97).float() / 97).unsqueeze(-1)


def _bands(place: Tensor, seed: Tensor) -> Tensor:
    return (_shifted(place, seed).sum(dim=-1) * 0.8).floor() % 2


def shade(scenes: Scenes, origin: Tensor, rays: Tensor, hits: Hits) -> Tensor:
    """Return the light that comes along rays, linear, [worlds, frames, rays, 3]."""
    place = origin[:, :, None] + hits.distance.unsqueeze(-1) * rays
    textures = scenes.textures
    scale = _chosen(textures.scale, hits.surface).unsqueeze(-1)
    seed = _chosen(textures.seed, hits.surface)
    amount = _chosen(textures.amount, hits.surface)
    colors = _chosen(textures.colors, hits.surface)
    if scenes.patterned:
        first = _patterned(place / scale, _chosen(textures.kind, hits.surface), seed)
    else:
        first = _bands(place / scale, seed)
    color = torch.lerp(colors[..., 0, :], colors[..., 1, :], (first * amount[..., 0])[..., None])
    if scenes.patterned:
        # Twice as slow as the details: neighbouring places differ in more than one way.
        second = clouds(place / (2 * scale), seed + 2)
        color = torch.lerp(color, colors[..., 2, :], (second * amount[..., 1])[..., None])
    glow = _chosen(textures.glow, hits.surface).unsqueeze(-1)
    lit = color * (glow + (1 - glow) * _irradiance(scenes, place, hits.normal))
    return torch.where((hits.distance < FAR).unsqueeze(-1), lit, _sky(scenes, rays))


def _irradiance(scenes: Scenes, place: Tensor, normal: Tensor) -> Tensor:
    total = scenes.ambient[:, None, None].expand_as(place)
    for lamp in range(scenes.lamps.shape[1]):
        towards = scenes.lamps[:, lamp, None, None] - place
        square = (towards * towards).sum(dim=-1, keepdim=True).clamp(min=0.05)
        slope = (towards * normal).sum(dim=-1, keepdim=True) * square.rsqrt()
        total = total + scenes.lamp_color[:, lamp, None, None] * slope.clamp(min=0) / (1 + square)
    return total


def _sky(scenes: Scenes, rays: Tensor) -> Tensor:
    rise = (rays[..., 2:] / rays.norm(dim=-1, keepdim=True)).clamp(min=0)
    return torch.lerp(scenes.sky[:, 0, None, None], scenes.sky[:, 1, None, None], rise)
