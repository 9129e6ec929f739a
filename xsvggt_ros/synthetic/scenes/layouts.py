# SPDX-License-Identifier: Apache-2.0
"""Where cameras go through worlds of boxes and posts, and what stands along the way."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from xsvggt_ros.synthetic.scenes.scene import (
    BURIED,
    FAR,
    FIRST_BOX,
    Draw,
    Scenes,
    Textures,
    constant,
)

CURVE_POINTS = 512
"""Points of a curve that is kept as a table."""

MOTIONS = ("drive", "walk", "loop", "pan", "handheld")
"""drive: low, eyes ahead. walk: a person who glances about. loop: looks outwards or inwards. pan:
turns on the spot, the camera at arm's length. handheld: slow and shaky, looking anywhere."""

_RADIUS = ((1.0, 2.4), (0.8, 2.2), (1.0, 2.4), (0.25, 0.45), (0.3, 0.9))
_HEIGHT = ((0.4, 0.8), (1.3, 1.7), (1.0, 1.7), (1.2, 1.6), (1.2, 1.6))
_GLANCE = (0.05, 0.35, 0.15, 0.05, 0.5)
_SHAKE = (0.002, 0.005, 0.004, 0.003, 0.012)
_BOB = (0.0, 0.02, 0.01, 0.01, 0.02)
_OFFSET = (0.15, 0.9, 0.0, 0.15, math.pi)
"""Radians by which a camera looks aside of its way at most; `loop` and `pan` look across it."""


@dataclass(frozen=True)
class Pace:
    """How fast cameras go.

    Attributes:
        laps: fewest and most rounds in a sequence.
        least_period: frames of a round at least.
        motions: how often each of MOTIONS is.
        returns: how often a camera goes forth and back instead of round.

    """

    laps: tuple[float, float] = (0.3, 1.6)
    least_period: float = 24.0
    motions: tuple[float, ...] = (2.0, 1.0, 1.0, 0.0, 0.0)
    returns: float = 0.15


@dataclass(frozen=True)
class Paths:
    """Cameras, camera-to-world [worlds, frames, 4, 4], optical axes x right, y down, z forward."""

    poses: Tensor


def round_curves(draw: Draw, motion: Tensor) -> Tensor:
    """Return bent ellipses as closed curves about the origin, [worlds, CURVE_POINTS, 2]."""
    low, high = constant(_RADIUS, draw.device)[motion].unbind(-1)
    radius = draw.uniform(low, high)
    angle = torch.arange(CURVE_POINTS, device=draw.device) * (2 * math.pi / CURVE_POINTS)
    bend = 1 + sum(
        draw.uniform(0, reach, 1) * torch.cos(k * angle + draw.uniform(0, 2 * math.pi, 1))
        for k, reach in ((2, 0.18), (3, 0.1))
    )
    width = draw.uniform(0.75, 1.25, 1)
    x, y = bend * angle.cos() * width, bend * angle.sin() / width
    turn = draw.uniform(0, 2 * math.pi, 1)
    curve = torch.stack([x * turn.cos() - y * turn.sin(), x * turn.sin() + y * turn.cos()], dim=-1)
    return curve * radius[:, None, None]


def smooth_tours(corners: Tensor, smoothing: int = 21) -> Tensor:
    """Return closed tours along ``corners`` [worlds, n, 2], even in length and rounded off."""
    following = corners.roll(-1, dims=1)
    lengths = (following - corners).norm(dim=-1)
    ends = lengths.cumsum(dim=1)
    share = torch.arange(CURVE_POINTS, device=corners.device) / CURVE_POINTS
    wanted = (share * ends[:, -1:]).contiguous()
    leg = torch.searchsorted(ends.contiguous(), wanted, right=True).clamp(max=corners.shape[1] - 1)
    part = 1 - (ends.gather(1, leg) - wanted) / lengths.gather(1, leg).clamp(min=1e-6)
    pair = leg.unsqueeze(-1).expand(-1, -1, 2)
    sharp = torch.lerp(corners.gather(1, pair), following.gather(1, pair), part.unsqueeze(-1))
    half = smoothing // 2
    kernel = torch.hann_window(smoothing + 2, periodic=False, device=corners.device)[1:-1]
    padded = functional.pad(sharp.transpose(1, 2), (half, half), mode="circular")
    kernel = (kernel / kernel.sum()).expand(2, 1, -1)
    return functional.conv1d(padded, kernel, groups=2).transpose(1, 2)


def _at(curve: Tensor, lap: Tensor) -> Tensor:
    """Return places [worlds, frames, 2] on curves at ``lap`` [worlds, frames], in rounds."""
    index = (lap % 1.0) * CURVE_POINTS
    before = index.floor()
    first = before.long() % CURVE_POINTS
    second = (first + 1) % CURVE_POINTS
    a, b = (curve.gather(1, i.unsqueeze(-1).expand(-1, -1, 2)) for i in (first, second))
    return torch.lerp(a, b, (index - before).unsqueeze(-1))


def _wave(draw: Draw, time: Tensor, periods: tuple[float, float]) -> Tensor:
    """Return slow changes of size 1, [worlds, frames]."""
    period = draw.spread(*periods, 1)
    return torch.sin(2 * math.pi * (time / period + draw.share(1)))


def cameras(draw: Draw, curve: Tensor, motion: Tensor, frames: int, pace: Pace) -> Paths:
    """Return cameras that follow ``curve`` [worlds, CURVE_POINTS, 2].

    Args:
        draw: chances.
        curve: in the world's frame.
        motion: index into MOTIONS, [worlds].
        frames: per world.
        pace: how fast.

    """

    def of_motion(values: tuple[float, ...]) -> Tensor:
        return constant(values, draw.device)[motion].unsqueeze(-1)

    time = torch.arange(frames, device=draw.device).float()
    period = (frames / draw.uniform(*pace.laps, 1)).clamp(min=pace.least_period)
    way = draw.sign(1)
    round_about = way * time / period
    swing = draw.uniform(0.15, 0.45, 1) * torch.sin(2 * math.pi * time / period)
    lap = torch.where(draw.chance(pace.returns, 1), swing, round_about) + draw.share(1)
    lap = lap + 0.02 * _wave(draw, time, (15, 60))
    place = _at(curve, lap)
    ahead = (_at(curve, lap + 0.012) - _at(curve, lap - 0.012)) * way.unsqueeze(-1)
    tangent = torch.atan2(ahead[..., 1], ahead[..., 0])

    across = math.pi / 2 * draw.sign(1)
    # A camera at arm's length looks away from the body that turns.
    outward = -math.pi / 2 * way
    aside = of_motion(_OFFSET) * draw.uniform(-1, 1, 1)
    is_loop, is_pan = (motion == MOTIONS.index(name) for name in ("loop", "pan"))
    aside = aside + torch.where(is_loop.unsqueeze(-1), across, 0.0)
    aside = aside + torch.where(is_pan.unsqueeze(-1), outward, 0.0)
    shake = of_motion(_SHAKE).unsqueeze(-1) * draw.normal(frames, 3)
    heading = tangent + aside + of_motion(_GLANCE) * _wave(draw, time, (15, 60)) + shake[..., 0]
    pitch = draw.uniform(-0.2, 0.05, 1) + 0.04 * _wave(draw, time, (15, 60)) + shake[..., 1]
    roll = 0.02 * draw.normal(1) + 0.02 * _wave(draw, time, (10, 40)) + shake[..., 2]

    low, high = constant(_HEIGHT, draw.device)[motion].unbind(-1)
    height = draw.uniform(low, high).unsqueeze(-1)
    height = height + of_motion(_BOB) * _wave(draw, time, (6, 14))
    return Paths(_looking(torch.cat([place, height.unsqueeze(-1)], dim=-1), heading, pitch, roll))


def _looking(place: Tensor, heading: Tensor, pitch: Tensor, roll: Tensor) -> Tensor:
    """Return poses; angles as :func:`xsvggt_ros.synthetic.cameras.looking` takes them."""
    forward = torch.stack(
        [heading.cos() * pitch.cos(), heading.sin() * pitch.cos(), pitch.sin()], dim=-1
    )
    level = torch.stack([heading.sin(), -heading.cos(), torch.zeros_like(heading)], dim=-1)
    down = torch.linalg.cross(forward, level)
    cos, sin = roll.cos().unsqueeze(-1), roll.sin().unsqueeze(-1)
    poses = torch.zeros((*heading.shape, 4, 4), device=heading.device)
    poses[..., :3, 0] = cos * level + sin * down
    poses[..., :3, 1] = cos * down - sin * level
    poses[..., :3, 2] = forward
    poses[..., :3, 3] = place
    poses[..., 3, 3].fill_(1.0)
    return poses


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
