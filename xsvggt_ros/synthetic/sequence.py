# SPDX-License-Identifier: Apache-2.0
"""A stream of images of one room, with everything that is true about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import Matrix, invert, transform_points
from xsvggt_ros.geometry.unprojection import unproject
from xsvggt_ros.synthetic.cameras import intrinsics_for
from xsvggt_ros.synthetic.effects import (
    BLUR_STEPS,
    EffectSettings,
    exposure_at,
    lost,
    photograph,
)
from xsvggt_ros.synthetic.motion import MotionSettings, plan_motion
from xsvggt_ros.synthetic.renderer import Quality, render
from xsvggt_ros.synthetic.rooms import RoomSettings, build_world
from xsvggt_ros.synthetic.world import World

LONGEST = 100_000


@dataclass(frozen=True)
class SequenceSettings:
    """Everything that a sequence is made from; equal settings give equal sequences.

    Attributes:
        seed: of room, motion and effects.
        frames: images before any get lost.
        width: of an image, pixels.
        height: of an image, pixels.
        field_of_view: horizontal, degrees.

    Raises:
        ConfigurationError: a size, number or angle that makes no images.

    """

    seed: int = 0
    frames: int = 100
    width: int = 320
    height: int = 240
    field_of_view: float = 75.0
    room: RoomSettings = field(default_factory=RoomSettings)
    motion: MotionSettings = field(default_factory=MotionSettings)
    quality: Quality = field(default_factory=Quality)
    effects: EffectSettings = field(default_factory=EffectSettings)

    def __post_init__(self) -> None:
        limits = {"frames": (1, LONGEST), "width": (8, 4096), "height": (8, 4096),
                  "field_of_view": (20.0, 140.0), "seed": (0, 2**62)}  # fmt: skip
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ConfigurationError(
                    f"sequence {name} is {value}; it must be from {least} to {most}"
                )


@dataclass(frozen=True)
class SyntheticFrame:
    """One image and the truth about it.

    Attributes:
        index: number in the sequence, lost frames counted.
        stamp: nanoseconds.
        color: uint8 [H, W, 3], RGB.
        depth: float32 [H, W], metres along the optical axis.
        camera_to_world: float64 [4, 4], optical frame into the room's, which is z-up.
        intrinsics: of color and depth.

    """

    index: int
    stamp: int
    color: NDArray[np.uint8]
    depth: NDArray[np.float32]
    camera_to_world: Matrix
    intrinsics: Intrinsics

    def points(self, world: Matrix | None = None) -> NDArray[np.float32]:
        """Return the point of each pixel, float32 [H, W, 3], metres.

        In the room's frame, or in that of the camera with pose ``world``.
        """
        pose = self.camera_to_world if world is None else invert(world) @ self.camera_to_world
        return transform_points(pose, unproject(self.depth, self.intrinsics))


class Sequence:
    """A room, a motion through it, and the images on the way, rendered when asked for."""

    def __init__(self, settings: SequenceSettings, device: torch.device | str = "cpu") -> None:
        """Build the room and plan the motion.

        Raises:
            ConfigurationError: the room leaves no way of that kind.

        """
        self.settings = settings
        self.intrinsics = intrinsics_for(settings.width, settings.height, settings.field_of_view)
        world = build_world(settings.room, settings.seed)
        self.poses = plan_motion(world, settings.motion, settings.frames, settings.seed)
        self.world: World = world.to(device)

    def __len__(self) -> int:
        """Return the number of frames, lost ones included."""
        return self.settings.frames

    def __iter__(self) -> Iterator[SyntheticFrame]:
        """Yield the frames that do not get lost."""
        for index in range(len(self)):
            if not lost(self.settings.effects, index, self.settings.seed):
                yield self.frame(index)

    def stamp(self, index: int) -> int:
        """Return the time of a frame, nanoseconds; one period late, since 0 is no stamp in ROS."""
        return round((index + 1) * 1e9 / self.settings.motion.rate)

    def frame(self, index: int) -> SyntheticFrame:
        """Render one frame; its depth and pose are those of the middle of the exposure."""
        settings = self.settings
        seconds = index / settings.motion.rate
        frame_seed = settings.seed * LONGEST + index
        exposure = exposure_at(settings.effects, seconds, settings.seed)
        with torch.inference_mode():
            world = self.world.at(torch.tensor(seconds, device=self.world.device))
            pose = self._pose(self.poses[index])
            sharp = render(world, pose, self.intrinsics, settings.quality)
            light = self._blurred(index) if settings.effects.motion_blur else sharp.light
            color = photograph(light, settings.effects, exposure, frame_seed)
        return SyntheticFrame(
            index,
            self.stamp(index),
            color.numpy(),
            sharp.depth.cpu().numpy(),
            self.poses[index],
            self.intrinsics,
        )

    def _pose(self, pose: Matrix) -> torch.Tensor:
        return torch.from_numpy(pose).float().to(self.world.device)

    def _blurred(self, index: int) -> torch.Tensor:
        """Return light averaged while the shutter is open, around the frame's own time."""
        before, after = self.poses[max(index - 1, 0)], self.poses[min(index + 1, len(self) - 1)]
        span = max(min(index + 1, len(self) - 1) - max(index - 1, 0), 1)
        quality = replace(self.settings.quality, samples=1)
        lights = []
        for step in range(BLUR_STEPS):
            share = (step + 0.5) / BLUR_STEPS - 0.5
            offset = share * self.settings.effects.motion_blur / span
            moved = _orthonormal(self.poses[index] + offset * (after - before))
            seconds = (
                index + share * self.settings.effects.motion_blur
            ) / self.settings.motion.rate
            world = self.world.at(torch.tensor(seconds, device=self.world.device))
            lights.append(render(world, self._pose(moved), self.intrinsics, quality).light)
        return torch.stack(lights).mean(dim=0)


def _orthonormal(pose: Matrix) -> Matrix:
    """Return a pose whose rotation is the nearest true one."""
    left, _, right = np.linalg.svd(pose[:3, :3])
    fixed = pose.copy()
    fixed[:3, :3] = left @ right
    return fixed
