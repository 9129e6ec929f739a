# SPDX-License-Identifier: Apache-2.0
"""The batches of a training: which clips there are at each step, and who renders them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.interruption import deaf_children
from xsvggt_ros.synthetic.truth import Truth, truth_of
from xsvggt_ros.training.clips import (
    Clip,
    ClipCache,
    ClipDataset,
    ClipSettings,
    clip_settings,
    clips_at,
    stream_indices,
)
from xsvggt_ros.training.settings import (
    Curriculum,
    Stage,
    TrainingSettings,
    curriculum_named,
    stage_at,
)

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
    """Cut streams from the first ``clips`` clips of a cache; equal seeds give equal batches."""
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
