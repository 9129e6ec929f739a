# SPDX-License-Identifier: Apache-2.0
"""Clips of images for training: rendered once, cut into many different streams."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.synthetic.cameras import intrinsics_for, tone_map
from xsvggt_ros.synthetic.held_out import quality_for, training_seed
from xsvggt_ros.synthetic.motion import MotionSettings, plan_motion
from xsvggt_ros.synthetic.renderer import Quality, Rendering, render, render_sequence
from xsvggt_ros.synthetic.rooms import RoomSettings, build_world, room_named
from xsvggt_ros.synthetic.world import World, batched

_RATE = 10.0
_REDRAWS = 20
_STRIDES = (1, 2, 3)

Index = NDArray[np.intp]


@dataclass(frozen=True)
class ClipSettings:
    """What the images for a training look like.

    Attributes:
        room: kind of room.
        width: of an image, pixels.
        height: of an image, pixels.
        frames: of a clip.
        field_of_view: horizontal, degrees.
        quality: of the images.
        motions: kinds that are drawn from.
        seed: of everything.

    """

    room: RoomSettings = field(default_factory=lambda: room_named("chart"))
    width: int = 112
    height: int = 84
    frames: int = 48
    field_of_view: float = 75.0
    quality: Quality = field(default_factory=lambda: Quality(samples=1, shadows=False))
    motions: tuple[str, ...] = (
        "drift",
        "walk",
        "walk",
        "pan",
        "loop",
        "handheld",
        "drive",
        "drive",
    )
    seed: int = 0

    @property
    def intrinsics(self) -> Intrinsics:
        """The camera of all images."""
        return intrinsics_for(self.width, self.height, self.field_of_view)


def clip_settings(room: str, seed: int, width: int, height: int, frames: int) -> ClipSettings:
    """Return the settings for a named kind of room."""
    return ClipSettings(
        room=room_named(room),
        width=width,
        height=height,
        frames=frames,
        quality=quality_for(room),
        seed=seed,
    )


@dataclass(frozen=True)
class Clip:
    """Images of one room along one path; numpy, so that it is copied between processes.

    Attributes:
        images: uint8 [F, 3, H, W].
        depth: float16 [F, H, W], metres.
        poses: float64 [F, 4, 4], camera to room.

    """

    images: NDArray[np.uint8]
    depth: NDArray[np.float16]
    poses: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.poses)


def render_clip(settings: ClipSettings, index: int, device: torch.device) -> Clip:
    """Render clip number ``index``; equal settings and numbers give equal clips."""
    world, poses = _plan(settings, index)
    with torch.inference_mode():
        found = _rendered(world.to(device), poses, settings)
        images = (255 * tone_map(found.light)).round().byte().movedim(-1, 1)
    return Clip(images.cpu().numpy(), found.depth.half().cpu().numpy(), poses)


def _plan(settings: ClipSettings, index: int) -> tuple[World, NDArray[np.float64]]:
    """Draw a room with a path through it; draw again where there is none."""
    rng = np.random.default_rng([settings.seed, index, 0xBA7C4])
    kind = str(rng.choice(settings.motions))
    stride = int(rng.choice(_STRIDES))
    # People start walking after most of a second, and what stands still teaches nothing.
    skipped = 0 if kind == "drift" else int(rng.integers(5, 30))
    frames = (settings.frames - 1) * stride + 1 + skipped
    for redraw in range(_REDRAWS):
        seed = training_seed(settings.seed, index + redraw * 1_000_003)
        world = build_world(settings.room, seed)
        try:
            poses = plan_motion(world, MotionSettings(kind, _RATE), frames, seed)
        except ConfigurationError:
            continue
        return world, poses[skipped::stride]
    raise ConfigurationError(
        f"{_REDRAWS} rooms in a row had no room for a camera; take larger rooms or less furniture"
    )


def _rendered(world: World, poses: NDArray[np.float64], settings: ClipSettings) -> Rendering:
    places = torch.from_numpy(poses).float().to(world.device)
    if _by_frame(world.device):
        still = torch.zeros(len(poses))
        return render_sequence(world, places, still, settings.intrinsics, settings.quality)
    found = render(batched([world]), places[None], settings.intrinsics, settings.quality)
    return Rendering(found.light[0], found.depth[0])


def _by_frame(device: torch.device) -> bool:
    """Return whether images are rendered one by one, which a CPU does faster."""
    return device.type == "cpu"


class ClipDataset(Dataset[Clip]):
    """Clips by their number, for a loader that renders them ahead in other processes."""

    def __init__(self, settings: ClipSettings, device: torch.device) -> None:
        self._settings, self._device = settings, device

    def __getitem__(self, index: int) -> Clip:
        """Render a clip."""
        return render_clip(self._settings, index, self._device)


def clips_at(step: int, first: int, every: int) -> int:
    """Return how many clips there are at a step: ``first``, and one more every so many steps."""
    return first + step // every


class ClipCache:
    """The newest clips; what is missing after a resumption is rendered again when it is drawn."""

    def __init__(self, settings: ClipSettings, device: torch.device, capacity: int) -> None:
        """Start empty.

        Args:
            settings: of the clips.
            device: on which missing clips are rendered.
            capacity: most clips; the oldest give way.

        """
        self._settings, self._device, self._capacity = settings, device, capacity
        self._clips: dict[int, Clip] = {}

    def add(self, index: int, clip: Clip) -> None:
        """Add clip number ``index``."""
        self._clips[index] = clip
        self._clips.pop(index - self._capacity, None)

    def draw(self, count: int, rng: np.random.Generator) -> Clip:
        """Return one of the newest among the first ``count`` clips, each equally likely."""
        index = int(rng.integers(max(0, count - self._capacity), count))
        if index not in self._clips:
            self._clips[index] = render_clip(self._settings, index, self._device)
        return self._clips[index]


def stream_indices(length: int, frames: int, rng: np.random.Generator) -> Index:
    """Return which frames of a clip make a stream: evenly spaced, forwards or backwards.

    A stream longer than the clip goes back and forth.

    Raises:
        ConfigurationError: a clip of fewer than two frames.

    """
    if length < 2:
        raise ConfigurationError(f"a clip of {length} frames gives no streams; take at least 2")
    widest = max(1, (length - 1) // max(frames - 1, 1))
    stride = int(rng.integers(1, min(len(_STRIDES), widest) + 1))
    span = (frames - 1) * stride
    start = int(rng.integers(0, max(length - span, 1)))
    places = start + stride * np.arange(frames)
    # Reflected at the last frame and at the first.
    places = np.abs((places + length - 1) % (2 * (length - 1)) - (length - 1))
    return places if rng.random() < 0.5 else length - 1 - places
