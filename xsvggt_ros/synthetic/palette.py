# SPDX-License-Identifier: Apache-2.0
"""Colours and materials that go together in a room."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from xsvggt_ros.synthetic.materials import Color, Material, Pattern


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
