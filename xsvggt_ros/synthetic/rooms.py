# SPDX-License-Identifier: Apache-2.0
"""Seeded rooms: size, partitions, windows, doors, furniture, lamps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.synthetic.furniture import AT_WALLS, FREE_STANDING, Maker, Piece
from xsvggt_ros.synthetic.materials import Color, Palette, linear
from xsvggt_ros.synthetic.world import (
    Lamp,
    Part,
    Tint,
    Vector,
    World,
    assemble_world,
    ball,
    block,
    chart_tint,
    no_tint,
    post,
)

_GAP = 0.12
"""Metres between two pieces of furniture."""

_TRIES = 30

_DAYLIGHT = 0.8
"""Linear light from everywhere on a bright day."""

_EVEN = 0.75
"""What a bright day takes from the shade in corners; some is left, by which one sees shapes."""


MOST_MOVERS = 12
"""People in a room; more would find no free floor in most."""


@dataclass(frozen=True)
class RoomSettings:
    """How rooms are drawn at random.

    Attributes:
        least: smallest length, width and height, metres.
        most: greatest.
        furniture: fewest and most pieces.
        layouts: among ``open``, ``corner`` (a room around a corner) and ``doorway`` (two rooms).
        contrast: of patterns, and the share of surfaces that have one, in [0, 1].
        tint: in [0, 1], how much colours that vary slowly over the room replace all others.
        chart: whether these colours follow one rule in all rooms, so that a colour tells a place:
            red rises with x, green with y, blue with z. Otherwise every room has its own.
        daylight: in [0, 1], the share of the light that comes evenly from everywhere.
        movers: people who walk to and fro, up to MOST_MOVERS; who finds no free floor stays out.
        decoration: whether there are windows, doors, paintings, rugs and skirting.

    Raises:
        ConfigurationError: a share outside of [0, 1], a size too small to stand in, or more people
            than MOST_MOVERS.

    """

    least: tuple[float, float, float] = (4.2, 4.0, 2.4)
    most: tuple[float, float, float] = (8.0, 7.0, 3.2)
    furniture: tuple[int, int] = (6, 14)
    layouts: tuple[str, ...] = ("open", "open", "corner", "doorway")
    contrast: float = 1.0
    tint: float = 0.0
    chart: bool = False
    daylight: float = 0.0
    movers: int = 0
    decoration: bool = True

    def __post_init__(self) -> None:
        for name in ("contrast", "tint", "daylight"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(
                    f"room {name} is {getattr(self, name)}; it must lie between 0 and 1"
                )
        if not 0 <= self.movers <= MOST_MOVERS:
            raise ConfigurationError(
                f"room movers are {self.movers}; there can be 0 to {MOST_MOVERS} people"
            )
        if self.least[2] < 2.0 or min(self.least[:2]) < 2.5:
            raise ConfigurationError(
                f"rooms of {self.least} m are too small to move in; at least 2.5 x 2.5 x 2.0 m "
                "are needed"
            )
        if any(low > high for low, high in zip(self.least, self.most, strict=True)):
            raise ConfigurationError(f"rooms of at least {self.least} and at most {self.most} m "
                                     "do not exist; exchange the two")  # fmt: skip
        unknown = set(self.layouts) - {"open", "corner", "doorway"}
        if unknown or not self.layouts:
            raise ConfigurationError(
                f"room layouts {self.layouts} are unknown; choose among open, corner, doorway"
            )


ROOMS: dict[str, RoomSettings] = {
    "rich": RoomSettings(),
    "calm": RoomSettings(
        least=(3.6, 3.6, 2.4),
        most=(5.5, 5.5, 2.8),
        furniture=(3, 7),
        layouts=("open",),
        contrast=0.3,
        tint=0.75,
        decoration=False,
    ),
    "chart": RoomSettings(
        least=(3.6, 3.6, 2.4),
        most=(5.5, 5.5, 2.8),
        furniture=(3, 7),
        layouts=("open",),
        contrast=0.0,
        tint=1.0,
        chart=True,
        daylight=1.0,
        decoration=False,
    ),
}
"""Named rooms: ``rich`` looks like a home; ``calm`` has few things and slow colours of its own;
``chart`` is painted by one rule, which a small network learns on a CPU within hours."""


def room_named(name: str) -> RoomSettings:
    """Return the settings called ``name``; raise ConfigurationError where there are none."""
    if name not in ROOMS:
        raise ConfigurationError(f"rooms '{name}' are unknown; choose one of {', '.join(ROOMS)}")
    return ROOMS[name]


def build_world(settings: RoomSettings, seed: int) -> World:
    """Return the world of a seed, on the CPU; equal settings and seeds give equal worlds."""
    return _Room(settings, np.random.default_rng([seed, 0x0A11])).build()


@dataclass(frozen=True)
class _Footprint:
    x: float
    y: float
    half_x: float
    half_y: float

    @classmethod
    def under(cls, low: Vector, size: Vector) -> _Footprint:
        return cls(low[0] + size[0] / 2, low[1] + size[1] / 2, size[0] / 2, size[1] / 2)

    def overlaps(self, other: _Footprint) -> bool:
        return (
            abs(self.x - other.x) < self.half_x + other.half_x + _GAP
            and abs(self.y - other.y) < self.half_y + other.half_y + _GAP
        )


class _Room:
    """Everything that is drawn for one room."""

    def __init__(self, settings: RoomSettings, rng: np.random.Generator) -> None:
        self.settings = settings
        self.rng = rng
        self.palette = Palette(rng, settings.contrast)
        lengths = [rng.uniform(a, b) for a, b in zip(settings.least, settings.most, strict=True)]
        self.x, self.y, self.z = (round(float(each), 3) for each in lengths)
        self.parts: list[Part] = []
        self.taken: list[_Footprint] = []
        self.lamps: list[Lamp] = []
        plain = self.palette.pale()
        self.walls = [self.palette.wall(plain) for _ in range(4)]
        self.floor = self.palette.floor()
        self.ceiling = self.palette.plain(linear(self.palette.hue, 0.03, 0.95), 0.8)

    def build(self) -> World:
        layout = str(self.rng.choice(self.settings.layouts))
        if layout == "corner":
            self._corner()
        elif layout == "doorway":
            self._doorway()
        self._ceiling_lamps(2 if layout == "doorway" else 1)
        if self.settings.decoration:
            self._window()
            self._skirting()
            self._door()
            self._paintings()
            self._rug()
        self._furnish()
        for number in range(self.settings.movers):
            self._person(number)
        ambient = float(self.rng.uniform(0.3, 0.45))
        ambient += self.settings.daylight * (_DAYLIGHT - ambient)
        return assemble_world(
            (self.x, self.y, self.z),
            self.parts,
            [*self.walls, self.floor, self.ceiling],
            self.lamps[:3],
            (ambient, 0.98 * ambient, 0.96 * ambient),
            self._tint(),
            _EVEN * self.settings.daylight,
        )

    def _tint(self) -> Tint:
        """Draw waves a few metres long, so that a colour tells where in the room one is."""
        if self.settings.chart:
            return chart_tint(self.settings.most, self.settings.tint)
        length = self.rng.uniform(2.5, 7.0, (9, 1))
        direction = self.rng.normal(size=(9, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        wave = 2 * math.pi * direction / length
        phase = self.rng.uniform(0, 2 * math.pi, 9)
        return replace(
            no_tint(),
            wave=torch.from_numpy(wave).float(),
            phase=torch.from_numpy(phase).float(),
            amount=torch.tensor([self.settings.tint]),
        )

    def _is_free(self, here: _Footprint) -> bool:
        return not any(here.overlaps(other) for other in self.taken)

    def _wall_block(self, low: Vector, size: Vector) -> None:
        self.parts.append(block(low, size, self.walls[0]))
        if low[2] <= 0:
            self.taken.append(_Footprint.under(low, size))

    def _corner(self) -> None:
        """Fill a corner, so that the room goes round it."""
        size_x, size_y = self.x * self.rng.uniform(0.3, 0.45), self.y * self.rng.uniform(0.3, 0.45)
        left, front = self.rng.random() < 0.5, self.rng.random() < 0.5
        low = (0.0 if left else self.x - size_x, 0.0 if front else self.y - size_y, 0.0)
        self._wall_block(low, (float(size_x), float(size_y), self.z))

    def _doorway(self) -> None:
        """Divide the room by a wall with an opening."""
        thick, opening, lintel = 0.14, 1.3, 2.1
        at = self.x * float(self.rng.uniform(0.42, 0.58))
        start = float(self.rng.uniform(0.4, self.y - opening - 0.4))
        end = start + opening
        self._wall_block((at, 0.0, 0.0), (thick, start, self.z))
        self._wall_block((at, end, 0.0), (thick, self.y - end, self.z))
        self._wall_block((at, start, lintel), (thick, opening, self.z - lintel))
        way = _Footprint(at + thick / 2, start + opening / 2, 0.8, opening / 2)
        self.taken.append(way)

    def _ceiling_lamps(self, count: int) -> None:
        warmth = float(self.rng.uniform(0.0, 1.0))
        color = (1.0, 0.97 - 0.12 * warmth, 0.92 - 0.3 * warmth)
        power = float(self.rng.uniform(4.0, 6.5)) * (self.x * self.y / 30) ** 0.6 / count**0.4
        power *= 1 - self.settings.daylight
        for number in range(count):
            x = self.x * (number + 0.5) / count + float(self.rng.uniform(-0.3, 0.3))
            y = self.y * float(self.rng.uniform(0.4, 0.6))
            shade = self.palette.glow((1.5 * color[0], 1.5 * color[1], 1.5 * color[2]))
            if self.rng.random() < 0.5:
                hang = 0.35
                self.parts.append(post((x, y, self.z - hang), 0.01, hang, shade))
                self.parts.append(ball((x, y, self.z - hang - 0.1), (0.16, 0.16, 0.12), shade))
                height = self.z - hang - 0.3
            else:
                self.parts.append(
                    block((x - 0.4, y - 0.25, self.z - 0.06), (0.8, 0.5, 0.06), shade)
                )
                height = self.z - 0.12
            light = (power * color[0], power * color[1], power * color[2])
            self.lamps.append(Lamp((x, y, height), light, 0.3))

    def _on_wall(
        self, along: float, height: float, size: tuple[float, float], thick: float, side: int
    ) -> tuple[Vector, Vector]:
        """Return corner and size of a plate on wall ``side`` (west, east, south, north)."""
        wide, high = size
        if side < 2:
            x = 0.0 if side == 0 else self.x - thick
            return (x, along - wide / 2, height), (thick, wide, high)
        y = 0.0 if side == 2 else self.y - thick
        return (along - wide / 2, y, height), (wide, thick, high)

    def _free_place(self, side: int, wide: float, thick: float) -> float | None:
        """Return where along a wall a plate fits beside what stands there."""
        length = self.y if side < 2 else self.x
        if length < wide + 0.4:
            return None
        for _ in range(_TRIES):
            along = float(self.rng.uniform(wide / 2 + 0.15, length - wide / 2 - 0.15))
            low, size = self._on_wall(along, 0.0, (wide, 1.0), thick, side)
            if self._is_free(_Footprint.under(low, size)):
                return along
        return None

    def _plate(self, side: int, wide: float, thick: float, reserve: float) -> float | None:
        """Find room for a plate on a wall, and keep it and ``reserve`` metres before it free."""
        along = self._free_place(side, wide, thick)
        if along is not None:
            low, size = self._on_wall(along, 0.0, (wide, 1.0), reserve, side)
            self.taken.append(_Footprint.under(low, size))
        return along

    def _window(self) -> None:
        side = int(self.rng.integers(0, 4))
        wide, high = float(self.rng.uniform(1.0, 2.0)), float(self.rng.uniform(0.9, 1.3))
        along = self._plate(side, wide + 0.2, 0.05, 0.05)
        if along is None:
            return
        frame = self.palette.plain((0.75, 0.74, 0.7))
        outer = self._on_wall(along, 0.85, (wide + 0.16, high + 0.16), 0.03, side)
        self.parts.append(block(*outer, frame))
        for half in (-1, 1):
            pane = self._on_wall(along + half * wide / 4, 0.93, (wide / 2 - 0.04, high), 0.04, side)
            self.parts.append(block(*pane, self.palette.view()))
        sill = self._on_wall(along, 0.81, (wide + 0.3, 0.05), 0.16, side)
        self.parts.append(block(*sill, frame))
        (x, y, _), (sx, sy, _) = outer
        inward = ((0.25, 0.0), (-0.25, 0.0), (0.0, 0.25), (0.0, -0.25))[side]
        strength = float(self.rng.uniform(1.2, 3.0))
        light: Color = (0.85 * strength, 0.95 * strength, 1.1 * strength)
        place = (x + sx / 2 + inward[0], y + sy / 2 + inward[1], 0.85 + high / 2)
        self.lamps.append(Lamp(place, light, 0.4))

    def _door(self) -> None:
        side = int(self.rng.integers(0, 4))
        along = self._plate(side, 1.1, 0.05, 0.7)
        if along is None:
            return
        frame = self.palette.plain((0.7, 0.69, 0.66))
        self.parts.append(block(*self._on_wall(along, 0.0, (1.04, 2.08), 0.03, side), frame))
        self.parts.append(
            block(*self._on_wall(along, 0.0, (0.9, 2.0), 0.045, side), self.palette.wood())
        )
        (x, y, _), (sx, sy, _) = self._on_wall(along + 0.36, 1.0, (0.06, 0.06), 0.09, side)
        knob = (x + sx / 2, y + sy / 2, 1.02)
        self.parts.append(ball(knob, (0.035, 0.035, 0.035), self.palette.plain((0.5, 0.45, 0.3))))

    def _paintings(self) -> None:
        for side in range(4):
            if self.rng.random() > 0.75:
                continue
            wide, high = float(self.rng.uniform(0.5, 1.2)), float(self.rng.uniform(0.4, 0.8))
            along = self._free_place(side, wide + 0.1, 0.05)
            if along is None:
                continue
            base = float(self.rng.uniform(1.25, 1.45))
            frame = self.palette.plain(linear(self.palette.wood_hue, 0.5, 0.25))
            self.parts.append(
                block(*self._on_wall(along, base, (wide + 0.08, high + 0.08), 0.025, side), frame)
            )
            canvas = self._on_wall(along, base + 0.04, (wide, high), 0.035, side)
            self.parts.append(block(*canvas, self.palette.painting()))

    def _skirting(self) -> None:
        material = self.palette.plain((0.65, 0.64, 0.6))
        for side in range(4):
            length = self.y if side < 2 else self.x
            plate = self._on_wall(length / 2, 0.0, (length, 0.09), 0.015, side)
            self.parts.append(block(*plate, material))

    def _rug(self) -> None:
        if self.rng.random() < 0.7:
            wide, deep = float(self.rng.uniform(1.2, 2.6)), float(self.rng.uniform(1.0, 2.0))
            x = self.x / 2 + float(self.rng.uniform(-0.6, 0.6))
            y = self.y / 2 + float(self.rng.uniform(-0.6, 0.6))
            here = _Footprint(x, y, wide / 2, deep / 2)
            if self._is_free(here):
                low = (x - wide / 2, y - deep / 2, 0.0)
                self.parts.append(block(low, (wide, deep, 0.012), self.palette.fabric()))

    def _furnish(self) -> None:
        """Place pieces until there are enough or no more fit; the floor stays walkable."""
        fewest, most = self.settings.furniture
        wanted = int(self.rng.integers(fewest, most + 1))
        limit = 0.42 * self.x * self.y
        area = 0.0
        for number in range(wanted):
            at_wall = number % 3 != 2
            makers: tuple[Maker, ...] = AT_WALLS if at_wall else FREE_STANDING
            piece = makers[int(self.rng.integers(0, len(makers)))](self.palette)
            if area + 4 * piece.half_x * piece.half_y > limit:
                continue
            if self._place(piece, at_wall):
                area += 4 * piece.half_x * piece.half_y

    def _place(self, piece: Piece, at_wall: bool) -> bool:
        for _ in range(_TRIES):
            x, y, angle, half_x, half_y = self._somewhere(piece, at_wall)
            inside = half_x < x < self.x - half_x and half_y < y < self.y - half_y
            here = _Footprint(x, y, half_x, half_y)
            if inside and self._is_free(here):
                self.taken.append(here)
                low = max(part.centre[2] + part.half[2] for part in piece.parts)
                scale = min(1.0, (self.z - 0.02) / low)
                for part in piece.parts:
                    self.parts.append(part.squeezed(scale).placed(x, y, angle))
                return True
        return False

    def _somewhere(self, piece: Piece, at_wall: bool) -> tuple[float, float, float, float, float]:
        """Return place, angle and half floor space along x and y for a piece."""
        if at_wall:
            side = int(self.rng.integers(0, 4))
            deep, wide = piece.half_y + 0.03, piece.half_x
            along = float(self.rng.uniform(0.0, 1.0))
            if side < 2:
                y = wide + 0.05 + along * max(self.y - 2 * wide - 0.1, 0)
                x = deep if side == 0 else self.x - deep
                return x, y, math.pi / 2 if side == 0 else -math.pi / 2, deep - 0.02, wide
            x = wide + 0.05 + along * max(self.x - 2 * wide - 0.1, 0)
            y = deep if side == 2 else self.y - deep
            return x, y, math.pi if side == 2 else 0.0, wide, deep - 0.02
        angle = float(self.rng.uniform(-0.35, 0.35)) + math.pi / 2 * int(self.rng.integers(0, 4))
        cosine, sine = abs(math.cos(angle)), abs(math.sin(angle))
        half_x = cosine * piece.half_x + sine * piece.half_y
        half_y = sine * piece.half_x + cosine * piece.half_y
        margin = 0.7
        x = float(self.rng.uniform(margin + half_x, max(self.x - margin - half_x, margin + half_x)))
        y = float(self.rng.uniform(margin + half_y, max(self.y - margin - half_y, margin + half_y)))
        return x, y, angle, half_x, half_y

    def _person(self, number: int) -> None:
        """Add somebody who walks to and fro where the floor is free."""
        for _ in range(4 * _TRIES):
            reach = float(self.rng.uniform(0.3, 0.9))
            along_x = bool(self.rng.random() < 0.5)
            half_x, half_y = (reach + 0.25, 0.25) if along_x else (0.25, reach + 0.25)
            x = float(self.rng.uniform(half_x, self.x - half_x))
            y = float(self.rng.uniform(half_y, self.y - half_y))
            here = _Footprint(x, y, half_x, half_y)
            if not self._is_free(here):
                continue
            self.taken.append(here)
            sway = (reach, 0.0, 0.0) if along_x else (0.0, reach, 0.0)
            pulse = (float(self.rng.uniform(0.4, 0.9)), float(self.rng.uniform(0, 6.28)))
            skin = self.palette.plain(linear(0.07, 0.45, float(self.rng.uniform(0.45, 0.85))))
            body = [
                post((x, y, 0.0), 0.13, 0.85, self.palette.plain(linear(0.6, 0.4, 0.3))),
                post((x, y, 0.85), 0.19, 0.58, self.palette.fabric()),
                ball((x, y, 1.56), (0.1, 0.1, 0.13), skin),
            ]
            self.parts += [replace(part, sway=sway, pulse=pulse) for part in body]
            return
