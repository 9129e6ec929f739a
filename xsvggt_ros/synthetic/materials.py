# SPDX-License-Identifier: Apache-2.0
"""What surfaces look like: patterns with a size in metres, and two colours each."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cache

import numpy as np
import torch
from torch import Tensor

_SIZE = 1 << 16
_COLUMN, _ROW, _SEED = 73856093, 19349663, 83492791


@cache
def _table(device: torch.device) -> Tensor:
    values = np.random.default_rng(0x5EED).random(_SIZE, np.float32)
    return torch.from_numpy(values).to(device)


def _looked_up(column: Tensor, row: Tensor, seed: Tensor) -> Tensor:
    return _table(column.device)[(column ^ row ^ seed) & (_SIZE - 1)]


def cell_noise(column: Tensor, row: Tensor, seed: Tensor) -> Tensor:
    """Return a number in [0, 1) for each cell.

    Args:
        column: whole numbers as float32, of any shape.
        row: likewise.
        seed: likewise.

    """
    return _looked_up(column.long() * _COLUMN, row.long() * _ROW, seed.long() * _SEED)


def smooth_noise(u: Tensor, v: Tensor, seed: Tensor) -> Tensor:
    """Return noise in [0, 1) that changes over a distance of about 1 in ``u`` and ``v``.

    Args:
        u: place, of any shape.
        v: likewise.
        seed: whole numbers as float32, which broadcast.

    """
    left, below = u.floor(), v.floor()
    a, b = u - left, v - below
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    column, row, key = left.long() * _COLUMN, below.long() * _ROW, seed.long() * _SEED
    key_low, key_high = row ^ key, (row + _ROW) ^ key
    right, nothing = column + _COLUMN, torch.zeros((), dtype=torch.long, device=u.device)
    low = torch.lerp(_looked_up(column, key_low, nothing), _looked_up(right, key_low, nothing), a)
    high = torch.lerp(
        _looked_up(column, key_high, nothing), _looked_up(right, key_high, nothing), a
    )
    return torch.lerp(low, high, b)


def cloudy_noise(u: Tensor, v: Tensor, seed: Tensor) -> Tensor:
    """Return smooth noise with a finer octave, in [0, 1).

    Args:
        u: place, of any shape.
        v: likewise.
        seed: whole numbers as float32, which broadcast.

    """
    whole = smooth_noise(u, v, seed)
    return (2 * whole + smooth_noise(2.53 * u, 2.53 * v, seed + 1)) / 3


def linear(hue: float, saturation: float, value: float) -> Color:
    """Return linear light of a colour as people name it, all in [0, 1]."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1))
    return (red**2.2, green**2.2, blue**2.2)


@dataclass
class Palette:
    """Draws materials from a random generator; ``contrast`` in [0, 1] scales their patterns."""

    rng: np.random.Generator
    contrast: float = 1.0

    def __post_init__(self) -> None:
        self.hue = float(self.rng.random())
        self.wood_hue = float(self.rng.uniform(0.05, 0.11))

    def seed(self) -> int:
        """Return a fresh seed for a pattern."""
        return int(self.rng.integers(1, 4000))

    def _material(self, pattern: Pattern, first: Color, second: Color, size: float) -> Material:
        share = self.contrast if self.rng.random() < self.contrast else 0.0
        if share <= 0 and pattern is not Pattern.GLOW:
            return Material(Pattern.PLAIN, first, first, 0.5, self.seed())
        red, green, blue = (a + share * (b - a) for a, b in zip(first, second, strict=True))
        return Material(pattern, first, (red, green, blue), size, self.seed())

    def accent(self) -> Color:
        """Return a strong colour near or opposite of the room's own."""
        hue = self.hue + float(self.rng.choice([0.0, 0.5, 0.33])) + float(self.rng.normal(0, 0.05))
        return linear(hue, self.rng.uniform(0.4, 0.85), self.rng.uniform(0.4, 0.85))

    def pale(self) -> Color:
        """Return a light colour, as walls have."""
        return linear(
            self.hue + self.rng.normal(0, 0.1), self.rng.uniform(0.02, 0.3),
            self.rng.uniform(0.72, 0.95),
        )  # fmt: skip

    def wood(self) -> Material:
        """Return boards."""
        value = float(self.rng.uniform(0.35, 0.8))
        first = linear(self.wood_hue + self.rng.normal(0, 0.01), self.rng.uniform(0.4, 0.65), value)
        red, green, blue = first
        second = (0.45 * red, 0.4 * green, 0.38 * blue)
        return self._material(Pattern.PLANKS, first, second, float(self.rng.uniform(0.09, 0.16)))

    def fabric(self) -> Material:
        """Return cloth."""
        first, second = self.accent(), self.pale()
        kind = self.rng.choice([Pattern.PLAIN, Pattern.PLAIN, Pattern.STRIPES, Pattern.CHECKER,
                                Pattern.SPOTS])  # fmt: skip
        size = 0.02 if kind == Pattern.PLAIN else float(self.rng.uniform(0.06, 0.16))
        return self._material(Pattern(int(kind)), first, second, size)

    def floor(self) -> Material:
        """Return boards, tiles, stone or a carpet."""
        kind = int(self.rng.integers(0, 4))
        if kind == 0:
            return self.wood()
        first = linear(self.hue + 0.5 + self.rng.normal(0, 0.15), self.rng.uniform(0.05, 0.4),
                       self.rng.uniform(0.4, 0.8))  # fmt: skip
        second = linear(self.hue, 0.1, self.rng.uniform(0.25, 0.9))
        pattern = (Pattern.TILES, Pattern.CHECKER, Pattern.MARBLE)[kind - 1]
        return self._material(pattern, first, second, float(self.rng.uniform(0.25, 0.6)))

    def wall(self, plain: Color) -> Material:
        """Return paint of the room's colour, or sometimes brick, paper or stone."""
        kind = int(self.rng.integers(0, 8))
        if kind == 0:
            brick = linear(self.rng.uniform(0.0, 0.06), self.rng.uniform(0.4, 0.7),
                           self.rng.uniform(0.45, 0.75))  # fmt: skip
            return self._material(Pattern.BRICKS, brick, (0.5, 0.48, 0.45), 0.26)
        if kind == 1:
            second = linear(self.hue, self.rng.uniform(0.1, 0.4), self.rng.uniform(0.55, 0.9))
            return self._material(Pattern.STRIPES, plain, second, float(self.rng.uniform(0.2, 0.5)))
        if kind == 2:
            second = linear(self.hue + 0.1, self.rng.uniform(0.2, 0.6), self.rng.uniform(0.4, 0.7))
            return self._material(Pattern.SPOTS, plain, second, float(self.rng.uniform(0.15, 0.4)))
        return Material(Pattern.PLAIN, plain, plain, float(self.rng.uniform(0.4, 1.2)), self.seed())

    def plain(self, color: Color, size: float = 0.3) -> Material:
        """Return one colour with a little unevenness."""
        return Material(Pattern.PLAIN, color, color, size, self.seed())

    def books(self) -> Material:
        """Return the backs of books."""
        paper, shade = (0.75, 0.72, 0.68), linear(self.wood_hue, 0.5, 0.3)
        return self._material(Pattern.BOOKS, paper, shade, float(self.rng.uniform(0.03, 0.045)))

    def painting(self) -> Material:
        """Return an image for a wall."""
        return self._material(Pattern.PAINTING, (0.8, 0.8, 0.8), (0.8, 0.8, 0.8),
                              float(self.rng.uniform(0.2, 0.5)))  # fmt: skip

    def glow(self, color: Color) -> Material:
        """Return a lamp's own light."""
        return Material(Pattern.GLOW, color, color, 1.0, self.seed())

    def view(self) -> Material:
        """Return what is to be seen through a window."""
        sky = linear(0.57 + self.rng.normal(0, 0.02), self.rng.uniform(0.1, 0.4), 1.0)
        red, green, blue = sky
        land = linear(0.28 + self.rng.normal(0, 0.05), 0.5, self.rng.uniform(0.35, 0.6))
        return Material(Pattern.VIEW, (1.4 * red, 1.4 * green, 1.4 * blue), land, 0.8, self.seed())


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
