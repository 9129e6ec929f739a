# SPDX-License-Identifier: Apache-2.0
"""Ways through worlds: closed curves, and the cameras that follow them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from xsvggt_ros.synthetic.scenes.scene import Draw, constant

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
