# SPDX-License-Identifier: Apache-2.0
"""What a policy is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

NEUTRAL_BIRTH = 0.5
"""What is remembered of a token by a policy that does not care: the middle of the range."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a layer holds right after a frame: all older tokens, then the frame's own.

    Attributes:
        query: of the newest frame, normalised and rotated, [heads, frame, channels].
        keys: as attended to, [heads, tokens, channels].
        values: the same.
        update: what the block's MLP added to the newest frame's tokens, [frame, dim].
        ages: how many tokens came after each, int32 [sets, tokens]; 0 = the newest.
        births: what :meth:`Policy.births` said of the older tokens, float16 [sets, older].
        previous: what this policy said of the older tokens after the frame before, float32
            [sets, older]; None where it was not asked then.
        anchor: how many tokens of the first frame stand in front.
        special: special tokens in front of each frame.

    """

    query: Tensor
    keys: Tensor
    values: Tensor
    update: Tensor
    ages: Tensor
    births: Tensor
    previous: Tensor | None
    anchor: int
    special: int

    @property
    def sets(self) -> int:
        """Index sets: 1 for the whole layer, or one per head."""
        return self.ages.shape[0]

    @property
    def frame(self) -> int:
        """Tokens of the newest frame."""
        return self.query.shape[1]

    def per_set(self, per_head: Tensor) -> Tensor:
        """Bring [heads, ...] to [sets, ...]: the mean over heads where they share one set."""
        return per_head.mean(dim=0, keepdim=True) if self.sets == 1 else per_head


class Policy(Protocol):
    """Says what each token is worth."""

    def scores(self, candidates: Candidates) -> Tensor:
        """Return the worth of every token, float32 [sets, tokens], the higher the rather kept.

        Finite, and without waiting for the device.
        """
        ...

    def births(self, candidates: Candidates) -> Tensor:
        """Return what to remember of each token of the newest frame, float16 [sets, frame]."""
        ...

    def clear(self) -> None:
        """Begin a new stream, as if it were the first."""
        ...


class Stateless:
    """A policy that is the same for every stream."""

    def clear(self) -> None:
        """Do nothing: there is nothing to forget."""


class Forgetful(Stateless):
    """A policy that remembers nothing of a token's birth either."""

    def births(self, candidates: Candidates) -> Tensor:
        """Return the middle of the range for all."""
        shape = (candidates.sets, candidates.frame)
        return torch.full(shape, NEUTRAL_BIRTH, dtype=torch.float16, device=candidates.query.device)
