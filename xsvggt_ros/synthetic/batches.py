# SPDX-License-Identifier: Apache-2.0
"""Batches of streams for training: each step has its own rooms and ways, from seeds alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.pose_encoding import encode
from xsvggt_ros.geometry.rigid import invert
from xsvggt_ros.synthetic.cameras import intrinsics_for, pixel_rays
from xsvggt_ros.synthetic.curriculum import Stage, stage_at
from xsvggt_ros.synthetic.held_out import quality_for, training_seed
from xsvggt_ros.synthetic.losses import Truth
from xsvggt_ros.synthetic.motion import MotionSettings, plan_motion
from xsvggt_ros.synthetic.renderer import Quality, render, render_sequence
from xsvggt_ros.synthetic.rooms import RoomSettings, build_world, room_named
from xsvggt_ros.synthetic.tone import develop
from xsvggt_ros.synthetic.world import World, batched

_RATE = 10.0
_REDRAWS = 20


@dataclass(frozen=True)
class DataSettings:
    """What training streams look like.

    Attributes:
        room: kind of room.
        field_of_view: horizontal, least and most, degrees.
        quality: of the pictures.
        gain: stops by which the brightness of streams differs.
        noise: standard deviation of pixels, of 1.
        seed: of everything.

    """

    room: RoomSettings = field(default_factory=lambda: room_named("calm"))
    field_of_view: tuple[float, float] = (75.0, 75.0)
    quality: Quality = field(default_factory=lambda: Quality(samples=1, shadows=False))
    gain: float = 0.5
    noise: float = 0.01
    seed: int = 0


@dataclass(frozen=True)
class Shots:
    """Streams that are planned but not rendered.

    Attributes:
        worlds: one per stream, or all of them stacked by :func:`batched`.
        poses: float64 [B, F, 4, 4], camera to the room.
        gains: float64 [B], factors on the light.
        intrinsics: of all pictures.
        seed: of the noise.

    """

    worlds: list[World] | World
    poses: NDArray[np.float64]
    gains: NDArray[np.float64]
    intrinsics: Intrinsics
    seed: int

    def stacked(self) -> Shots:
        """Return the shots with all worlds in one, which a GPU renders at once.

        It also travels between processes with few handles; a list of worlds would need thousands.
        """
        if isinstance(self.worlds, World):
            return self
        return replace(self, worlds=batched(self.worlds))


@dataclass(frozen=True)
class Batch:
    """Pictures [B, F, 3, H, W] in [0, 1], and what is true about them."""

    images: Tensor
    truth: Truth

    @property
    def frames(self) -> int:
        """Number of pictures."""
        return self.images.shape[0] * self.images.shape[1]

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        truth = Truth(
            self.truth.depth.to(device),
            self.truth.points.to(device),
            self.truth.encodings.to(device),
        )
        return Batch(self.images.to(device), truth)


def plan_shots(settings: DataSettings, stage: Stage, streams: int, step: int) -> Shots:
    """Draw the rooms and ways of one step."""
    rng = np.random.default_rng([settings.seed, step, 0xBA7C4])
    fov = float(rng.uniform(*settings.field_of_view))
    pairs = [_plan(settings, stage, step * 4096 + k, rng) for k in range(streams)]
    return Shots(
        [world for world, _ in pairs],
        np.stack([poses for _, poses in pairs]),
        2.0 ** rng.uniform(-settings.gain, settings.gain, streams),
        intrinsics_for(stage.width, stage.height, fov),
        int(rng.integers(0, 2**31)),
    )


def _plan(
    settings: DataSettings, stage: Stage, index: int, rng: np.random.Generator
) -> tuple[World, NDArray[np.float64]]:
    """Draw one room with a way through it; a room without any is drawn again."""
    stride = int(rng.integers(stage.stride[0], stage.stride[1] + 1))
    kind = str(rng.choice(stage.motions))
    motion = MotionSettings(kind, _RATE)
    frames = (stage.frames - 1) * stride + 1
    # People start walking after most of a second, and what stands still teaches nothing.
    skipped = 0 if kind == "drift" else int(rng.integers(5, 30))
    for redraw in range(_REDRAWS):
        seed = training_seed(settings.seed, index + redraw * 1_000_003)
        world = build_world(settings.room, seed)
        try:
            poses = plan_motion(world, motion, frames + skipped, seed)
        except ConfigurationError:
            continue
        return world, poses[skipped::stride]
    raise ConfigurationError(
        f"{_REDRAWS} rooms in a row had no place for a camera; take greater rooms or less furniture"
    )


def render_shots(shots: Shots, settings: DataSettings, device: torch.device) -> Batch:
    """Render planned streams: stacked ones at once, others one by one, which a CPU does faster."""
    poses = torch.from_numpy(shots.poses).float().to(device)
    with torch.no_grad():
        light, depth = _rendered(shots, poses, settings.quality)
        gains = torch.from_numpy(shots.gains).float().to(device)[:, None, None, None, None]
        images = develop(light, gains)
        generator = torch.Generator(device).manual_seed(shots.seed)
        noise = torch.randn(images.shape, generator=generator, device=device)
        images = (images + settings.noise * noise).clamp(0, 1)
        return Batch(
            images.movedim(-1, 2).contiguous(), truth_of(depth, shots.poses, shots.intrinsics)
        )


def _rendered(shots: Shots, poses: Tensor, quality: Quality) -> tuple[Tensor, Tensor]:
    """Return light [B, F, H, W, 3] and depth [B, F, H, W]; nothing moves within a stream."""
    if isinstance(shots.worlds, World):
        together = render(shots.worlds.to(poses.device), poses, shots.intrinsics, quality)
        return together.light, together.depth
    still = torch.zeros(poses.shape[1], device=poses.device)
    found = [
        render_sequence(world.to(poses.device), stream, still, shots.intrinsics, quality)
        for world, stream in zip(shots.worlds, poses, strict=True)
    ]
    return torch.stack([each.light for each in found]), torch.stack([each.depth for each in found])


def truth_of(depth: Tensor, poses: NDArray[np.float64], intrinsics: Intrinsics) -> Truth:
    """Return the truth about streams in the frames of their first cameras.

    ``depth`` is [B, F, H, W], ``poses`` are [B, F, 4, 4] into any common frame.
    """
    relative = np.stack([[invert(stream[0]) @ pose for pose in stream] for stream in poses])
    encodings = np.array(
        [[encode(invert(pose), intrinsics) for pose in stream] for stream in relative]
    )
    moves = torch.from_numpy(relative).float().to(depth.device)
    rays = pixel_rays(intrinsics).to(depth.device)
    own = depth.unsqueeze(-1) * rays
    points = own @ moves[:, :, None, :3, :3].transpose(-1, -2)
    points = points + moves[:, :, None, None, :3, 3]
    return Truth(depth, points, torch.from_numpy(encodings).float().to(depth.device))


class TrainingStreams(Dataset[Batch | Shots]):
    """The batches of all steps of a training by their number, so that any step can be repeated."""

    def __init__(
        self,
        settings: DataSettings,
        stages: tuple[Stage, ...],
        steps: int,
        *,
        batch: int = 1,
        rendered: bool = True,
    ) -> None:
        """Remember what to draw.

        Args:
            settings: of rooms and pictures.
            stages: the curriculum.
            steps: of the whole training.
            batch: factor on the streams of a stage.
            rendered: whether items are rendered on the CPU, or planned only.

        """
        self._settings, self._stages, self._steps = settings, stages, steps
        self._batch, self._rendered = batch, rendered

    def __len__(self) -> int:
        """Return the number of steps."""
        return self._steps

    def __getitem__(self, step: int) -> Batch | Shots:
        """Return the batch of a step."""
        stage = stage_at(self._stages, step, self._steps)
        shots = plan_shots(self._settings, stage, self._batch * stage.streams, step)
        if not self._rendered:
            return shots.stacked()
        return render_shots(shots, self._settings, torch.device("cpu"))


def named_data(room: str, seed: int) -> DataSettings:
    """Return the settings for a kind of room."""
    return DataSettings(room=room_named(room), quality=quality_for(room), seed=seed)
