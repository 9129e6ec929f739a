# SPDX-License-Identifier: Apache-2.0
"""Where a camera may be, and the way from one such place to another."""

from __future__ import annotations

import heapq
import math

import numpy as np
import torch
from numpy.typing import NDArray

from xsvggt_ros.errors import ConfigurationError
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
