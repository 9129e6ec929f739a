# SPDX-License-Identifier: Apache-2.0
"""Pieces of furniture: parts around an origin on the floor, back towards +y."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xsvggt_ros.synthetic.materials import Palette, linear
from xsvggt_ros.synthetic.world import Part, ball, block, post


@dataclass(frozen=True)
class Piece:
    """Parts, and half of the floor space that they take along x and y, metres."""

    parts: list[Part]
    half_x: float
    half_y: float


def _legs(half_x: float, half_y: float, height: float, palette: Palette) -> list[Part]:
    material = palette.plain(linear(palette.wood_hue, 0.5, 0.35))
    inset = 0.05
    return [
        post((x, y, 0.0), 0.03, height, material)
        for x in (-half_x + inset, half_x - inset)
        for y in (-half_y + inset, half_y - inset)
    ]


def _uniform(palette: Palette, low: float, high: float) -> float:
    return float(palette.rng.uniform(low, high))


def _slab(
    x: float, y: float, z: float, sx: float, sy: float, sz: float
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return corner and size of a box whose foot is centred at x, y, z."""
    return (x - sx / 2, y - sy / 2, z), (sx, sy, sz)


def table(palette: Palette) -> Piece:
    """Return a table with a few things on it."""
    hx, hy, top = _uniform(palette, 0.5, 0.9), _uniform(palette, 0.35, 0.5), 0.74
    parts = [block(*_slab(0, 0, top - 0.04, 2 * hx, 2 * hy, 0.04), palette.wood())]
    parts += _legs(hx, hy, top - 0.04, palette)
    for _ in range(int(palette.rng.integers(1, 5))):
        x, y = _uniform(palette, -0.8, 0.8) * hx, _uniform(palette, -0.7, 0.7) * hy
        parts.append(_thing(palette, x, y, top))
    return Piece(parts, hx, hy)


def _thing(palette: Palette, x: float, y: float, z: float) -> Part:
    """Return a small thing that stands at a place."""
    kind = int(palette.rng.integers(0, 3))
    if kind == 0:
        radius = _uniform(palette, 0.05, 0.12)
        return ball((x, y, z + radius), (radius, radius, radius), palette.plain(palette.accent()))
    if kind == 1:
        return post((x, y, z), _uniform(palette, 0.03, 0.08), _uniform(palette, 0.1, 0.35),
                    palette.fabric())  # fmt: skip
    size = (
        _uniform(palette, 0.12, 0.3),
        _uniform(palette, 0.1, 0.25),
        _uniform(palette, 0.03, 0.2),
    )
    return block(*_slab(x, y, z, *size), palette.plain(palette.accent()))


def chair(palette: Palette) -> Piece:
    """Return a chair."""
    seat = palette.fabric()
    half = 0.22
    parts = [
        block(*_slab(0, 0, 0.42, 2 * half, 2 * half, 0.05), seat),
        block(*_slab(0, half - 0.02, 0.47, 2 * half, 0.04, 0.45), seat),
        *_legs(half, half, 0.42, palette),
    ]
    return Piece(parts, half, half)


def sofa(palette: Palette) -> Piece:
    """Return a sofa with cushions."""
    cloth, hx, depth = palette.fabric(), _uniform(palette, 0.7, 1.1), 0.85
    parts = [
        block(*_slab(0, 0, 0.05, 2 * hx, depth, 0.37), cloth),
        block(*_slab(0, depth / 2 - 0.1, 0.42, 2 * hx, 0.2, 0.42), cloth),
    ]
    for side in (-1, 1):
        parts.append(block(*_slab(side * (hx - 0.09), 0, 0.42, 0.18, depth, 0.2), cloth))
        parts.append(
            ball((side * 0.55 * hx, 0.18, 0.58), (0.2, 0.1, 0.17), palette.plain(palette.accent()))
        )
    return Piece(parts, hx, depth / 2)


def shelf(palette: Palette) -> Piece:
    """Return a bookshelf."""
    hx, depth = _uniform(palette, 0.4, 0.9), 0.32
    rows = int(palette.rng.integers(3, 6))
    frame, pitch = palette.wood(), 0.36
    height = rows * pitch + 0.03
    parts = [
        block(*_slab(side * (hx - 0.015), 0, 0, 0.03, depth, height), frame) for side in (-1, 1)
    ]
    parts.append(block(*_slab(0, 0, height, 2 * hx, depth, 0.03), frame))
    for row in range(rows):
        z = row * pitch
        parts.append(block(*_slab(0, 0, z, 2 * hx - 0.06, depth, 0.03), frame))
        width = (2 * hx - 0.1) * _uniform(palette, 0.5, 1.0)
        books = block(*_slab(0, 0.03, z + 0.03, width, depth - 0.08, 0.24), palette.books())
        parts.append(books)
    return Piece(parts, hx, depth / 2)


def cabinet(palette: Palette) -> Piece:
    """Return a sideboard with doors and something on top."""
    hx, hy, height = _uniform(palette, 0.4, 0.9), 0.22, _uniform(palette, 0.5, 1.3)
    parts = [block(*_slab(0, 0, 0.0, 2 * hx, 2 * hy, height), palette.wood())]
    front = palette.plain(palette.pale())
    for side in (-1, 1):
        door = _slab(side * hx / 2, -hy - 0.008, 0.06, hx - 0.05, 0.016, height - 0.12)
        parts.append(block(*door, front))
        knob = (side * 0.06, -hy - 0.03, 0.55 * height)
        parts.append(ball(knob, (0.02, 0.02, 0.02), palette.plain((0.08, 0.08, 0.08))))
    parts.append(_thing(palette, _uniform(palette, -0.6, 0.6) * hx, 0.0, height))
    return Piece(parts, hx, hy + 0.03)


def bed(palette: Palette) -> Piece:
    """Return a bed."""
    hx, hy = _uniform(palette, 0.5, 0.85), 1.0
    parts = [
        block(*_slab(0, 0, 0.12, 2 * hx, 2 * hy, 0.18), palette.wood()),
        block(*_slab(0, -0.02, 0.3, 2 * hx - 0.04, 2 * hy - 0.04, 0.18),
              palette.plain((0.8, 0.8, 0.78))),
        block(*_slab(0, -0.3, 0.36, 2 * hx, 1.4, 0.15), palette.fabric()),
        block(*_slab(0, hy - 0.03, 0.0, 2 * hx, 0.06, 0.95), palette.wood()),
        ball((0.0, hy - 0.35, 0.54), (0.7 * hx, 0.2, 0.1), palette.plain(palette.pale())),
    ]  # fmt: skip
    return Piece(parts, hx, hy)


def plant(palette: Palette) -> Piece:
    """Return a plant in a pot."""
    green = linear(_uniform(palette, 0.25, 0.38), 0.6, _uniform(palette, 0.25, 0.5))
    leaves = palette.plain(green, 0.05)
    height = _uniform(palette, 0.5, 1.1)
    parts = [
        post((0.0, 0.0, 0.0), 0.17, 0.32, palette.plain(linear(0.04, 0.6, 0.6))),
        post((0.0, 0.0, 0.32), 0.03, height - 0.32, palette.plain(linear(0.08, 0.5, 0.3))),
    ]
    for dx, dy, dz in (
        (0.0, 0.0, 0.15),
        (0.14, 0.05, -0.02),
        (-0.12, 0.08, 0.0),
        (0.0, -0.14, 0.0),
    ):
        radius = _uniform(palette, 0.14, 0.22)
        parts.append(ball((dx, dy, height + dz), (radius, radius, 0.8 * radius), leaves))
    return Piece(parts, 0.36, 0.36)


def floor_lamp(palette: Palette) -> Piece:
    """Return a standing lamp."""
    metal = palette.plain((0.1, 0.1, 0.11))
    parts = [
        post((0.0, 0.0, 0.0), 0.15, 0.03, metal),
        post((0.0, 0.0, 0.03), 0.015, 1.4, metal),
        post((0.0, 0.0, 1.43), 0.18, 0.25, palette.glow((1.1, 0.95, 0.7))),
    ]
    return Piece(parts, 0.18, 0.18)


def column(palette: Palette) -> Piece:
    """Return a pillar."""
    radius = _uniform(palette, 0.12, 0.28)
    stone = palette.floor()
    return Piece([post((0.0, 0.0, 0.0), radius, 4.0, stone)], radius, radius)


def crates(palette: Palette) -> Piece:
    """Return a stack of two boxes."""
    low, high = _uniform(palette, 0.35, 0.7), _uniform(palette, 0.2, 0.45)
    parts = [
        block(*_slab(0, 0, 0.0, low, low, 0.8 * low), palette.fabric()),
        Part(
            block(*_slab(0, 0, 0.8 * low, high, high, high), palette.wood()).solid,
            (0.0, 0.0, 0.8 * low + high / 2),
            (high / 2, high / 2, high / 2),
            palette.wood(),
            _uniform(palette, 0.1, 0.7),
        ),
    ]
    return Piece(parts, low / 2, low / 2)


def big_ball(palette: Palette) -> Piece:
    """Return a ball on the floor."""
    radius = _uniform(palette, 0.18, 0.4)
    return Piece([ball((0.0, 0.0, radius), (radius, radius, radius), palette.fabric())],
                 radius, radius)  # fmt: skip


Maker = Callable[[Palette], Piece]

AT_WALLS: tuple[Maker, ...] = (shelf, cabinet, sofa, bed, plant, floor_lamp, crates, shelf, cabinet)
FREE_STANDING: tuple[Maker, ...] = (table, table, chair, chair, big_ball, crates, column, plant)
