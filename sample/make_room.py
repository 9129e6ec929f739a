#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draw the images of sample/room: a walk through a furnished room, by a small ray caster."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Offset = tuple[float, float]
Paint = Callable[[Array, Array], Array]
"""Colour in linear light, [n, 3], of points [n, 3] with normals [n, 3]."""

WIDTH, HEIGHT, FOCAL = 512, 384, 369.0
SUBPIXELS = tuple((a, b) for a in (-0.25, 0.25) for b in (-0.25, 0.25))


def floats(values: object) -> Array:
    """Return an array in the precision used throughout."""
    return np.asarray(values, dtype=np.float32)


ROOM_LOW, ROOM_HIGH = floats([0, 0, 0]), floats([6.4, 5.0, 2.7])
LAMPS = (
    # centre, two half edges, colour: the panel at the ceiling and the window in the north wall
    (floats([3.0, 2.6, 2.68]), floats([0.8, 0, 0]), floats([0, 0.5, 0]), (9.0, 8.1, 6.8)),
    (floats([4.6, 4.9, 1.6]), floats([0.7, 0, 0]), floats([0, 0, 0.6]), (3.6, 4.4, 5.4)),
)


@dataclass(frozen=True)
class Box:
    """An axis-aligned box; the room itself is one seen from inside."""

    low: Array
    high: Array
    paint: Paint
    inside: bool = False

    def hit(self, origin: Array, ray: Array) -> Array:
        """Return the distance along each ray, infinite where it misses."""
        with np.errstate(divide="ignore", invalid="ignore"):
            a, b = (self.low - origin) / ray, (self.high - origin) / ray
        near, far = np.minimum(a, b).max(axis=1), np.maximum(a, b).min(axis=1)
        distance = far if self.inside else near
        return np.where((near <= far) & (distance > 1e-3), distance, np.float32(np.inf))

    def normal(self, point: Array) -> Array:
        """Return the unit normals of points on the surface."""
        scaled = (2 * point - self.low - self.high) / (self.high - self.low)
        axis = np.abs(scaled).argmax(axis=1)
        sign = np.sign(scaled[np.arange(len(point)), axis]) * (-1 if self.inside else 1)
        return (np.eye(3, dtype=np.float32)[axis] * sign[:, None]).astype(np.float32)


@dataclass(frozen=True)
class Sphere:
    """A ball."""

    centre: Array
    radius: float
    paint: Paint

    def hit(self, origin: Array, ray: Array) -> Array:
        """Return the distance along each ray, infinite where it misses."""
        to_origin = origin - self.centre
        half = np.einsum("ij,ij->i", to_origin, ray)
        square = half**2 - np.einsum("ij,ij->i", to_origin, to_origin) + self.radius**2
        distance = -half - np.sqrt(np.maximum(square, 0))
        return np.where((square > 0) & (distance > 1e-3), distance, np.float32(np.inf))

    def normal(self, point: Array) -> Array:
        """Return the unit normals of points on the surface."""
        return (point - self.centre) / floats(self.radius)


def scatter(*cells: Array) -> Array:
    """Return a fixed pseudo-random number in [0, 1) for each integer cell."""
    key = sum(np.floor(c) * k for c, k in zip(cells, (12.9898, 78.233, 37.719), strict=False))
    return floats(np.modf(np.abs(np.sin(key)) * 43758.547)[0])


def grain(u: Array, v: Array) -> Array:
    """Return smooth noise in [0, 1] of two texture coordinates."""
    fu, fv = u - np.floor(u), v - np.floor(v)
    fu, fv = fu * fu * (3 - 2 * fu), fv * fv * (3 - 2 * fv)
    low = scatter(u, v) * (1 - fu) + scatter(u + 1, v) * fu
    high = scatter(u, v + 1) * (1 - fu) + scatter(u + 1, v + 1) * fu
    return low * (1 - fv) + high * fv


def blend(share: Array, start: tuple[float, ...], end: tuple[float, ...]) -> Array:
    """Mix two colours by a share [n] in [0, 1]."""
    return (1 - share)[:, None] * floats(start) + share[:, None] * floats(end)


def plain(red: float, green: float, blue: float) -> Paint:
    """One colour with a little unevenness, so that no surface is empty."""

    def paint(point: Array, normal: Array) -> Array:
        uneven = 0.92 + 0.16 * grain(
            7 * (point[:, 0] + point[:, 2]), 7 * (point[:, 1] + point[:, 2])
        )
        return uneven[:, None] * floats([red, green, blue])

    return paint


def wood(point: Array, normal: Array) -> Array:
    """Boards along x with a visible grain."""
    board = np.floor(point[:, 1] / 0.16)
    along = point[:, 0] + 3.1 * scatter(board, board)
    fibre = grain(along * 2.5, point[:, 1] * 60 + 4 * grain(along * 3, board))
    tone = 0.45 * scatter(board, along / 1.4) + 0.55 * fibre
    gap = (np.modf(point[:, 1] / 0.16)[0] < 0.05) | (np.modf(along / 1.4)[0] < 0.006)
    return blend(tone, (0.36, 0.19, 0.09), (0.62, 0.38, 0.19)) * np.where(gap, 0.35, 1)[:, None]


def rug(point: Array, normal: Array) -> Array:
    """Diamonds inside a border."""
    u, v = point[:, 0] * 4, point[:, 1] * 4
    diamond = np.abs(u - np.round(u)) + np.abs(v - np.round(v))
    colour = blend((diamond < 0.33).astype(np.float32), (0.42, 0.06, 0.07), (0.78, 0.62, 0.36))
    colour[diamond < 0.14] = (0.06, 0.1, 0.25)
    return colour * (0.8 + 0.3 * grain(point[:, 0] * 40, point[:, 1] * 40))[:, None]


def books(point: Array, normal: Array) -> Array:
    """Backs of books of several heights, on four boards."""
    shelf, height = np.floor(point[:, 2] / 0.45), np.modf(point[:, 2] / 0.45)[0]
    along = (point[:, 0] + point[:, 1]) / 0.05 + 7 * shelf
    hue = scatter(along, shelf)
    tint = floats(
        [
            [0.5, 0.1, 0.08],
            [0.1, 0.25, 0.4],
            [0.65, 0.5, 0.2],
            [0.12, 0.3, 0.16],
            [0.7, 0.66, 0.58],
            [0.2, 0.12, 0.3],
        ]
    )
    colour = tint[(hue * 6).astype(int)]
    colour = np.where(
        (np.abs(height - 0.55) < 0.03)[:, None] & (hue > 0.4)[:, None],
        floats([0.8, 0.7, 0.4]),
        colour,
    )
    top = 0.62 + 0.3 * scatter(along, shelf + 9)
    colour[(height > top) | (np.modf(along)[0] < 0.08)] = 0.03
    colour[(height < 0.09) | (np.abs(normal[:, 2]) > 0.5)] = (0.4, 0.26, 0.15)
    return colour


def painting(seed: int) -> Paint:
    """Hills at dusk."""

    def paint(point: Array, normal: Array) -> Array:
        u, v = point[:, 0] + point[:, 1], point[:, 2]
        field = 0.5 + 0.5 * grain(u * 6 + seed, v * 9)
        far = v < 1.68 + 0.1 * np.sin(4.1 * u + seed) + 0.04 * np.sin(11 * u)
        near = v < 1.54 + 0.07 * np.sin(2.7 * u) + 0.03 * np.sin(13 * u + seed)
        land = np.where(near[:, None], floats([0.16, 0.3, 0.07]), (0.22, 0.3, 0.42))
        return field[:, None] * np.where((near | far)[:, None], land, (0.85, 0.6, 0.36))

    return paint


def walls(point: Array, normal: Array) -> Array:
    """Floor boards, a plastered ceiling, papered walls above a panelled skirting."""
    along = np.where(np.abs(normal[:, 0]) > 0.5, point[:, 1], point[:, 0])
    stripe = (np.modf(along / 0.3)[0] < 0.5).astype(np.float32)
    leaf = np.sin(along * 42) * np.sin(point[:, 2] * 42) > 0.55
    colour = blend(0.6 * stripe + 0.4 * leaf, (0.56, 0.62, 0.55), (0.7, 0.72, 0.6))
    panel = blend(
        (np.modf(along / 0.4)[0] < 0.06).astype(np.float32), (0.75, 0.73, 0.68), (0.4, 0.38, 0.35)
    )
    colour = np.where((point[:, 2] < 0.8)[:, None], panel, colour)
    colour[np.abs(point[:, 2] - 0.8) < 0.025] = (0.5, 0.36, 0.22)
    colour[point[:, 2] < 0.1] = (0.5, 0.36, 0.22)
    plaster = 0.74 + 0.1 * grain(point[:, 0] * 5, point[:, 1] * 5)
    colour = np.where((normal[:, 2] < -0.5)[:, None], plaster[:, None], colour)
    return np.where((normal[:, 2] > 0.5)[:, None], wood(point, normal), colour)


def glow(red: float, green: float, blue: float) -> Paint:
    """A surface that shines by itself: colours above 1 are not lit."""
    return lambda point, normal: np.tile(floats([red, green, blue]), (len(point), 1))


def view(point: Array, normal: Array) -> Array:
    """The window: sky over a garden, behind a cross of wood."""
    colour = blend(np.clip((point[:, 2] - 1.0) / 1.2, 0, 1), (1.5, 1.75, 1.9), (1.15, 1.5, 2.1))
    garden = point[:, 2] < 1.32 + 0.16 * grain(point[:, 0] * 5, point[:, 0])
    colour[garden] = (1.02, 1.25, 1.01)
    bar = (np.abs(point[:, 0] - 4.6) < 0.03) | (np.abs(point[:, 2] - 1.6) < 0.03)
    colour[bar] = (0.7, 0.68, 0.62)
    return colour


def ball(point: Array, normal: Array) -> Array:
    """A beach ball: six coloured sectors."""
    sector = np.floor((np.arctan2(normal[:, 1], normal[:, 0]) / np.pi + 1) * 3).astype(int) % 3
    return floats([[0.75, 0.1, 0.08], [0.8, 0.75, 0.68], [0.08, 0.25, 0.6]])[sector]


def block(
    x: float, y: float, z: float, width: float, depth: float, height: float, paint: Paint
) -> Box:
    """Return a box by its lower corner and its size."""
    low = floats([x, y, z])
    return Box(low, low + floats([width, depth, height]), paint)


def furnish() -> list[Box | Sphere]:
    """Return everything in the room, the room first."""
    blue, oak, frame = plain(0.12, 0.22, 0.36), plain(0.5, 0.31, 0.17), plain(0.2, 0.13, 0.08)
    legs = [block(x, y, 0, 0.06, 0.06, 0.7, oak) for x in (3.25, 4.39) for y in (2.35, 3.09)]
    return [
        Box(ROOM_LOW, ROOM_HIGH, walls, inside=True),
        block(2.2, 2.66 - 0.56, 2.66, 1.6, 1.0, 0.04, glow(1.6, 1.5, 1.3)),
        block(3.8, 4.97, 0.95, 1.6, 0.03, 1.3, plain(0.7, 0.68, 0.62)),
        block(3.88, 4.955, 1.03, 1.44, 0.03, 1.14, view),
        block(2.5, 1.7, 0, 2.6, 2.1, 0.012, rug),
        block(3.2, 2.3, 0.7, 1.3, 0.9, 0.05, oak),
        *legs,
        block(1.6, 4.62, 0, 1.5, 0.36, 1.87, books),
        block(5.5, 1.5, 0, 0.85, 1.9, 0.42, blue),
        block(6.1, 1.5, 0.42, 0.25, 1.9, 0.45, blue),
        block(5.5, 1.3, 0, 0.85, 0.2, 0.62, blue),
        block(5.5, 3.4, 0, 0.85, 0.2, 0.62, blue),
        block(5.62, 2.0, 0.42, 0.36, 0.42, 0.36, plain(0.75, 0.5, 0.12)),
        block(6.36, 1.8, 1.3, 0.03, 1.2, 0.8, frame),
        block(6.34, 1.86, 1.36, 0.03, 1.08, 0.68, painting(3)),
        block(5.55, 4.35, 0, 0.5, 0.5, 0.5, oak),
        Sphere(floats([5.8, 4.6, 0.78]), 0.28, plain(0.6, 0.62, 0.6)),
        Sphere(floats([3.6, 2.75, 0.9]), 0.15, plain(0.62, 0.2, 0.08)),
        block(4.0, 2.6, 0.75, 0.26, 0.36, 0.09, plain(0.1, 0.32, 0.25)),
        block(4.03, 2.64, 0.84, 0.2, 0.28, 0.06, plain(0.65, 0.58, 0.4)),
        Sphere(floats([2.6, 3.75, 0.3]), 0.3, ball),
        block(0.9, 4.45, 0, 0.42, 0.42, 0.45, plain(0.55, 0.25, 0.14)),
        Sphere(floats([1.1, 4.66, 0.75]), 0.36, plain(0.1, 0.3, 0.08)),
    ]


def nearest(scene: list[Box | Sphere], origin: Array, ray: Array) -> tuple[Array, NDArray[np.intp]]:
    """Return the distance to the first surface and which thing it belongs to, per ray."""
    best, which = np.full(len(ray), np.inf, np.float32), np.zeros(len(ray), np.intp)
    for index, thing in enumerate(scene):
        distance = thing.hit(origin, ray)
        closer = distance < best
        best, which = np.where(closer, distance, best), np.where(closer, index, which)
    return best, which


def shadow(scene: list[Box | Sphere], origin: Array, ray: Array) -> NDArray[np.bool_]:
    """Return where furniture lies between a point and the lamp at the end of its ``ray``."""
    dark = np.zeros(len(ray), np.bool_)
    for thing in scene[4:]:
        dark |= thing.hit(origin, ray) < 0.999
    return dark


def daylight(scene: list[Box | Sphere], point: Array, normal: Array, offset: Offset) -> Array:
    """Return the light that reaches points, [n, 3]: two soft lamps and what the walls throw back.

    Each subpixel, told by its ``offset``, sees four of the sixteen spots of a lamp.
    """
    corner = np.minimum(np.abs(point - ROOM_LOW), np.abs(ROOM_HIGH - point))
    ambient = np.prod(1 - 0.45 * np.exp(-4 * corner) * (np.abs(normal) < 0.5), axis=1)
    light = (0.26 + 0.05 * normal[:, 2:]) * ambient[:, None] * floats([1.0, 0.98, 0.95])
    spots = [(a + offset[0], b + offset[1]) for a in (-0.5, 0.5) for b in (-0.5, 0.5)]
    for centre, right, up, colour in LAMPS:
        facing = np.cross(right, up) / np.linalg.norm(np.cross(right, up))
        for a, b in spots:
            ray = centre + np.float32(a) * right + np.float32(b) * up - point
            square = np.einsum("ij,ij->i", ray, ray)
            slope = np.maximum(np.einsum("ij,ij->i", ray, normal), 0) * np.abs(ray @ facing)
            share = floats(slope / (square * (square + 1)) / len(spots))
            lit = share > 1e-4
            lit[lit] &= ~shadow(scene, point[lit] + 1e-3 * normal[lit], ray[lit])
            light += (share * lit)[:, None] * floats(colour)
    return light


def camera(step: float) -> tuple[Array, Array]:
    """Return position and axes (columns right, down, forward) at 0 <= ``step`` <= 1 of the walk."""
    position = floats([0.7 + 1.5 * step, 0.6 + 0.9 * step, 1.5 + 0.03 * np.sin(9 * step)])
    heading, pitch = 0.62 + 0.28 * np.sin(2.6 * step), -0.16 + 0.03 * np.sin(5 * step)
    forward = floats(
        [np.cos(heading) * np.cos(pitch), np.sin(heading) * np.cos(pitch), np.sin(pitch)]
    )
    right = floats([np.sin(heading), -np.cos(heading), 0])
    return position, np.stack([right, np.cross(forward, right), forward], axis=1)


def look(scene: list[Box | Sphere], step: float, offset: Offset) -> Array:
    """Return the light that comes to one subpixel of every pixel, [height * width, 3]."""
    position, axes = camera(step)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    x = (columns.ravel() + 0.5 + offset[0] - WIDTH / 2) / FOCAL
    y = (rows.ravel() + 0.5 + offset[1] - HEIGHT / 2) / FOCAL
    ray = np.stack([x, y, np.ones_like(x)], axis=1) @ axes.T
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    distance, which = nearest(scene, position[None], ray)
    point, colour = position + distance[:, None] * ray, np.empty_like(ray)
    for index in np.unique(which):
        mine = which == index
        normal = scene[index].normal(point[mine])
        paint = scene[index].paint(point[mine], normal)
        lit = paint * daylight(scene, point[mine], normal, offset)
        colour[mine] = np.where(paint.max(axis=1, keepdims=True) > 1, paint, lit)
    return colour


def draw(scene: list[Box | Sphere], step: float) -> NDArray[np.uint8]:
    """Return the image at one point of the walk, BGR."""
    tones = [(1 - np.exp(-1.9 * look(scene, step, o))) ** (1 / 2.2) for o in SUBPIXELS]
    image = np.mean(tones, axis=0).reshape(HEIGHT, WIDTH, 3)[..., ::-1]
    return (255 * image + 0.5).clip(0, 255).astype(np.uint8)


def main() -> None:
    """Draw all images of the walk."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "room")
    parser.add_argument("--count", type=int, default=12)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    scene = furnish()
    for index in range(options.count):
        image = draw(scene, index / max(options.count - 1, 1))
        path = options.output / f"{index:03d}.jpg"
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        print(path)


if __name__ == "__main__":
    main()
