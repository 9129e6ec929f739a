# SPDX-License-Identifier: Apache-2.0
"""What stands where: landmarks in the open, fields, rooms, and houses with doorways."""

from __future__ import annotations

import torch
from torch import Tensor

from xsvggt_ros.synthetic.scenes.paths import CURVE_POINTS, round_curves, smooth_tours
from xsvggt_ros.synthetic.scenes.scene import (
    BURIED,
    FAR,
    FIRST_BOX,
    Draw,
    Scenes,
    Textures,
    constant,
)

WORLDS = ("landmarks", "field", "room", "house")
"""landmarks: glowing posts of own colours on plain ground, no walls. field: lit posts and boxes on
patterned ground. room: four patterned walls with furniture. house: four rooms in a square, a
doorway between each and the next."""
LANDMARKS, FIELD, ROOM, HOUSE = range(4)

POSTS = 20
_WALLS = 20
_FURNITURE = 10
_CANDIDATES = 3
_THICK = 0.06
"""Half the thickness of a wall, metres."""
_HIGH = 4.0
"""Walls reach above every ceiling."""


def curves(draw: Draw, world: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
    """Return the closed curves that cameras follow, and the boxes of houses' walls.

    Returns:
        curves [worlds, CURVE_POINTS, 2], and walls [worlds, _WALLS, 4]: centre x, y, half sides.

    """
    free = round_curves(draw, motion)
    tours, house = _house(draw)
    inside = (world == HOUSE)[:, None, None]
    curve = torch.where(inside, tours, free)
    return curve, torch.where(inside, house, _room(draw, free, world == ROOM))


def _room(draw: Draw, curve: Tensor, there: Tensor) -> Tensor:
    """Return four walls around a curve."""
    low = curve.amin(dim=1) - draw.spread(0.6, 2.5, 2)
    high = curve.amax(dim=1) + draw.spread(0.6, 2.5, 2)
    middle, half = (low + high) / 2, (high - low) / 2
    walls = torch.full((len(curve), _WALLS, 4), _THICK, device=curve.device)
    walls[..., :2].fill_(10 * FAR)
    for index, axis in enumerate((0, 0, 1, 1)):
        side = 1 if index % 2 else -1
        walls[:, index, :2] = middle
        walls[:, index, axis] += side * half[:, axis]
        walls[:, index, 2 + (1 - axis)] = half[:, 1 - axis] + _THICK
    walls[..., :2] = torch.where(there[:, None, None], walls[..., :2], 10 * FAR)
    return walls


def _house(draw: Draw) -> tuple[Tensor, Tensor]:
    """Return a tour through four rooms about the origin, and their walls without lintels."""
    reach = draw.uniform(2.8, 5.0, 2, 2)  # metres from the origin: [axis, side]
    walls, corners = [], []
    door = draw.uniform(0.5, 0.75, 2)
    gaps = draw.uniform(0.3, 0.7, 4)
    quadrants = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    for index, (sx, sy) in enumerate(quadrants):
        rx, ry = reach[:, 0, (sx + 1) // 2], reach[:, 1, (sy + 1) // 2]
        zero, thin = torch.zeros_like(rx), torch.full_like(rx, _THICK)
        walls.append(torch.stack([sx * rx, sy * ry / 2, thin, ry / 2 + thin], dim=-1))
        walls.append(torch.stack([sx * rx / 2, sy * ry, rx / 2 + thin, thin], dim=-1))
        # The wall to the next room lies on an axis, with a doorway in it.
        upright = index % 2 == 0
        length, side = (ry, sy) if upright else (rx, sx)
        half = door[:, index % 2]
        gap = half + 0.15 + gaps[:, index] * (length - 2 * half - 0.3)
        near, far = (gap - half) / 2, (length + gap + half) / 2
        for middle, reached in ((near, (gap - half) / 2), (far, (length - gap - half) / 2)):
            place = side * middle
            parts = [zero, place, thin, reached] if upright else [place, zero, reached, thin]
            walls.append(torch.stack(parts, dim=-1))
        # Wanders through its own room, then straight through the doorway.
        inner = torch.stack([sx * rx, sy * ry], dim=-1) * draw.uniform(0.45, 0.75, 2)
        corners.append(inner)
        forward = sy if upright else -sx
        for step in (forward * 0.7, -forward * 0.7):
            away = torch.full_like(zero, step)
            parts = [away, side * gap] if upright else [side * gap, away]
            corners.append(torch.stack(parts, dim=-1))
    whole = torch.stack(walls, dim=1)
    rest = torch.full((len(whole), _WALLS - whole.shape[1], 4), _THICK, device=draw.device)
    rest[..., :2].fill_(10 * FAR)
    return smooth_tours(torch.stack(corners, dim=1)), torch.cat([whole, rest], dim=1)


def _clear_places(draw: Draw, curve: Tensor, count: int, room: Tensor, clearance: Tensor) -> Tensor:
    """Return ``count`` places [worlds, count, 2] away from a curve, the least crowded first.

    Args:
        draw: chances.
        curve: [worlds, CURVE_POINTS, 2].
        count: how many.
        room: least and greatest coordinates, [worlds, 2, 2].
        clearance: metres from the curve that are wanted, [worlds, 1].

    """
    low, high = room[:, :1], room[:, 1:]
    tried = torch.lerp(
        low.expand(-1, count * _CANDIDATES, -1),
        high.expand(-1, count * _CANDIDATES, -1),
        draw.share(count * _CANDIDATES, 2),
    )
    sparse = curve[:, :: CURVE_POINTS // 128]
    away = torch.cdist(tried, sparse).amin(dim=-1)
    # Stable: of those that are clear the first ones are taken, which favours no place.
    order = (away < clearance).to(torch.int8).argsort(dim=1, stable=True)[:, :count]
    return tried.gather(1, order.unsqueeze(-1).expand(-1, -1, 2))


def build(draw: Draw, world: Tensor, curve: Tensor, walls: Tensor, *, boxes: bool = True) -> Scenes:
    """Return worlds around curves.

    Args:
        draw: chances.
        world: index into WORLDS, [worlds].
        curve: what cameras follow; everything keeps away from it.
        walls: as :func:`curves` returns them.
        boxes: False where all worlds are landmarks, which have neither boxes nor patterns.

    """
    indoors = (world >= ROOM)[:, None]
    margin = torch.where(indoors, 0.3, draw.spread(1.5, 3.0, 1)).unsqueeze(-1)
    room = torch.stack([curve.amin(dim=1), curve.amax(dim=1)], dim=1)
    room = room + torch.cat([-margin, margin], dim=1)
    placed = _boxes(draw, world, curve, room, walls) if boxes else _no_boxes(curve)
    center = _clear_places(draw, curve, POSTS, room, draw.uniform(0.35, 0.6, 1))
    few = torch.where(indoors, 6, torch.where((world == FIELD)[:, None], 12, POSTS))
    there = torch.arange(POSTS, device=draw.device) < few
    height = draw.uniform(0.9, 3.2, POSTS)
    # As high as all views, so that a landmark is there wherever it is looked for.
    height = torch.where((world == LANDMARKS)[:, None], 6.0, height)
    height = torch.where(there, height, BURIED)
    ceiling = torch.where(indoors[:, 0], draw.uniform(2.3, 3.2), 10 * FAR)
    lamps = torch.cat([room[:, :1] + (room[:, 1:] - room[:, :1]) * draw.share(2, 2),
                       draw.uniform(1.8, 2.2, 2, 1)], dim=-1)  # fmt: skip
    return Scenes(
        *placed,
        post_center=center,
        post_radius=torch.where((world == LANDMARKS)[:, None], 0.15, draw.spread(0.05, 0.3, POSTS)),
        post_height=height,
        ceiling=ceiling,
        textures=_textures(draw, world, placed[0].shape[1]),
        lamps=lamps,
        lamp_color=draw.spread(0.5, 3.0, 2, 1) * draw.uniform(0.8, 1.0, 2, 3),
        ambient=draw.spread(0.3, 0.9, 1) * draw.uniform(0.9, 1.0, 3),
        sky=draw.uniform(0.0, 0.8, 2, 1) * draw.uniform(0.7, 1.0, 2, 3),
        patterned=boxes,
    )


def _boxes(
    draw: Draw, world: Tensor, curve: Tensor, room: Tensor, walls: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return centres, half sides and angles of walls and furniture."""
    furniture = _clear_places(draw, curve, _FURNITURE, room, draw.uniform(0.6, 0.9, 1))
    half = draw.spread(0.12, 0.45, _FURNITURE, 3)
    half[..., 2] = draw.spread(0.2, 1.1, _FURNITURE)
    center = torch.cat([furniture, half[..., 2:]], dim=-1)
    center[..., 2] = torch.where((world == LANDMARKS)[:, None], BURIED, center[..., 2])
    upright = torch.full_like(walls[..., :1], _HIGH / 2)
    yaw = draw.uniform(0, 3.1416, _FURNITURE)
    return (
        torch.cat([torch.cat([walls[..., :2], upright], dim=-1), center], dim=1),
        torch.cat([torch.cat([walls[..., 2:], upright], dim=-1), half], dim=1),
        torch.cat([torch.zeros_like(walls[..., 0]), yaw], dim=1),
    )


def _no_boxes(curve: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    sides = curve.new_zeros(len(curve), 0, 3)
    return sides, sides, sides[..., 0]


def _vivid(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Return colours [..., 3] of a hue in [0, 1)."""
    thirds = constant((0.0, 2 / 3, 1 / 3), hue.device)
    ramp = ((hue.unsqueeze(-1) + thirds) % 1.0 * 6 - 3).abs() - 1
    return value.unsqueeze(-1) * (1 - saturation.unsqueeze(-1) * (1 - ramp.clamp(0, 1)))


def _own_colors(draw: Draw) -> Tensor:
    """Return a colour for each post, [worlds, POSTS, 3]: half as many hues, two tones."""
    slot = draw.order(POSTS)
    hue = (slot // 2 + draw.uniform(-0.2, 0.2, POSTS)) / (POSTS // 2) + draw.share(1)
    light = slot % 2 == 0
    saturation = torch.where(light, draw.uniform(0.75, 1.0, POSTS), draw.uniform(0.55, 1.0, POSTS))
    value = torch.where(light, draw.uniform(0.85, 1.0, POSTS), draw.uniform(0.2, 0.35, POSTS))
    return _vivid(hue, saturation, value)


def _textures(draw: Draw, world: Tensor, boxes: int) -> Textures:
    surfaces = FIRST_BOX + boxes + POSTS
    colors = _vivid(
        draw.share(surfaces, 3),
        draw.uniform(0.0, 1.0, surfaces, 3) ** 1.5,
        draw.uniform(0.1, 1.0, surfaces, 3),
    )
    amount = draw.uniform(0.3, 1.0, surfaces, 2)
    kind = draw.choice((0.6, 0.2, 0.2), surfaces)
    glow = draw.uniform(0.0, 0.3, surfaces)
    # Landmarks glow; three in four are plain, the others banded. Their ground is plain.
    landmarks = (world == LANDMARKS)[:, None]
    post = torch.arange(surfaces, device=draw.device) >= FIRST_BOX + boxes
    own = torch.zeros_like(colors)
    own[:, FIRST_BOX + boxes :] = _own_colors(draw).unsqueeze(2)
    own[:, FIRST_BOX + boxes :, 1] = _own_colors(draw)
    own[:, :FIRST_BOX] = draw.uniform(0.05, 0.5, 1, 1, 1) * draw.uniform(0.9, 1.0, 1, 1, 3)
    own[:, :FIRST_BOX, 1:] *= draw.uniform(0.5, 1.0, 1, 1, 1)
    banded = draw.chance(1 / 4, surfaces).float() * post
    return Textures(
        colors=torch.where(landmarks[..., None, None], own, colors),
        scale=torch.where(landmarks & post, draw.uniform(0.5, 1.5, surfaces),
                          draw.spread(0.12, 2.0, surfaces)),
        kind=torch.where(landmarks, torch.where(post, 2, 0), kind),
        amount=torch.where(
            landmarks[..., None], torch.stack([banded, torch.zeros_like(banded)], dim=-1), amount
        ),
        seed=(draw.share(surfaces) * 2**20).long(),
        glow=torch.where(landmarks, 1.0, glow),
    )  # fmt: skip
