# SPDX-License-Identifier: Apache-2.0
"""A stream of images of one room, with everything that is true about it; the room from above.

The sequences that everything is measured on and nothing is trained on stand here. A change of
rooms, motion or renderer changes them: figures before and after it cannot be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.geometry.cameras import Intrinsics, unproject
from xsvggt_ros.geometry.rigid import Matrix, invert, transform_points
from xsvggt_ros.synthetic.cameras import intrinsics_for, tone_map
from xsvggt_ros.synthetic.motion import MotionSettings, plan_motion
from xsvggt_ros.synthetic.renderer import Quality, render
from xsvggt_ros.synthetic.rooms import RoomSettings, build_world, room_named
from xsvggt_ros.synthetic.shapes import Solids
from xsvggt_ros.synthetic.world import World

BLUR_STEPS = 5
"""Images that are averaged where a moving camera blurs."""


@dataclass(frozen=True)
class EffectSettings:
    """Imperfections; all off by default.

    Attributes:
        motion_blur: share of the frame time that the shutter is open, [0, 1].
        exposure: stops by which brightness swings to and fro.
        noise: standard deviation of a pixel in the dark, 8-bit levels.
        drops: share of frames that get lost, [0, 0.9].

    Raises:
        ConfigurationError: a value outside of its range.

    """

    motion_blur: float = 0.0
    exposure: float = 0.0
    noise: float = 0.0
    drops: float = 0.0

    def __post_init__(self) -> None:
        limits = {"motion_blur": 1.0, "exposure": 4.0, "noise": 64.0, "drops": 0.9}
        for name, most in limits.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise ConfigurationError(f"effect {name} is {value}; it must be from 0 to {most}")


def exposure_at(settings: EffectSettings, seconds: float, seed: int) -> float:
    """Return the factor on the light at a time; 1 where the exposure does not change.

    Args:
        settings: how far the exposure changes.
        seconds: from the beginning.
        seed: of the sequence.

    """
    if settings.exposure == 0:
        return 1.0
    rng = np.random.default_rng([seed, 0xE4])
    period, phase = float(rng.uniform(3, 9)), float(rng.uniform(0, 2 * math.pi))
    return float(2 ** (settings.exposure * math.sin(2 * math.pi * seconds / period + phase)))


def expose(light: Tensor, settings: EffectSettings, exposure: float, seed: int) -> Tensor:
    """Turn light into an RGB image, uint8 [H, W, 3], on the CPU.

    Args:
        light: linear, [H, W, 3].
        settings: noise.
        exposure: factor on the light.
        seed: of the frame.

    """
    image = 255 * tone_map(light, exposure)
    if settings.noise > 0:
        noise = np.random.default_rng([seed, 0x01]).standard_normal(image.shape, np.float32)
        # Shot noise grows with the light, and a dark pixel shows more of the sensor's own.
        strength = settings.noise * (0.6 + 0.4 * (image / 255).sqrt())
        image = image + strength * torch.from_numpy(noise).to(image.device)
    return image.round().clamp(0, 255).to(torch.uint8).cpu()


def is_dropped(settings: EffectSettings, index: int, seed: int) -> bool:
    """Return whether a frame gets lost; the first one never does.

    Args:
        settings: how many are lost.
        index: of the frame.
        seed: of the sequence.

    """
    if index == 0 or settings.drops == 0:
        return False
    return bool(np.random.default_rng([seed, index, 0xD0]).random() < settings.drops)


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
            if not is_dropped(self.settings.effects, index, self.settings.seed):
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
            color = expose(light, settings.effects, exposure, frame_seed)
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
    fixed: Matrix = pose.copy()
    fixed[:3, :3] = left @ right
    return fixed


FIRST_HELD_OUT_SEED = 900_000_000
"""This seed and all above it are never trained on."""


@dataclass(frozen=True)
class HeldOut:
    """One sequence: its seed, motion and number of frames."""

    name: str
    seed: int
    motion: str
    frames: int


SUITE: tuple[HeldOut, ...] = (
    HeldOut("short_drift", FIRST_HELD_OUT_SEED + 0, "drift", 10),
    HeldOut("short_walk", FIRST_HELD_OUT_SEED + 1, "walk", 10),
    HeldOut("short_drive", FIRST_HELD_OUT_SEED + 2, "drive", 10),
    HeldOut("short_handheld", FIRST_HELD_OUT_SEED + 3, "handheld", 10),
    HeldOut("medium_walk", FIRST_HELD_OUT_SEED + 10, "walk", 100),
    HeldOut("medium_drive", FIRST_HELD_OUT_SEED + 11, "drive", 100),
    HeldOut("medium_pan", FIRST_HELD_OUT_SEED + 12, "pan", 100),
    HeldOut("medium_handheld", FIRST_HELD_OUT_SEED + 13, "handheld", 100),
    HeldOut("long_loop", FIRST_HELD_OUT_SEED + 20, "loop", 300),
    HeldOut("long_walk", FIRST_HELD_OUT_SEED + 21, "walk", 300),
    HeldOut("long_stop", FIRST_HELD_OUT_SEED + 22, "stop", 300),
    HeldOut("very_long_loop", FIRST_HELD_OUT_SEED + 30, "loop", 1000),
    HeldOut("very_long_walk", FIRST_HELD_OUT_SEED + 31, "walk", 1000),
)
"""Short 10, medium 100, long 300 and very long 1000 frames; loops and pans see places again."""


LENGTHS = {"short": (10,), "medium": (10, 100), "long": (10, 100, 300)}
"""Frames of the sequences that a score up to some length is made of."""

DEFAULT_ROOM = "chart"
"""What the demo network was taught in."""

_QUALITY = {name: Quality(samples=1, shadows=False) for name in ("calm", "chart")}


def quality_for(room: str) -> Quality:
    """Return how images of a kind of room are rendered, for training and for measuring alike."""
    return _QUALITY.get(room, Quality(samples=1, shadows=True))


def held_out(
    name: str, room: str = DEFAULT_ROOM, width: int = 112, height: int = 84
) -> SequenceSettings:
    """Return the settings of a held-out sequence, for a kind of room and a size.

    Raises:
        ConfigurationError: there is no sequence of that name.

    """
    for each in SUITE:
        if each.name == name:
            return SequenceSettings(
                seed=each.seed,
                frames=each.frames,
                width=width,
                height=height,
                room=room_named(room),
                motion=MotionSettings(each.motion),
                quality=quality_for(room),
            )
    raise ConfigurationError(
        f"held-out sequence '{name}' is unknown; choose one of "
        f"{', '.join(each.name for each in SUITE)}"
    )


def training_seed(start: int, index: int) -> int:
    """Return the seed of a training sample, never one that is held out.

    Raises:
        ConfigurationError: more samples than there are seeds.

    """
    if start < 0 or index < 0:
        raise ConfigurationError(f"seed {start} and sample {index} must not be negative")
    # A Weyl step spreads runs with neighbouring seeds over the whole range.
    return (start * 611_953 + index) % FIRST_HELD_OUT_SEED


ALTITUDE = 200.0
"""Metres; from so far off a room looks as in a parallel projection."""

HANGS_ABOVE = 0.7
"""Share of the room's height above which a solid counts as part of the ceiling."""


def room_from_above(world: World, pixels: int = 480) -> NDArray[np.uint8]:
    """Render a room from above: x to the right, y upwards, from wall to wall.

    Rays that come from outside pass the ceiling, since a room is met from within only.

    Args:
        world: one world.
        pixels: of the image's longer side.

    Returns:
        RGB uint8 [h, w, 3].

    """
    low, high = world.low.double().cpu().numpy(), world.high.double().cpu().numpy()
    per_metre = pixels / float((high - low)[:2].max())
    width, height = (round(per_metre * float(side)) for side in (high - low)[:2])
    focal = per_metre * (ALTITUDE - float(low[2]))
    camera = Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)
    pose = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    pose[:3, 3] = torch.tensor([*(low + high)[:2] / 2, ALTITUDE])
    with torch.inference_mode():
        light = render(
            _without_lamps(world), pose.to(world.device), camera, Quality(1, shadows=False)
        ).light
        return (255 * tone_map(light)).round().to(torch.uint8).cpu().numpy()


def _without_lamps(world: World) -> World:
    """Return a world without what hangs from the ceiling."""
    limit = world.low[2] + HANGS_ABOVE * (world.high[2] - world.low[2])
    kept = [each.centre[:, 2] - each.half[:, 2] < limit for each in world.solids]
    walls = torch.ones(len(world.materials) - world.count, dtype=torch.bool, device=world.device)
    solids: list[Solids] = [
        each.subset(chosen) for each, chosen in zip(world.solids, kept, strict=True)
    ]
    return replace(
        world,
        solids=(solids[0], solids[1], solids[2]),
        materials=world.materials[torch.cat([*kept, walls])],
    )
