# SPDX-License-Identifier: Apache-2.0
"""Streams of images of worlds, with everything that is true about them, and the suites of them.

A stream of a suite also comes as frames, for whatever takes frames one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.synthetic.cameras import Truth, intrinsics_for
from xsvggt_ros.synthetic.scenes.layouts import WORLDS, Pace, build, cameras, curves
from xsvggt_ros.synthetic.scenes.scene import FAR, Draw, Scenes, concatenate_scenes, shade, trace
from xsvggt_ros.synthetic.sequence import FIRST_HELD_OUT_SEED, LONGEST, SyntheticFrame


@dataclass(frozen=True)
class StreamSettings:
    """What streams are made of.

    Attributes:
        worlds: how often each of WORLDS is.
        width: of an image, pixels.
        height: of an image, pixels.
        fields_of_view: least and greatest horizontal angle, degrees.
        samples: rays of a pixel's colour, 1, 3 or 5; depth is that of its centre.
        pace: how cameras move.
        noise: greatest standard deviation of pixels, of full scale.
        exposures: stops by which brightness differs from stream to stream at most; the colours of
            light and the curve of the camera differ with it.

    """

    worlds: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    width: int = 112
    height: int = 84
    fields_of_view: tuple[float, float] = (75.0, 75.0)
    samples: int = 1
    pace: Pace = field(default_factory=Pace)
    noise: float = 0.01
    exposures: float = 0.1


@dataclass(frozen=True)
class Plan:
    """Worlds and the cameras in them, before an image is rendered.

    Attributes:
        scenes: the worlds.
        poses: camera to world, [worlds, frames, 4, 4].
        field_of_view: horizontal, radians, [worlds].
        exposure: gain of each channel, [worlds, 3].
        gamma: [worlds].
        noise: standard deviation of pixels, [worlds].

    """

    scenes: Scenes
    poses: Tensor
    field_of_view: Tensor
    exposure: Tensor
    gamma: Tensor
    noise: Tensor

    def to(self, device: torch.device | str) -> Plan:
        """Return the same plan on another device."""
        rest = (self.poses, self.field_of_view, self.exposure, self.gamma, self.noise)
        return Plan(self.scenes.to(device), *(each.to(device) for each in rest))


def concatenate_plans(plans: list[Plan]) -> Plan:
    """Return one plan of all worlds of several, whose streams are equally long."""
    names = ("poses", "field_of_view", "exposure", "gamma", "noise")
    return Plan(
        concatenate_scenes([plan.scenes for plan in plans]),
        *(torch.cat([getattr(plan, name) for plan in plans]) for name in names),
    )


def plan_streams(draw: Draw, frames: int, settings: StreamSettings) -> Plan:
    """Return worlds with cameras; equal draws give equal plans.

    Args:
        draw: of the numbers that decide.
        frames: of each stream.
        settings: what worlds and motions there are.

    """
    world = draw.choice(settings.worlds)
    motion = draw.choice(settings.pace.motions)
    curve, walls = curves(draw, world, motion)
    boxes = any(settings.worlds[1:])
    scenes = build(draw, world, curve, walls, boxes=boxes)
    low, high = (math.radians(angle) for angle in settings.fields_of_view)
    return Plan(
        scenes,
        cameras(draw, curve, motion, frames, settings.pace).poses,
        draw.uniform(low, high),
        2 ** (settings.exposures * (draw.uniform(-1, 1, 1) + draw.uniform(-0.2, 0.2, 3))),
        2.1 + 0.8 * settings.exposures * draw.uniform(-1, 1),
        draw.uniform(0.0, settings.noise),
    )


Tracer = Callable[[Scenes, Tensor, Tensor], tuple[Tensor, Tensor]]
"""What :func:`cast_rays` does."""


@dataclass(frozen=True)
class Streams:
    """Rendered streams.

    Attributes:
        images: float32 [worlds, frames, 3, height, width], in [0, 1].
        truth: in the frame and unit of each stream's first camera (mean distance 1).
        seen: bool [worlds, frames, height, width], False where there is sky.
        poses: camera to world, [worlds, frames, 4, 4], metres.
        unit: metres of the truth's unit, [worlds].

    """

    images: Tensor
    truth: Truth
    seen: Tensor
    poses: Tensor
    unit: Tensor

    @property
    def frames(self) -> int:
        """Number of images."""
        return self.images.shape[0] * self.images.shape[1]


_OFFSETS = {
    1: ((0.0, 0.0),),
    3: ((0.0, 0.0), (-0.33, 0.2), (0.33, -0.2)),
    5: ((0.0, 0.0), (-0.2, -0.4), (0.4, -0.2), (0.2, 0.4), (-0.4, 0.2)),
}
"""Where the rays of a pixel go, pixels from its centre; the first one tells its depth."""


def render_streams(
    plan: Plan,
    settings: StreamSettings,
    generator: torch.Generator,
    tracer: Tracer | None = None,
) -> Streams:
    """Return the images of a plan and the truth about them.

    Args:
        plan: worlds and cameras.
        settings: of the images.
        generator: makes the noise of their pixels.
        tracer: `cast_rays`, or the same compiled.

    """
    width, height = settings.width, settings.height
    focal = width / 2 / (plan.field_of_view / 2).tan()
    worlds, frames = plan.poses.shape[:2]
    light, depth = _light_and_depth(plan, settings, focal, tracer or cast_rays)
    images = (light * plan.exposure[:, None, None]).clamp(0, 1) ** (1 / plan.gamma)[
        :, None, None, None
    ]
    images = images.unflatten(2, (height, width)).movedim(-1, 2)
    noise = torch.randn(images.shape, generator=generator, device=generator.device)
    images = (images + plan.noise[:, None, None, None, None] * noise.to(images.device)).clamp(0, 1)
    depth = depth.view(worlds, frames, height, width)
    return _with_truth(plan, images, depth, focal)


def _rays(
    width: int, height: int, focal: Tensor, offset: tuple[float, float] = (0.0, 0.0)
) -> Tensor:
    """Return rays [worlds, height * width, 3] of length 1 along the optical axis."""
    x = torch.arange(width, device=focal.device) + offset[0] - width / 2
    y = torch.arange(height, device=focal.device) + offset[1] - height / 2
    down, right = torch.meshgrid(y, x, indexing="ij")
    flat = torch.stack([right, down], dim=-1).view(1, -1, 2) / focal[:, None, None]
    return torch.cat([flat, torch.ones_like(flat[..., :1])], dim=-1)


def cast_rays(scenes: Scenes, origin: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """Return light [worlds, frames, rays, 3] and distance, in lengths of rays, along them."""
    hits = trace(scenes, origin, rays)
    return shade(scenes, origin, rays, hits), hits.distance


def _light_and_depth(
    plan: Plan, settings: StreamSettings, focal: Tensor, tracer: Tracer
) -> tuple[Tensor, Tensor]:
    """Return linear light [worlds, frames, pixels, 3] and depth [worlds, frames, pixels]."""
    turn, origin = plan.poses[..., :3, :3].transpose(-1, -2), plan.poses[..., :3, 3]
    lights, distances = [], []
    for offset in _OFFSETS[settings.samples]:
        rays = _rays(settings.width, settings.height, focal, offset)[:, None] @ turn
        light, distance = tracer(plan.scenes, origin, rays)
        lights.append(light)
        distances.append(distance)
    return torch.stack(lights).mean(dim=0), distances[0]


def _with_truth(plan: Plan, images: Tensor, depth: Tensor, focal: Tensor) -> Streams:
    height, width = depth.shape[-2:]
    relative = invert_poses(plan.poses[:, :1]) @ plan.poses
    seen = depth < FAR
    own = depth.unsqueeze(-1) * _rays(width, height, focal).view(-1, 1, height, width, 3)
    points = own.flatten(2, 3) @ relative[..., :3, :3].transpose(-1, -2)
    points = (points + relative[..., None, :3, 3]).view(own.shape)
    first = points[:, 0].norm(dim=-1) * seen[:, 0]
    unit = (first.sum(dim=(1, 2)) / seen[:, 0].sum(dim=(1, 2)).clamp(min=1)).clamp(min=0.1)
    encodings = pose_encodings_of(invert_poses(relative), focal, width, height)
    encodings[..., :3] /= unit[:, None, None]
    truth = Truth(
        depth / unit[:, None, None, None], points / unit[:, None, None, None, None], encodings
    )
    return Streams(images, truth, seen, plan.poses, unit)


def invert_poses(poses: Tensor) -> Tensor:
    """Return the inverse of rigid motions [..., 4, 4]."""
    turn = poses[..., :3, :3].transpose(-1, -2)
    result = torch.zeros_like(poses)
    result[..., :3, :3] = turn
    result[..., :3, 3] = -(turn @ poses[..., :3, 3:]).squeeze(-1)
    result[..., 3, 3].fill_(1.0)
    return result


def pose_encodings_of(extrinsics: Tensor, focal: Tensor, width: int, height: int) -> Tensor:
    """Return the network's nine numbers of cameras, [worlds, frames, 9].

    Args:
        extrinsics: world to camera, [worlds, frames, 4, 4].
        focal: pixels, [worlds].
        width: of an image, pixels.
        height: of an image, pixels.

    """
    vertical, horizontal = (2 * (side / 2 / focal).atan() for side in (height, width))
    angles = torch.stack([vertical, horizontal], dim=-1)[:, None].expand(
        -1, extrinsics.shape[1], -1
    )
    return torch.cat(
        [extrinsics[..., :3, 3], _quaternions(extrinsics[..., :3, :3]), angles], dim=-1
    )


def _quaternions(rotation: Tensor) -> Tensor:
    """Return quaternions x, y, z, w of rotations [..., 3, 3], w not negative.

    The largest of four candidates is exact where the others divide by nearly nothing.
    """
    m = rotation
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    squares = torch.stack(
        [1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz, 1 + xx + yy + zz], dim=-1
    )
    yx, zx, zy = (
        m[..., 1, 0] + m[..., 0, 1],
        m[..., 2, 0] + m[..., 0, 2],
        m[..., 2, 1] + m[..., 1, 2],
    )
    wx, wy, wz = (
        m[..., 2, 1] - m[..., 1, 2],
        m[..., 0, 2] - m[..., 2, 0],
        m[..., 1, 0] - m[..., 0, 1],
    )
    sx, sy, sz, sw = squares.unbind(-1)
    rows = torch.stack(
        [
            torch.stack([sx, yx, zx, wx], dim=-1),
            torch.stack([yx, sy, zy, wy], dim=-1),
            torch.stack([zx, zy, sz, wz], dim=-1),
            torch.stack([wx, wy, wz, sw], dim=-1),
        ],
        dim=-2,
    )
    best = squares.argmax(dim=-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    found = rows.gather(-2, best).squeeze(-2)
    found = found / found.norm(dim=-1, keepdim=True)
    return torch.where(found[..., 3:] < 0, -found, found)


SEEDS = 64
"""Streams of a suite; the first ones are taken where fewer are asked for."""


@dataclass(frozen=True)
class Suite:
    """Streams of one kind.

    Attributes:
        name: what it is called.
        first_seed: of its SEEDS streams, one after the other.
        world: one of WORLDS.
        frames: of each stream.
        lap: frames after which a camera is back where it was.

    """

    name: str
    first_seed: int
    world: str
    frames: int
    lap: int


def _suites() -> dict[str, Suite]:
    lengths = ((100, 50), (100, 100), (300, 50), (300, 200), (1000, 200), (3000, 1000))
    found = {}
    for world_index, world in enumerate(WORLDS):
        for index, (frames, lap) in enumerate(lengths):
            name = f"{world}_{frames}_lap{lap}"
            seed = FIRST_HELD_OUT_SEED + 10_000 + 1_000 * world_index + 100 * index
            found[name] = Suite(name, seed, world, frames, lap)
    return found


SUITES: dict[str, Suite] = _suites()
"""For each of WORLDS 100, 300, 1000 and 3000 frames, with places that come back after 50, 100, 200
and 1000 frames: `landmarks_100_lap50` and so on."""


def suite_named(name: str) -> Suite:
    """Return a suite; raise ConfigurationError where there is none of that name."""
    if name not in SUITES:
        raise ConfigurationError(f"suite '{name}' is unknown; choose one of {', '.join(SUITES)}")
    return SUITES[name]


def suite_settings(suite: Suite, width: int = 112, height: int = 84) -> StreamSettings:
    """Return what the streams of a suite are made of.

    Args:
        suite: which one.
        width: of the images, pixels.
        height: likewise.

    """
    laps = suite.frames / suite.lap
    return StreamSettings(
        worlds=tuple(float(each == suite.world) for each in WORLDS),  # type: ignore[arg-type]
        width=width,
        height=height,
        samples=1,
        pace=Pace((laps, laps), least_period=1.0, returns=0.0),
        noise=0.01,
    )


def suite_plan(suite: Suite, settings: StreamSettings, streams: slice | int) -> Plan:
    """Return the plan of some streams of a suite, on the CPU; the same ones every time.

    Args:
        suite: which.
        settings: of its images.
        streams: how many of the first ones, or which.

    Raises:
        ConfigurationError: more streams than there are, or none.

    """
    chosen = range(SEEDS)[streams if isinstance(streams, slice) else slice(0, streams)]
    if not chosen or (isinstance(streams, int) and streams > SEEDS):
        raise ConfigurationError(f"{streams} streams were asked for; a suite has 1 to {SEEDS}")
    plans = []
    for index in chosen:
        generator = torch.Generator().manual_seed(suite.first_seed + index)
        plans.append(plan_streams(Draw(1, generator), suite.frames, settings))
    return concatenate_plans(plans)


def suite_streams(
    suite: Suite, settings: StreamSettings, streams: slice | int, device: torch.device | str = "cpu"
) -> Streams:
    """Return rendered streams of a suite.

    Args:
        suite: which one.
        settings: see :func:`suite_settings`.
        streams: numbers of the streams.
        device: on which they are rendered.

    """
    noise = torch.Generator().manual_seed(suite.first_seed)
    with torch.no_grad():
        return render_streams(suite_plan(suite, settings, streams).to(device), settings, noise)


SEPARATOR = "#"
"""Between a suite and the number of one of its streams."""

_RATE = 10.0
"""Frames per second that stamps tell of."""


class SceneSequence:
    """One stream of a suite, rendered as it is asked for; depth is NaN where there is sky."""

    def __init__(self, name: str, width: int = 112, height: int = 84) -> None:
        """Plan a stream.

        Args:
            name: suite and number, such as `landmarks_100_lap50#3`.
            width: of an image, pixels.
            height: of an image, pixels.

        Raises:
            ConfigurationError: there is no such suite or number.

        """
        suite, number = split_name(name)
        self._suite = suite_named(suite)
        self.name = name
        self._seed = self._suite.first_seed + number
        self._settings = suite_settings(self._suite, width, height)
        self._plan = suite_plan(self._suite, self._settings, slice(number, number + 1))
        degrees = math.degrees(float(self._plan.field_of_view[0]))
        self.intrinsics = intrinsics_for(width, height, degrees)
        self.poses: NDArray[np.float64] = self._plan.poses[0].double().numpy()

    def __len__(self) -> int:
        """Return the number of frames."""
        return self._suite.frames

    def __iter__(self) -> Iterator[SyntheticFrame]:
        """Yield all frames."""
        return map(self.frame, range(len(self)))

    def frame(self, index: int) -> SyntheticFrame:
        """Render one frame."""
        noise = torch.Generator().manual_seed(self._seed * LONGEST + index)
        with torch.inference_mode():
            found = render_streams(
                _part(self._plan, slice(index, index + 1)), self._settings, noise
            )
        depth = torch.where(found.seen, found.truth.depth * found.unit, torch.nan)
        color = (255 * found.images[0, 0]).round().byte().movedim(0, -1)
        return SyntheticFrame(
            index,
            round((index + 1) * 1e9 / _RATE),
            np.ascontiguousarray(color.numpy()),
            depth[0, 0].numpy(),
            self.poses[index],
            self.intrinsics,
        )


def _part(plan: Plan, frames: slice) -> Plan:
    """Return the same worlds with some of the frames."""
    return Plan(
        plan.scenes,
        plan.poses[:, frames],
        plan.field_of_view,
        plan.exposure,
        plan.gamma,
        plan.noise,
    )


def split_name(name: str) -> tuple[str, int]:
    """Return suite and number of a stream.

    Raises:
        ConfigurationError: it is no such name.

    """
    suite, separator, number = name.partition(SEPARATOR)
    if not separator or not number.isdecimal():
        raise ConfigurationError(
            f"'{name}' names no stream of a suite; write SUITE{SEPARATOR}NUMBER, such as "
            f"{next(iter(SUITES))}{SEPARATOR}0"
        )
    return suite, int(number)
