# SPDX-License-Identifier: Apache-2.0
"""Random numbers of a batch of worlds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

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
        """Return numbers in [low, high)."""
        return low + (high - low) * self.share(*shape)

    def spread(self, low: float, high: float, *shape: int) -> Tensor:
        """Return positive numbers in [low, high) whose logarithm is uniform."""
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
