# SPDX-License-Identifier: Apache-2.0
"""How cameras move: as people, robots and hands move them, never through anything.

They move within the free space of a room, which is a grid over its floor.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.synthetic.cameras import poses_looking_along
from xsvggt_ros.synthetic.world import World

CELL = 0.1
"""Metres between two places of the grid."""

_PHASES = 8
"""Times of a moving solid's swing that are looked at."""

_WIDE = 0.9
"""Metres of clearance beyond which a way gets no better."""

_NEIGHBOURS = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]


class FreeSpace:
    """A grid over the floor, with the clearance of a camera at some heights."""

    def __init__(self, world: World, heights: tuple[float, ...], margin: float) -> None:
        """Look at each place of the grid.

        Args:
            world: of one room, unbatched.
            heights: metres above the floor at which the camera may be.
            margin: metres that any surface must be away.

        Raises:
            ConfigurationError: there is no such place.

        """
        size = world.high.tolist()
        self._shape = (int(size[0] / CELL) + 1, int(size[1] / CELL) + 1)
        xs, ys = np.arange(self._shape[0]) * CELL, np.arange(self._shape[1]) * CELL
        x, y = np.meshgrid(xs, ys, indexing="ij")
        levels = [np.stack([x, y, np.full_like(x, h)], axis=-1).reshape(-1, 3) for h in heights]
        points = torch.from_numpy(np.concatenate(levels)).float()
        least = clearance_over_time(world, points, _times(world))
        self.clearance = least.reshape(len(heights), *self._shape).min(axis=0)
        self.margin = margin
        self._free = self._largest_part(self.clearance > margin)
        self.places = np.argwhere(self._free)
        if not len(self.places):
            raise ConfigurationError(
                f"no place in this room is {margin} m away from everything at heights of {heights} "
                "m; take fewer pieces of furniture, a greater room or another seed"
            )

    def _largest_part(self, free: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the largest connected part of the free cells."""
        left = free.copy()
        best = np.zeros_like(free)
        while left.any():
            part = np.zeros_like(free)
            part[tuple(np.argwhere(left)[0])] = True
            count = 0
            while part.sum() != count:
                count = int(part.sum())
                part[1:] |= part[:-1]
                part[:-1] |= part[1:]
                part[:, 1:] |= part[:, :-1]
                part[:, :-1] |= part[:, 1:]
                part &= free
            if count > best.sum():
                best = part
            left &= ~part
        return best

    def is_free(self, x: float, y: float) -> bool:
        """Return whether a place lies in the part that ways are planned in."""
        column, row = round(x / CELL), round(y / CELL)
        inside = 0 <= column < self._shape[0] and 0 <= row < self._shape[1]
        return inside and bool(self._free[column, row])

    def draw(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return a random free place [2], metres, rather one with much room around it."""
        weight = np.minimum(self.clearance[self._free], _WIDE) ** 2
        place = self.places[rng.choice(len(self.places), p=weight / weight.sum())]
        metres: NDArray[np.float64] = place * CELL
        return metres

    def widest(self) -> NDArray[np.float64]:
        """Return the place [2] with most room around it."""
        masked = np.where(self._free, self.clearance, -np.inf)
        cell = np.unravel_index(int(masked.argmax()), self._shape)
        return np.array(cell, dtype=np.float64) * CELL

    def room_around(self, place: NDArray[np.float64]) -> float:
        """Return the metres from a place [2] to the nearest surface, at the grid's heights."""
        return float(self.clearance[self._cell(place)])

    def way(self, start: NDArray[np.float64], goal: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the places [n, 2] of a short way that likes to keep clear of things."""
        first, last = self._cell(start), self._cell(goal)
        cost: dict[tuple[int, int], float] = {first: 0.0}
        came: dict[tuple[int, int], tuple[int, int]] = {}
        queue = [(0.0, first)]
        while queue:
            _, here = heapq.heappop(queue)
            if here == last:
                break
            for step in _NEIGHBOURS:
                there = (here[0] + step[0], here[1] + step[1])
                if not self._passable(there):
                    continue
                near = max(0.0, _WIDE - float(self.clearance[there])) / _WIDE
                spent = cost[here] + math.hypot(*step) * (1 + 4 * near * near)
                if spent < cost.get(there, math.inf):
                    cost[there], came[there] = spent, here
                    rest = math.hypot(there[0] - last[0], there[1] - last[1])
                    heapq.heappush(queue, (spent + rest, there))
        cells = [last]
        while cells[-1] != first:
            cells.append(came[cells[-1]])
        return np.array(cells[::-1], np.float64) * CELL

    def _cell(self, place: NDArray[np.float64]) -> tuple[int, int]:
        return round(float(place[0]) / CELL), round(float(place[1]) / CELL)

    def _passable(self, cell: tuple[int, int]) -> bool:
        inside = 0 <= cell[0] < self._shape[0] and 0 <= cell[1] < self._shape[1]
        return inside and bool(self._free[cell])


def _times(world: World) -> list[float]:
    """Return times, in seconds, at which moving solids are all over their ways."""
    if not world.moves:
        return [0.0]
    rates = torch.cat([each.pulse[:, 0] for each in world.solids])
    slowest = float(rates[rates > 0].min())
    return [2 * math.pi / slowest * k / _PHASES for k in range(_PHASES)]


def clearance_over_time(
    world: World, points: torch.Tensor, times: list[float]
) -> NDArray[np.float64]:
    """Return the least clearance of points [P, 3] over some times, [P] metres."""
    found = [world.at(torch.tensor(each)).clearance(points) for each in times]
    return torch.stack(found).amin(dim=0).double().numpy()


MOTIONS = ("walk", "drive", "pan", "loop", "stop", "handheld", "drift")
"""walk: a person strolls. drive: a robot near the floor. pan: turns on the spot, with the
camera ahead of the axis that its body turns about, so that its path is an arc. loop: laps that
come back to where they began. stop: walks and halts. handheld: slow and shaky. drift: a short, even
glide in one direction, for training."""

LEAST_CLEARANCE = 0.12
"""Metres that every camera keeps from every surface."""

HIGHEST_RATE = 1000.0
"""Images per second; above it, little moves from one to the next, and stamps come close."""

_AHEAD = (0.25, 0.45)
"""Metres from the axis of a body that turns to a camera in its hands or on its mast."""

_SWAY = 0.05
"""Metres by which such an axis moves, standard deviation."""

_SPACING = 0.05
_ATTEMPTS = 12

Array = NDArray[np.float64]


@dataclass(frozen=True)
class MotionSettings:
    """How a camera moves.

    Attributes:
        kind: one of MOTIONS.
        rate: images per second, at most HIGHEST_RATE.
        speed: metres per second where nothing holds it up; None = what suits the kind.

    Raises:
        ConfigurationError: an unknown kind, a rate or speed that is not positive, or a rate above
            HIGHEST_RATE.

    """

    kind: str = "walk"
    rate: float = 10.0
    speed: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in MOTIONS:
            raise ConfigurationError(
                f"motion '{self.kind}' is unknown; choose one of {', '.join(MOTIONS)}"
            )
        for name, value in (("rate", self.rate), ("speed", self.speed)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigurationError(f"motion {name} is {value}; it must be positive")
        if self.rate > HIGHEST_RATE:
            raise ConfigurationError(
                f"motion rate is {self.rate}; it must be at most {HIGHEST_RATE} images per second"
            )


@dataclass(frozen=True)
class _Style:
    """What tells one way of moving from another; radians, metres, Hz."""

    height: tuple[float, float]
    speed: float
    margin: float
    pitch: float
    glance: float
    bob: float
    shake: float
    turning: float


_STYLES = {
    "walk": _Style((1.3, 1.65), 0.7, 0.35, -0.16, 0.3, 0.015, 0.006, 1.5),
    "drive": _Style((0.35, 0.7), 0.5, 0.32, 0.02, 0.0, 0.0, 0.002, 1.5),
    "pan": _Style((1.2, 1.6), 0.0, 0.3, -0.1, 0.0, 0.004, 0.004, 0.7),
    "loop": _Style((1.2, 1.6), 0.6, 0.35, -0.14, 0.2, 0.01, 0.005, 1.5),
    "stop": _Style((1.2, 1.6), 0.6, 0.35, -0.14, 0.25, 0.01, 0.005, 1.5),
    "handheld": _Style((1.25, 1.6), 0.35, 0.35, -0.16, 0.5, 0.012, 0.028, 1.5),
    "drift": _Style((1.1, 1.6), 0.5, 0.3, -0.12, 0.0, 0.0, 0.0, 0.5),
}


def plan_motion(world: World, settings: MotionSettings, frames: int, seed: int) -> Array:
    """Return camera-to-world poses, float64 [frames, 4, 4], in the world's z-up frame.

    Every pose is LEAST_CLEARANCE from every surface at its time, moving ones included.

    Args:
        world: in which the camera moves.
        settings: how it moves.
        frames: number of poses.
        seed: equal ones give equal poses.

    Raises:
        ConfigurationError: fewer than 1 frame, or a room in which there is no way.

    """
    if frames < 1:
        raise ConfigurationError(f"a sequence of {frames} frames is none; ask for at least 1")
    style = _STYLES[settings.kind]
    rng = np.random.default_rng([seed, 0x3071])
    base = float(rng.uniform(*style.height))
    base = min(base, float(world.high[2]) - 0.4)
    space = _free_space(world, base, style.margin)
    for attempt in range(_ATTEMPTS):
        planner = _Planner(space, settings, style, frames, base, rng)
        poses = planner.poses(smoothing=0.35 * 0.75**attempt)
        if _keeps_clear(world, poses, settings.rate):
            return poses
    still = _Planner(space, MotionSettings("pan", settings.rate), _STYLES["pan"], frames, base, rng)
    poses = still.poses(smoothing=0.3)
    if not _keeps_clear(world, poses, settings.rate):
        raise ConfigurationError(
            f"no way of {frames} frames was found that keeps {LEAST_CLEARANCE} m from everything; "
            "take fewer pieces of furniture, a greater room or another seed"
        )
    return poses


def _free_space(world: World, height: float, margin: float) -> FreeSpace:
    heights = (height - 0.05, height + 0.05)
    for share in (1.0, 0.7):
        try:
            return FreeSpace(world, heights, share * margin)
        except ConfigurationError:
            continue
    return FreeSpace(world, heights, LEAST_CLEARANCE + 0.06)


def _keeps_clear(world: World, poses: Array, rate: float) -> bool:
    points = torch.from_numpy(poses[:, :3, 3]).float()
    if not world.moves:
        return bool((world.clearance(points) > LEAST_CLEARANCE).all())
    return all(
        float(world.at(torch.tensor(index / rate)).clearance(point[None])) > LEAST_CLEARANCE
        for index, point in enumerate(points)
    )


def wobble(
    time: Array, rng: np.random.Generator, slowest: float, fastest: float, waves: int = 4
) -> Array:
    """Return smooth noise of about unit size over ``time``, [n].

    Args:
        time: seconds, [n].
        rng: draws frequencies and phases.
        slowest: Hz.
        fastest: Hz.
        waves: that are added up.

    """
    frequency = rng.uniform(slowest, fastest, waves)
    phase = rng.uniform(0, 2 * math.pi, waves)
    waves_over_time = np.sin(2 * math.pi * frequency * time[:, None] + phase)
    return np.asarray(waves_over_time.mean(axis=1) * math.sqrt(2.0))


def smoothed(values: Array, width: float, *, closed: bool = False) -> Array:
    """Return rows [n, ...] averaged by a Gaussian; the ends stay in place.

    Args:
        values: rows, [n, ...].
        width: of the Gaussian, in rows.
        closed: whether the first row follows the last.

    """
    if width < 0.1 or len(values) < 3:
        return values
    reach = max(1, round(3 * width))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    kernel /= kernel.sum()
    flat = values.reshape(len(values), -1)
    if closed:
        rows = np.arange(-reach, len(values) + reach) % len(values)
        padded = flat[rows]
    else:
        # Mirrored through the end points, so that those do not move.
        inside = min(reach, len(values) - 1)
        before = 2 * flat[:1] - flat[inside:0:-1]
        after = 2 * flat[-1:] - flat[-2 : -inside - 2 : -1]
        padded = np.concatenate([before, flat, after])
        short = reach - inside
        padded = np.pad(padded, ((short, short), (0, 0)), mode="edge")
    columns = [np.convolve(column, kernel, mode="valid") for column in padded.T]
    return np.stack(columns, axis=1).reshape(values.shape)


class _Planner:
    """One attempt at a way."""

    def __init__(
        self,
        space: FreeSpace,
        settings: MotionSettings,
        style: _Style,
        frames: int,
        height: float,
        rng: np.random.Generator,
    ) -> None:
        self.space, self.settings, self.style = space, settings, style
        self.frames, self.height, self.rng = frames, height, rng
        self.time = np.arange(frames) / settings.rate
        self.speed = settings.speed or style.speed

    def poses(self, smoothing: float) -> Array:
        """Return poses along a way whose corners are rounded over ``smoothing`` metres."""
        kind = self.settings.kind
        if kind == "pan":
            ground, heading = self._turn()
        elif kind == "drift":
            ground, heading = self._glide()
        else:
            ground, heading = self._stroll(smoothing)
        return self._with_camera(ground, heading)

    def _turn(self) -> tuple[Array, Array]:
        """Stand where there is room and turn about, the camera ahead of what turns."""
        rng = self.rng
        sway = np.stack([wobble(self.time, rng, 0.05, 0.3) for _ in range(2)], axis=1)
        rate = math.radians(float(rng.uniform(10, 22))) * float(rng.choice([-1.0, 1.0]))
        heading = rng.uniform(0, 2 * math.pi) + rate * self.time
        heading += 0.15 * wobble(self.time, rng, 0.05, 0.2)
        middle = self.space.widest()
        sway *= _SWAY
        room = self.space.room_around(middle) - LEAST_CLEARANCE - 2 * _SWAY
        reach = min(float(rng.uniform(*_AHEAD)), max(room, 0.0))
        ahead = np.stack([np.cos(heading), np.sin(heading)], axis=1)
        return middle + sway + reach * ahead, heading

    def _glide(self) -> tuple[Array, Array]:
        """Move evenly, in any direction, turning a little, for as long as there is room."""
        rng = self.rng
        for _ in range(60):
            start = self.space.draw(rng)
            heading = float(rng.uniform(0, 2 * math.pi))
            course = heading + float(rng.normal(0, 0.9))
            reach = self.speed * float(rng.uniform(0.4, 1.3)) * self.time
            bend = float(rng.normal(0, 0.25)) * self.time
            step = np.stack([np.cos(course + bend / 2), np.sin(course + bend / 2)], axis=1)
            ground = start + reach[:, None] * step
            turn = float(rng.normal(0, 0.3)) * self.time
            if all(self.space.is_free(x, y) for x, y in ground):
                return ground, heading + turn
        return np.repeat(start[None], self.frames, axis=0), heading + turn

    def _stroll(self, smoothing: float) -> tuple[Array, Array]:
        """Walk from place to place."""
        closed = self.settings.kind == "loop"
        travelled = self._travelled()
        way = self._way(float(travelled[-1]) + 1.0, closed)
        way = smoothed(_resampled(way, _SPACING), smoothing / _SPACING, closed=closed)
        if closed:
            way = np.concatenate([way, way[:1]])
        steps = np.linalg.norm(np.diff(way, axis=0), axis=1)
        along = np.concatenate([[0.0], np.cumsum(steps)])
        where = travelled % along[-1] if closed else np.minimum(travelled, along[-1])
        ground = np.stack([np.interp(where, along, way[:, axis]) for axis in (0, 1)], axis=1)
        # Nothing with a mass turns back from one image to the next.
        ground = smoothed(ground, 0.4 * self.settings.rate)
        return ground, self._heading(way, along, where, closed)

    def _travelled(self) -> Array:
        """Return metres gone at each frame."""
        pace = self.speed * (1 + 0.2 * wobble(self.time, self.rng, 0.03, 0.15))
        if self.settings.kind == "stop":
            wave = np.sin(2 * math.pi * self.time / float(self.rng.uniform(6, 9)))
            pace = pace * np.clip(0.5 + 1.6 * wave, 0, 1)
        start = np.clip(self.time / 0.8, 0, 1) if self.frames > 30 else 1.0
        pace = pace * start
        return np.concatenate([[0.0], np.cumsum(pace)[:-1]]) / self.settings.rate

    def _way(self, length: float, closed: bool) -> Array:
        """Return a way of at least ``length`` metres, or a closed one."""
        rng, space = self.rng, self.space
        if closed:
            corners = self._around()
            legs = [
                space.way(a, b) for a, b in zip(corners, [*corners[1:], corners[0]], strict=True)
            ]
            return np.concatenate([leg[:-1] for leg in legs])
        place = space.draw(rng)
        way, gone = [place[None]], 0.0
        course = np.zeros(2)
        while gone < length:
            goals = np.stack([space.draw(rng) for _ in range(6)])
            there = goals - place
            # Far, and rather ahead than back.
            goal = goals[int((np.linalg.norm(there, axis=1) + there @ course).argmax())]
            leg = space.way(place, goal)
            if len(leg) < 2:
                if len(space.places) < 3:
                    break
                continue
            way.append(leg[1:])
            gone += float(np.linalg.norm(np.diff(leg, axis=0), axis=1).sum())
            end = goal - leg[-min(8, len(leg))]
            course = end / max(float(np.linalg.norm(end)), 0.1)
            place = goal
        return np.concatenate(way)

    def _around(self) -> list[Array]:
        """Return corners of a lap around the middle of the free space."""
        middle = self.space.places.mean(axis=0) * 0.1
        turn = float(self.rng.uniform(0, 2 * math.pi))
        corners = []
        for k in range(5):
            angle = turn + 2 * math.pi * k / 5
            side = np.array([math.cos(angle), math.sin(angle)])
            drawn = [self.space.draw(self.rng) for _ in range(12)]
            corners.append(max(drawn, key=lambda place: float((place - middle) @ side)))
        return [c for k, c in enumerate(corners) if k == 0 or math.dist(c, corners[k - 1]) > 0.3]

    def _heading(self, way: Array, along: Array, where: Array, closed: bool) -> Array:
        """Return where the camera points: along the way ahead, smoothed over time."""
        ahead = where + 0.4
        behind = where
        if closed:
            ahead, behind = ahead % along[-1], behind % along[-1]
        else:
            ahead = np.minimum(ahead, along[-1])
            behind = np.minimum(where, along[-1] - 0.4)
        dx, dy = (
            np.interp(ahead, along, way[:, axis]) - np.interp(behind, along, way[:, axis])
            for axis in (0, 1)
        )
        heading = np.unwrap(np.arctan2(dy, dx))
        heading = smoothed(heading, self.style.turning * self.settings.rate)
        glance = self.style.glance * wobble(self.time, self.rng, 0.03, 0.12)
        return heading + glance

    def _with_camera(self, ground: Array, heading: Array) -> Array:
        """Add height, pitch, roll and whatever shakes."""
        style, rng, time = self.style, self.rng, self.time
        bob = style.bob * np.sin(2 * math.pi * 1.7 * time + rng.uniform(0, 6.28))
        height = self.height + bob
        pitch = style.pitch + float(rng.normal(0, 0.04)) + 0.05 * wobble(time, rng, 0.03, 0.15)
        if self.settings.kind == "drift":
            height = self.height + float(rng.normal(0, 0.05)) * time
            height = np.clip(height, self.height - 0.1, self.height + 0.1)
            pitch = style.pitch + float(rng.normal(0, 0.08)) + float(rng.normal(0, 0.1)) * time
        shakes = [style.shake * wobble(time, rng, 0.6, 3.0) for _ in range(3)]
        roll = shakes[0] + 0.4 * style.shake * wobble(time, rng, 0.1, 0.4)
        positions = np.concatenate([ground, height[:, None]], axis=1)
        return poses_looking_along(positions, heading + shakes[1], pitch + shakes[2], roll)


def _resampled(way: Array, spacing: float) -> Array:
    """Return the places of a way at an even distance."""
    steps = np.linalg.norm(np.diff(way, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    count = max(2, round(float(along[-1]) / spacing))
    where = np.linspace(0, along[-1], count)
    return np.stack([np.interp(where, along, way[:, axis]) for axis in (0, 1)], axis=1)
