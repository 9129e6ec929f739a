# SPDX-License-Identifier: Apache-2.0
"""Clips of images, rendered once and cut into many streams, and the batches of a training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.process import deaf_children
from xsvggt_ros.synthetic.cameras import Truth, intrinsics_for, tone_map, truth_of
from xsvggt_ros.synthetic.motion import MotionSettings, plan_motion
from xsvggt_ros.synthetic.renderer import Quality, Rendering, render, render_sequence
from xsvggt_ros.synthetic.rooms import RoomSettings, build_world, room_named
from xsvggt_ros.synthetic.sequence import quality_for, training_seed
from xsvggt_ros.synthetic.world import World, batched
from xsvggt_ros.training.settings import (
    Curriculum,
    Stage,
    TrainingSettings,
    curriculum_named,
    stage_at,
)

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
    """Render a clip; equal settings and numbers give equal clips.

    Args:
        settings: of all clips.
        index: number of the clip.
        device: on which it is rendered.

    """
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
    """Return how many clips there are at a step.

    Args:
        step: of the training.
        first: clips at the beginning.
        every: steps after which there is one more.

    """
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

    Args:
        length: frames of the clip.
        frames: of the stream.
        rng: draws stride, start and direction.

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


_GAIN = 0.1
"""Stops by which the brightness of streams differs."""

_NOISE = 0.01
"""Standard deviation of pixels, of full scale."""


@dataclass(frozen=True)
class Batch:
    """Streams and what is true about them.

    Attributes:
        images: float32 [B, F, 3, H, W] in [0, 1].
        truth: in the frame of each stream's first camera, metres.
        poses: float32 [B, F, 4, 4], camera to room.

    """

    images: Tensor
    truth: Truth
    poses: Tensor

    @property
    def frames(self) -> int:
        """Number of images."""
        return self.images.shape[0] * self.images.shape[1]


def draw_batch(
    cache: ClipCache,
    clips: int,
    streams: int,
    frames: int,
    intrinsics: Intrinsics,
    seed: tuple[int, int],
    device: torch.device,
) -> Batch:
    """Cut streams from the first clips of a cache; equal seeds give equal batches.

    Args:
        cache: of the clips.
        clips: how many of them take part.
        streams: of the batch.
        frames: of a stream.
        intrinsics: of all clips.
        seed: of the draw.
        device: of the batch.

    """
    rng = np.random.default_rng([*seed, 0x57E9])
    images, depth, poses = [], [], []
    for _ in range(streams):
        clip = cache.draw(clips, rng)
        chosen = stream_indices(len(clip), frames, rng)
        images.append(clip.images[chosen])
        depth.append(clip.depth[chosen])
        poses.append(clip.poses[chosen])
    gains = 2.0 ** rng.uniform(-_GAIN, _GAIN, streams)
    normalized = torch.from_numpy(np.stack(images)).to(device).float() / 255
    normalized = normalized * torch.from_numpy(gains).float().to(device)[:, None, None, None, None]
    generator = torch.Generator(device).manual_seed(int(rng.integers(0, 2**31)))
    noise = torch.randn(normalized.shape, generator=generator, device=device)
    places = np.stack(poses)
    return Batch(
        (normalized + _NOISE * noise).clamp(0, 1),
        truth_of(torch.from_numpy(np.stack(depth)).to(device).float(), places, intrinsics),
        torch.from_numpy(places).float().to(device),
    )


MOST_CLIPS = 2000
"""Clips that are kept."""

MOST_BYTES = 4_520_000_000
"""Of the clips that are kept: 2000 of 48 images of 112x84, or 1201 of 80."""

_BYTES_PER_PIXEL = 5
"""Three of an image, two of its depth."""


@dataclass(frozen=True)
class DataSettings:
    """What batches depend on beside the settings; a continued training must have equal ones.

    Attributes:
        curriculum: what is learned when.
        clips: what the images look like.
        kept: clips, the newest ones, that streams are cut from.

    """

    curriculum: Curriculum
    clips: ClipSettings
    kept: int


def kept_clips(clips: ClipSettings) -> int:
    """Return how many clips are kept: MOST_CLIPS, or what MOST_BYTES hold."""
    size = clips.frames * clips.height * clips.width * _BYTES_PER_PIXEL
    return max(1, min(MOST_CLIPS, MOST_BYTES // size))


class TrainingData:
    """Batches that depend on settings and steps alone."""

    def __init__(self, settings: TrainingSettings, device: torch.device) -> None:
        """Look the curriculum up.

        Args:
            settings: of the training.
            device: on which clips are rendered and batches are put.

        Raises:
            ConfigurationError: an unknown curriculum or room.

        """
        self._settings, self._device = settings, device
        self.curriculum = curriculum_named(settings.recipe)
        clips = clip_settings(
            settings.room,
            settings.seed,
            self.curriculum.width,
            self.curriculum.height,
            self.curriculum.clip_frames,
        )
        self.clips = clips
        self.settings = DataSettings(self.curriculum, clips, kept_clips(clips))

    def batches(
        self, first: int, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[Batch, Stage]]:
        """Yield the batches of the steps from ``first`` on, on the device, with their stages.

        ``stop`` is asked while clips are awaited, and ends them.
        """
        settings, course = self._settings, self.curriculum
        cache = ClipCache(self.clips, self._device, self.settings.kept)
        rendered = clips_at(first, course.first_clips, course.steps_per_clip) if first else 0
        clips = enumerate(self._rendered_ahead(rendered), start=rendered)
        for step in range(first, settings.steps):
            count = clips_at(step, course.first_clips, course.steps_per_clip)
            while rendered < count:
                if stop():
                    return
                cache.add(*next(clips))
                rendered += 1
            stage = stage_at(course.stages, step, settings.steps)
            batch = draw_batch(
                cache,
                count,
                settings.batch * stage.streams,
                stage.frames,
                self.clips.intrinsics,
                (settings.seed, step),
                self._device,
            )
            yield batch, stage

    def _rendered_ahead(self, first: int) -> Iterator[Clip]:
        """Yield the clips from a number on, rendered by other processes if there are any."""
        settings, course = self._settings, self.curriculum
        last = clips_at(settings.steps, course.first_clips, course.steps_per_clip)
        # Several processes on one GPU would only be in each other's way.
        workers = settings.workers if self._device.type == "cpu" else 0
        loader: DataLoader[Clip] = DataLoader(
            Subset(ClipDataset(self.clips, self._device), range(first, last)),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=workers,
            worker_init_fn=_quiet_worker,
            multiprocessing_context="spawn" if workers else None,
        )
        with deaf_children():
            clips = iter(loader)
        yield from clips


def _as_it_is(clip: Any) -> Any:
    """Keep numpy arrays, which travel by value; tensors would take open files."""
    return clip


def _quiet_worker(number: int) -> None:
    """Keep a worker to one thread; there are as many workers as cores to use."""
    torch.set_num_threads(1)
