# SPDX-License-Identifier: Apache-2.0
"""What surfaces look like where rays meet them: patterns in space, lamps, glow and sky."""

from __future__ import annotations

import torch
from torch import Tensor

from xsvggt_ros.synthetic.scenes.scene import FAR, Scenes
from xsvggt_ros.synthetic.scenes.tracing import Hits, _chosen

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
