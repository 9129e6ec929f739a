# SPDX-License-Identifier: Apache-2.0
"""A batch of worlds as tensors: boxes, posts, ground, what they look like and what lights them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor


@cache
def constant(values: Any, device: torch.device) -> Tensor:
    """Return nested tuples of numbers as a float32 tensor that is copied to a device only once.

    A copy from the host waits for all that the device has still to do.
    """
    return torch.tensor(values, dtype=torch.float32, device=device)


@dataclass(frozen=True)
class Draw:
    """Draws numbers for ``worlds`` worlds; equal generators give equal numbers.

    Attributes:
        worlds: how many worlds, the first dimension of all that is drawn.
        generator: where the numbers come from; its device is theirs.

    """

    worlds: int
    generator: torch.Generator

    @property
    def device(self) -> torch.device:
        """Where the numbers are."""
        return self.generator.device

    def share(self, *shape: int) -> Tensor:
        """Return numbers in [0, 1), float32 [worlds, *shape]."""
        return torch.rand(
            (self.worlds, *shape), generator=self.generator, device=self.generator.device
        )

    def uniform(self, low: float | Tensor, high: float | Tensor, *shape: int) -> Tensor:
        """Return numbers in [low, high), [worlds, *shape].

        Args:
            low: a number, or a tensor that broadcasts to the result.
            high: likewise.
            shape: of the result, after the worlds.

        """
        return low + (high - low) * self.share(*shape)

    def spread(self, low: float, high: float, *shape: int) -> Tensor:
        """Return positive numbers in [low, high) whose logarithm is uniform.

        Args:
            low: above zero.
            high: above ``low``.
            shape: of the result, after the worlds.

        """
        return self.uniform(math.log(low), math.log(high), *shape).exp()

    def chance(self, probability: float, *shape: int) -> Tensor:
        """Return truths, bool [worlds, *shape]."""
        return self.share(*shape) < probability

    def sign(self, *shape: int) -> Tensor:
        """Return -1 or 1."""
        return torch.where(self.chance(0.5, *shape), 1.0, -1.0)

    def normal(self, *shape: int) -> Tensor:
        """Return numbers of mean 0 and variance 1."""
        return torch.randn(
            (self.worlds, *shape), generator=self.generator, device=self.generator.device
        )

    def choice(self, weights: tuple[float, ...], *shape: int) -> Tensor:
        """Return indices of ``weights``, each as often as its weight says, int64."""
        edges = constant(weights, self.device).cumsum(0)
        return torch.bucketize(self.share(*shape) * edges[-1], edges[:-1].contiguous(), right=True)

    def order(self, count: int) -> Tensor:
        """Return a random order of ``count`` things, int64 [worlds, count]."""
        return self.share(count).argsort(dim=1)


FLOOR, CEILING, FIRST_BOX = 0, 1, 2
"""Surfaces: the floor, the ceiling, then boxes, then posts."""

FAR = 30.0
"""Metres along a ray beyond which there is sky."""

BURIED = -50.0
"""Height of what is not there: below the floor nothing is ever seen."""

_Batched = TypeVar("_Batched", "Textures", "Scenes")


@dataclass(frozen=True)
class Textures:
    """What surfaces look like; all tensors are [worlds, surfaces, ...].

    Attributes:
        colors: [..., 3, 3], a ground colour and two others that patterns lead to, linear.
        scale: [...], metres of a pattern's details.
        kind: [...], int64: 0 clouds, 1 checks, 2 bands.
        amount: [..., 2], how much the first and the second pattern count, in [0, 1].
        seed: [...], int64, of the patterns.
        glow: [...], share of the colour that needs no light.

    """

    colors: Tensor
    scale: Tensor
    kind: Tensor
    amount: Tensor
    seed: Tensor
    glow: Tensor


@dataclass(frozen=True)
class Scenes:
    """Worlds with z up and the floor at 0, in metres; all tensors begin with [worlds].

    Attributes:
        box_center: [..., boxes, 3].
        box_half: [..., boxes, 3], half of the sides.
        box_yaw: [..., boxes], radians about the vertical.
        post_center: [..., posts, 2].
        post_radius: [..., posts].
        post_height: [..., posts]; 0 = not there.
        ceiling: [...], height; above FAR there is none.
        textures: of all surfaces.
        lamps: [..., lamps, 3], places.
        lamp_color: [..., lamps, 3], linear light at one metre.
        ambient: [..., 3], light from everywhere.
        sky: [..., 2, 3], colours at the horizon and at the zenith.
        patterned: whether any surface has more than bands; where none has, none is computed.

    """

    box_center: Tensor
    box_half: Tensor
    box_yaw: Tensor
    post_center: Tensor
    post_radius: Tensor
    post_height: Tensor
    ceiling: Tensor
    textures: Textures
    lamps: Tensor
    lamp_color: Tensor
    ambient: Tensor
    sky: Tensor
    patterned: bool = True

    @property
    def first_post(self) -> int:
        """Index of the first surface that is a post."""
        return FIRST_BOX + self.box_yaw.shape[1]

    def to(self, device: torch.device | str) -> Scenes:
        """Return the same worlds on another device."""
        return replace(_mapped(self, device), textures=_mapped(self.textures, device))


def _mapped(batch: _Batched, device: torch.device | str) -> _Batched:
    moved = {
        each.name: getattr(batch, each.name).to(device)
        for each in fields(batch)
        if isinstance(getattr(batch, each.name), Tensor)
    }
    return replace(batch, **moved)


def concatenate_scenes(batches: list[Scenes]) -> Scenes:
    """Return one batch of all worlds of several."""
    whole = {
        each.name: torch.cat([getattr(batch, each.name) for batch in batches])
        for each in fields(Scenes)
        if each.name not in ("textures", "patterned")
    }
    textures = {
        each.name: torch.cat([getattr(batch.textures, each.name) for batch in batches])
        for each in fields(Textures)
    }
    return Scenes(
        **whole,
        textures=Textures(**textures),
        patterned=any(batch.patterned for batch in batches),
    )
