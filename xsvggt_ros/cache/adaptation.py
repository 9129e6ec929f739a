# SPDX-License-Identifier: Apache-2.0
"""What follows the stream: budgets, and which frames are stored.

Budgets follow the scene and the layers' needs (left open by XStreamVGGT, section 5). Novelty and
motion are taken relative to the most that the session has lately seen of them, so there is nothing
to tune to a camera or a robot. Everything here happens between two frames, and waits for the device
then; a step itself does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

import torch
from torch import Tensor
from torch.nn import functional

from xsvggt_ros.cache.layout import TokenShape
from xsvggt_ros.cache.settings import CacheSettings

TEMPERATURE = 0.5
"""Of the softmax over layers, as in InfiniteVGGT and OVGGT."""
MOST_SHARE = 2.0
"""A layer's largest budget, as a multiple of the mean."""
STEPS = 8
"""In so many steps the budget goes from rest to full; fewer changes mean fewer allocations."""
PERIOD = 16
"""Frames between two looks at the layers' needs."""

_RUNS = 8
_REMEMBERED = 64
_PEAK_MEMORY = 0.995
_LEVEL_MEMORY = 0.9
_LEAST_NOVELTY = 0.02
_LEAST_MOTION = 0.05
"""Below these, novelty (a cosine distance) and motion (about radians) are what noise makes of a
camera at rest, however long it has been so."""


def layer_budgets(similarities: Sequence[float], mean: int, least: int) -> list[int]:
    """Share ``mean`` tokens a layer out by need: the more alike a layer's keys, the fewer.

    Args:
        similarities: mean similarity of each layer's keys to their mean direction.
        mean: tokens that each layer would get if all were alike.
        least: smallest budget of a layer.

    Returns:
        A budget for each layer, in ``least .. MOST_SHARE * mean``, together at most
        ``mean * layers`` (InfiniteVGGT's softmax over layers, clamped).

    """
    weights = [exp((1.0 - similarity) / TEMPERATURE) for similarity in similarities]
    most = max(least, int(MOST_SHARE * mean))
    spare = float(mean * len(weights) - least * len(weights))
    budgets = [float(least)] * len(weights)
    open_layers = set(range(len(weights)))
    while spare > 1 and open_layers:
        total = sum(weights[layer] for layer in open_layers)
        full = set()
        shared = spare
        for layer in open_layers:
            part = min(shared * weights[layer] / total, most - budgets[layer])
            budgets[layer] += part
            spare -= part
            if budgets[layer] >= most:
                full.add(layer)
        if not full:
            break
        open_layers -= full
    whole = [int(budget) for budget in budgets]
    left_over = int(sum(budgets) + 0.5) - sum(whole)
    for layer in sorted(range(len(whole)), key=lambda layer: whole[layer] - budgets[layer]):
        if left_over > 0 and whole[layer] < most:
            whole[layer] += 1
            left_over -= 1
    return whole


class Adaptation:
    """Looks at the stream, and says what the budgets should be."""

    def __init__(self, settings: CacheSettings, least: int) -> None:
        """Adapt as ``settings`` say, no layer below ``least`` tokens."""
        self._settings = settings
        self._least = least
        self._novelty = SceneNovelty()
        self._level = SceneLevel()
        self._asked: int | None = None
        self._full: int | None = None

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        return self._novelty.nbytes

    def clear(self) -> None:
        """Forget the stream."""
        self._novelty.clear()
        self._level.clear()
        self._asked = self._full = None

    def observe(self, keys: Tensor, special: int) -> None:
        """Look at a frame's keys in one layer, [heads, frame, channels], special ones in front."""
        if self._settings.adapts_to_scene:
            self._novelty.observe(keys, special)

    def budgets(
        self, current: Sequence[int], *, full: int, frames: int, motion: float, similarity: Tensor
    ) -> list[int]:
        """Return the budget of each layer from now on. Waits for the device.

        Args:
            current: budget of each layer.
            full: what each would have without adaptation; the sum is never above this, times
                layers.
            frames: seen so far.
            motion: of the camera since the frame before, see :meth:`KvCache.end_frame`.
            similarity: of each layer's keys to their mean direction, float32 [layers].

        """
        settings, layers = self._settings, len(current)
        before = self._asked if full == self._full and self._asked is not None else None
        asked = self._asked_of_scene(full, before, frames, motion)
        self._asked, self._full = asked, full
        if settings.adapts_layers and frames % PERIOD == 0:
            floor = min(asked, max(self._least, asked // 4))
            return layer_budgets(similarity.tolist(), asked, floor)
        if asked == before:
            return list(current)
        if not settings.adapts_layers:
            return [asked] * layers
        mean = max(1, sum(current) // layers)
        return [max(self._least, budget * asked // mean) for budget in current]

    def _asked_of_scene(self, full: int, before: int | None, frames: int, motion: float) -> int:
        """Return the mean budget: up at once, down by a single step only now and then.

        A scene near the border of two steps would otherwise lose history with every other frame.
        """
        settings = self._settings
        if not settings.adapts_to_scene:
            return full
        rest = min(settings.budget_min_tokens or max(self._least, full // 2), full)
        target = scene_budget(self._level.update(self._novelty.value, motion), rest, full)
        if before is None or target >= before or frames % PERIOD == 0:
            return target
        return target if (before - target) * STEPS >= 2 * (full - rest) else before


def adaptation_nbytes(settings: CacheSettings, token: TokenShape) -> int:
    """Return what following a scene allocates."""
    if not settings.adapts_to_scene:
        return 0
    return _REMEMBERED * _RUNS * token.heads * token.channels * 4


class SceneNovelty:
    """How unlike the remembered frames the newest one is, on the device.

    A frame is described by its keys in one layer, averaged over a few runs of tokens.
    """

    def __init__(self) -> None:
        self._remembered = torch.empty(0)
        self._count = 0
        self._novelty = torch.zeros(1)

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        return self._remembered.nbytes

    def clear(self) -> None:
        """Forget all frames."""
        self._count = 0

    def observe(self, keys: Tensor, special: int) -> None:
        """Look at a frame's keys [heads, frame, channels]; does not wait for the device."""
        patches = keys[:, special:] if keys.shape[1] > special else keys
        runs = functional.adaptive_avg_pool1d(patches.float().transpose(1, 2), _RUNS)
        description = functional.normalize(runs.flatten(), dim=0)
        if len(self._remembered) == 0 or self._remembered.device != description.device:
            self._remembered = description.new_zeros(_REMEMBERED, len(description))
        known = min(self._count, _REMEMBERED)
        similarity = self._remembered[:known] @ description
        self._novelty = 1 - similarity.max() if known else description.new_ones(())
        self._remembered[self._count % _REMEMBERED] = description
        self._count += 1

    @property
    def value(self) -> float:
        """Novelty of the newest frame, 0..2; waits for the device."""
        return float(self._novelty)


class SceneLevel:
    """How much budget the scene asks for, between 0 (at rest) and 1."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin with a scene that asks for all."""
        self._most_novelty = self._most_motion = 0.0
        self.value = 1.0

    def update(self, novelty: float, motion: float) -> float:
        """Return the level after a frame: up at once, down slowly."""
        self._most_novelty = max(novelty, _PEAK_MEMORY * self._most_novelty, _LEAST_NOVELTY)
        self._most_motion = max(motion, _PEAK_MEMORY * self._most_motion, _LEAST_MOTION)
        asked = max(_part(novelty, self._most_novelty), _part(motion, self._most_motion))
        self.value = max(asked, _LEVEL_MEMORY * self.value)
        return self.value


def scene_budget(level: float, rest: int, full: int) -> int:
    """Return the budget for ``level``, one of ``STEPS`` + 1 from ``rest`` to ``full``.

    Args:
        level: from 0 to 1.
        rest: tokens at level 0.
        full: tokens at level 1.

    """
    return rest + round(level * STEPS) * (full - rest) // STEPS


def _part(value: float, most: float) -> float:
    return max(0.0, value) / most if most > 0 else 0.0


KEYFRAME_STAGES = 5
"""Equal parts of the trained number of frames; in each, the interval is twice that of the last."""
LONGEST_INTERVAL = 64
"""Largest interval: an hour at 10 Hz then stores 900 frames, about the 1024 that LingBot-Map's own
table of places in time has room for."""


class KeyframeSchedule:
    """Counts the frames of each camera, and says which of them are stored.

    The first frame of a camera is stored, then every ``interval``-th one. With the interval 0
    (auto), a network that was trained up to some number of stored frames stores every frame during
    the first fifth of them, every second one during the next, and so on: LingBot-Map's 320 frames
    last 1984 frames of the stream, and an hour of 10 Hz ends near 880. A network whose tokens do
    not know how many came before them stores every frame.
    """

    def __init__(self, interval: int, trained_frames: int) -> None:
        """Store one of ``interval`` frames; 0 = by what the network was trained with."""
        self._interval = interval
        self._trained = trained_frames
        self._until: dict[str, int] = {}
        self.stored = 0

    @property
    def interval(self) -> int:
        """One of so many frames of a camera is stored now."""
        if self._interval:
            return self._interval
        if not self._trained:
            return 1
        stage = self.stored // max(1, self._trained // KEYFRAME_STAGES)
        return int(min(LONGEST_INTERVAL, 2 ** min(stage, LONGEST_INTERVAL)))

    def change(self, interval: int) -> None:
        """Store one of ``interval`` frames from now on; 0 = as the network was trained."""
        self._interval = interval

    def is_due(self, camera: str) -> bool:
        """Return whether the next frame of ``camera`` is stored."""
        return min(self._until.get(camera, 0), self.interval - 1) == 0

    def note(self, camera: str, frames: int = 1, *, anchors: bool = False) -> None:
        """Take note of a pass of frames.

        Args:
            camera: whose frames they are.
            frames: of the pass.
            anchors: whether they are stored whatever the interval is.

        """
        if anchors:
            self.stored += frames
        elif self.is_due(camera):
            self.stored += 1
            self._until[camera] = self.interval - 1
        else:
            self._until[camera] = min(self._until.get(camera, 0), self.interval - 1) - 1

    def restart(self) -> None:
        """Forget the stream."""
        self._until.clear()
        self.stored = 0
