# SPDX-License-Identifier: Apache-2.0
"""What a policy is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

NEUTRAL_INSERTION = 0.5
"""What is remembered of a token by a policy that does not care: the middle of the range."""


@dataclass(frozen=True, slots=True)
class LayerView:
    """One layer right after it has attended: all older tokens, then the newest frame's own.

    Attributes:
        query: of the newest frame, normalised and rotated, [heads, frame, channels].
        keys: as attended to, [heads, tokens, channels].
        values: the same.
        anchor: how many tokens of the first frame stand in front.
        special: special tokens in front of each frame.
        sets: index sets of the layer: 1, or one per head.

    """

    query: Tensor
    keys: Tensor
    values: Tensor
    anchor: int
    special: int
    sets: int


@dataclass(frozen=True, slots=True)
class Candidates:
    """The tokens of a group of layers after a frame: all older ones, then the frame's own.

    Rows are the index sets of all layers, layer after layer.

    Attributes:
        measures: what :meth:`Policy.measure` said, the mean over heads that share an index set,
            float32 [rows, tokens]; None where it measures nothing.
        insertions: what :meth:`Policy.insertions` said of each token, float16 [rows, tokens].
        ages: how many tokens came after each, int32 [rows, tokens]; 0 = the newest.
        newest: number in the stream of the newest token, modulo 2^32, int32 [1].
        previous: what this policy said of the older tokens after the frame before, float32
            [rows, older]; None where it was not asked then.
        first_layer: index in the network of the group's first layer.
        sets: index sets of a layer.
        frame: tokens of the newest frame.

    """

    measures: Tensor | None
    insertions: Tensor
    ages: Tensor
    newest: Tensor
    previous: Tensor | None
    first_layer: int
    sets: int
    frame: int


class Policy(Protocol):
    """Says what each token is worth.

    It looks at one layer at a time while that layer's keys lie decoded, and judges the layers of a
    group together afterwards, in a few operations for all of them.

    Attributes:
        compares: whether :meth:`scores` wants to know what it said after the frame before.

    """

    compares: bool

    def measure(self, layer: LayerView) -> Tensor | None:
        """Return a number for each token, float32 [heads or sets, tokens]; None = none is needed.

        Where it is one for each head, and heads share an index set, the mean over heads counts.
        """
        ...

    def measure_update(self, update: Tensor) -> Tensor | None:
        """Return a number for each token of the newest frame, float32 [frame].

        Args:
            update: what the block's MLP added to the tokens, [frame, dim] of any floating type.

        """
        ...

    def insertions(self, updates: Tensor | None, rows: int, frame: int, like: Tensor) -> Tensor:
        """Return what to remember of each token of the newest frame, float16 [rows, frame].

        Args:
            updates: what :meth:`measure_update` said, float32 [layers, frame].
            rows: index sets of all layers.
            frame: tokens of the newest frame.
            like: any tensor on the device.

        """
        ...

    def scores(self, candidates: Candidates) -> Tensor:
        """Return the worth of every token, float32 [rows, tokens], the higher the rather kept.

        Without waiting for the device. What is not finite counts as the worst.
        """
        ...


class Forgetful:
    """A policy that remembers nothing of the insertion of a token."""

    compares = False

    def measure(self, layer: LayerView) -> Tensor | None:
        """Measure nothing."""
        return None

    def measure_update(self, update: Tensor) -> Tensor | None:
        """Measure nothing of an update [frame, dim]."""
        return None

    def insertions(self, updates: Tensor | None, rows: int, frame: int, like: Tensor) -> Tensor:
        """Return the middle of the range for all, float16 [rows, frame]."""
        half = torch.full((1, 1), NEUTRAL_INSERTION, dtype=torch.float16, device=like.device)
        return half.expand(rows, frame)
