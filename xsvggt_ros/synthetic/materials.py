# SPDX-License-Identifier: Apache-2.0
"""What surfaces look like: patterns with a size in metres, and two colours each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from xsvggt_ros.synthetic.noise import cell_noise, cloudy_noise, smooth_noise

Color = tuple[float, float, float]
"""Linear light, red green blue, 1 = white paper."""

ROW = 9
"""Numbers that describe a material: pattern, two colours, size, seed."""


class Pattern(IntEnum):
    """Kinds of pattern."""

    PLAIN = 0
    TILES = 1
    PLANKS = 2
    BRICKS = 3
    STRIPES = 4
    MARBLE = 5
    CHECKER = 6
    SPOTS = 7
    BOOKS = 8
    PAINTING = 9
    GLOW = 10
    VIEW = 11


GLOWING = (Pattern.GLOW, Pattern.VIEW)
"""Patterns that shine by themselves."""


@dataclass(frozen=True)
class Material:
    """A pattern, its first and second colour, and its size in metres."""

    pattern: Pattern
    first: Color
    second: Color = (0.0, 0.0, 0.0)
    size: float = 0.3
    seed: int = 0

    def row(self) -> list[float]:
        """Return the material as ROW numbers."""
        return [float(self.pattern), *self.first, *self.second, self.size, float(self.seed)]


def paint(texture: Tensor, rows: Tensor, footprint: Tensor) -> tuple[Tensor, Tensor]:
    """Return the colour of surface points.

    Args:
        texture: [N, 2], metres along the surface.
        rows: [N, ROW], the material of each point.
        footprint: [N], metres that a pixel covers there; patterns finer than that fade away, which
            is what a lens would do, and keeps them from flickering.

    Returns:
        Linear colour [N, 3], and whether it shines by itself, bool [N].

    """
    pattern = rows[:, 0].round().long()
    color = torch.empty_like(rows[:, :3])
    for kind in pattern.unique().tolist():
        where = (pattern == kind).nonzero()[:, 0]
        row = rows[where]
        u, v = (texture[where] / row[:, 7:8]).unbind(-1)
        share, tone = _PAINTERS[Pattern(kind)](u, v, row[:, 8], row)
        blurred = (footprint[where] / row[:, 7]).clamp(0, 1)
        mean_share, mean_tone = _MEANS.get(Pattern(kind), (0.0, 1.0))
        share = torch.lerp(share, torch.full_like(share, mean_share), blurred)
        mixed = torch.lerp(row[:, 1:4], row[:, 4:7], share.unsqueeze(-1))
        if tone.ndim == 1:
            tone = tone.unsqueeze(-1)
        color[where] = mixed * torch.lerp(
            tone, torch.full_like(tone, mean_tone), blurred.unsqueeze(-1)
        )
    return color, (pattern == Pattern.GLOW) | (pattern == Pattern.VIEW)


_Painter = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Share of the second colour and tone of points, from u, v in sizes, seed and row."""


def _plain(u: Tensor, v: Tensor, seed: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(u), 0.9 + 0.2 * cloudy_noise(u, v, seed)


def _joint(u: Tensor, v: Tensor, width: float) -> Tensor:
    """Return 1 where a point lies in the joint around its cell."""
    edge = torch.minimum(torch.minimum(u % 1, 1 - u % 1), torch.minimum(v % 1, 1 - v % 1))
    return (edge < width / 2).to(u.dtype)


def _tiles(u: Tensor, v: Tensor, seed: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    tone = 0.85 + 0.3 * cell_noise(u.floor(), v.floor(), seed)
    return _joint(u, v, 0.05), tone * (0.93 + 0.14 * smooth_noise(5 * u, 5 * v, seed))


def _planks(u: Tensor, v: Tensor, seed: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    board = v.floor()
    along = u / 7 + cell_noise(board, board * 0, seed)
    tone = 0.75 + 0.45 * cell_noise(along.floor(), board, seed)
    grain = smooth_noise(u / 1.5, 9 * v, seed + 3)
    gap = torch.maximum((v % 1 < 0.035).to(u.dtype), ((along % 1) * 7 < 0.04).to(u.dtype))
    return 0.6 * gap + 0.3 * grain * (1 - gap), tone


def _bricks(u: Tensor, v: Tensor, seed: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    high = v * 3
    along = u + 0.5 * (high.floor() % 2)
    edge_u = torch.minimum(along % 1, 1 - along % 1)
    edge_v = torch.minimum(high % 1, 1 - high % 1)
    mortar = ((edge_u < 0.025) | (edge_v < 0.07)).to(u.dtype)
    tone = 0.75 + 0.5 * cell_noise(along.floor(), high.floor(), seed)
    return mortar, tone * (0.9 + 0.2 * smooth_noise(8 * u, 8 * v, seed))


def _stripes(u: Tensor, v: Tensor, seed: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    along = torch.where(seed % 2 == 0, u, v)
    return (along % 1 < 0.5).to(u.dtype), 0.95 + 0.1 * smooth_noise(9 * u, 9 * v, seed)


def _marble(u: Tensor, v: Tensor, seed: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    warped = cloudy_noise(u, v, seed)
    return (0.5 + 0.5 * torch.sin(7 * warped + u)) * warped, torch.ones_like(u)


def _checker(u: Tensor, v: Tensor, seed: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    return (u.floor() + v.floor()) % 2, 0.95 + 0.1 * smooth_noise(4 * u, 4 * v, seed)


def _spots(u: Tensor, v: Tensor, seed: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    column, line = u.floor(), v.floor()
    radius = 0.18 + 0.2 * cell_noise(column, line, seed)
    inside = (u - column - 0.5) ** 2 + (v - line - 0.5) ** 2 < radius**2
    return inside.to(u.dtype), torch.ones_like(u)


def _books(u: Tensor, v: Tensor, seed: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """Backs of books: a cell is one book, of its own colour and height."""
    book, shelf = u.floor(), (v / 8).floor()
    height = 5.2 + 2.3 * cell_noise(book, shelf, seed)
    above = (v % 8) > height
    hue = cell_noise(book, shelf, seed + 7).unsqueeze(-1)
    shifts = torch.tensor([0.0, 0.33, 0.67], dtype=u.dtype, device=u.device)
    tone = 0.35 + 0.65 * (0.5 + 0.5 * torch.cos(2 * math.pi * (hue + shifts)))
    back = ((v % 8 - 0.7 * height).abs() < 0.25).to(u.dtype)
    round_back = 1 - 0.5 * (2 * (u % 1) - 1) ** 4
    tone = tone * (0.5 + cell_noise(book, shelf, seed + 9)).unsqueeze(-1)
    tone = (tone + 0.4 * back.unsqueeze(-1)) * round_back.unsqueeze(-1)
    return above.to(u.dtype), torch.where(above.unsqueeze(-1), 0.4, tone)


def _painting(u: Tensor, v: Tensor, seed: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """Bands and blots of many colours, as an abstract image has."""
    field = 2.5 * cloudy_noise(u, v, seed) + 0.4 * u
    steps = (field * 4).floor() / 4
    phases = torch.stack([seed * 0.37, seed * 0.73 + 0.2, seed * 0.51 + 0.4], dim=-1)
    return torch.zeros_like(u), 0.55 + 0.45 * torch.cos(
        2 * math.pi * (steps.unsqueeze(-1) + phases)
    )


def _glow(u: Tensor, v: Tensor, seed: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(u), torch.ones_like(u)


def _view(u: Tensor, v: Tensor, seed: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """A sky above a line of trees."""
    skyline = -0.25 + 0.3 * cloudy_noise(2 * u, u * 0, seed)
    land = (v < skyline).to(u.dtype)
    leaves = 0.7 + 0.6 * smooth_noise(9 * u, 9 * v, seed)
    sky = 0.9 + 0.25 * cloudy_noise(u, 3 * v, seed + 4)
    return land, torch.where(land > 0, leaves, sky)


_PAINTERS: dict[Pattern, _Painter] = {
    Pattern.PLAIN: _plain,
    Pattern.TILES: _tiles,
    Pattern.PLANKS: _planks,
    Pattern.BRICKS: _bricks,
    Pattern.STRIPES: _stripes,
    Pattern.MARBLE: _marble,
    Pattern.CHECKER: _checker,
    Pattern.SPOTS: _spots,
    Pattern.BOOKS: _books,
    Pattern.PAINTING: _painting,
    Pattern.GLOW: _glow,
    Pattern.VIEW: _view,
}

_MEANS: dict[Pattern, tuple[float, float]] = {
    Pattern.TILES: (0.1, 1.0),
    Pattern.PLANKS: (0.18, 0.97),
    Pattern.BRICKS: (0.18, 1.0),
    Pattern.STRIPES: (0.5, 1.0),
    Pattern.MARBLE: (0.35, 1.0),
    Pattern.CHECKER: (0.5, 1.0),
    Pattern.SPOTS: (0.25, 1.0),
    Pattern.BOOKS: (0.2, 0.6),
    Pattern.PAINTING: (0.0, 0.55),
}
"""Share of the second colour and tone that a pattern has on average."""
