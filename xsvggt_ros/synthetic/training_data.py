# SPDX-License-Identifier: Apache-2.0
"""The batches of a training: which rolls there are at each step, and who shoots them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

from xsvggt_ros.interruption import deaf_children
from xsvggt_ros.synthetic.album import (
    Album,
    Roll,
    RollNumbers,
    RollSettings,
    growth,
    roll_settings,
)
from xsvggt_ros.synthetic.batches import Batch, draw_batch
from xsvggt_ros.synthetic.curriculum import Curriculum, Stage, curriculum_named, stage_at
from xsvggt_ros.synthetic.training_settings import TrainingSettings

MOST_ROLLS = 2000
"""Rolls that are kept."""

MOST_BYTES = 4_520_000_000
"""Of the rolls that are kept: 2000 of 48 images of 112x84, or 1201 of 80."""

_BYTES_PER_PIXEL = 5
"""Three of an image, two of its depth."""


@dataclass(frozen=True)
class DataSettings:
    """What batches depend on beside the settings; a training that goes on must have equal ones.

    Attributes:
        curriculum: what is learned when.
        rolls: what the images look like.
        kept: rolls, the newest ones, that streams are cut from.

    """

    curriculum: Curriculum
    rolls: RollSettings
    kept: int


def kept_rolls(rolls: RollSettings) -> int:
    """Return how many rolls are kept: MOST_ROLLS, or what MOST_BYTES hold."""
    size = rolls.frames * rolls.height * rolls.width * _BYTES_PER_PIXEL
    return max(1, min(MOST_ROLLS, MOST_BYTES // size))


class TrainingData:
    """Batches that depend on settings and steps alone."""

    def __init__(self, settings: TrainingSettings, device: torch.device) -> None:
        """Look the curriculum up.

        Args:
            settings: of the training.
            device: on which rolls are rendered and batches are put.

        Raises:
            ConfigurationError: an unknown curriculum or room.

        """
        self._settings, self._device = settings, device
        self.curriculum = curriculum_named(settings.curriculum)
        rolls = roll_settings(
            settings.room,
            settings.seed,
            self.curriculum.width,
            self.curriculum.height,
            self.curriculum.roll,
        )
        self.rolls = rolls
        self.settings = DataSettings(self.curriculum, rolls, kept_rolls(rolls))

    def batches(
        self, first: int, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[Batch, Stage]]:
        """Yield the batches of the steps from ``first`` on, on the device, with their stages.

        ``stop`` is asked while rolls are awaited, and ends them.
        """
        settings, course = self._settings, self.curriculum
        album = Album(self.rolls, self._device, self.settings.kept)
        shot = growth(first, course.first_rolls, course.steps_per_roll) if first else 0
        rolls = enumerate(self._shot_ahead(shot), start=shot)
        for step in range(first, settings.steps):
            count = growth(step, course.first_rolls, course.steps_per_roll)
            while shot < count:
                if stop():
                    return
                album.add(*next(rolls))
                shot += 1
            stage = stage_at(course.stages, step, settings.steps)
            batch = draw_batch(
                album,
                count,
                settings.batch * stage.streams,
                stage.frames,
                self.rolls.intrinsics,
                (settings.seed, step),
                self._device,
            )
            yield batch, stage

    def _shot_ahead(self, first: int) -> Iterator[Roll]:
        """Yield the rolls from a number on, shot by other processes if there are any."""
        settings, course = self._settings, self.curriculum
        last = growth(settings.steps, course.first_rolls, course.steps_per_roll)
        # Several processes on one GPU would only be in each other's way.
        workers = settings.workers if self._device.type == "cpu" else 0
        loader: DataLoader[Roll] = DataLoader(
            Subset(RollNumbers(self.rolls, self._device), range(first, last)),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=workers,
            worker_init_fn=_quiet_worker,
            multiprocessing_context="spawn" if workers else None,
        )
        with deaf_children():
            rolls = iter(loader)
        yield from rolls


def _as_it_is(roll: Any) -> Any:
    """Keep numpy arrays, which travel by value; tensors would take open files."""
    return roll


def _quiet_worker(number: int) -> None:
    """Keep a worker to one thread; there are as many workers as cores to use."""
    torch.set_num_threads(1)
