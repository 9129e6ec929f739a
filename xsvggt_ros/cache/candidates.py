# SPDX-License-Identifier: Apache-2.0
"""What a policy is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from xsvggt_ros.cache.selection import Spans


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a layer holds right after a frame.

    Attributes:
        query: of the newest frame, [1, heads, tokens, head_dim].
        keys: all keys of the layer, the newest frame's included, [1, heads, total, head_dim].
        spans: how these keys lie.
        special: special tokens in front of each frame.

    """

    query: Tensor
    keys: Tensor
    spans: Spans
    special: int


Kept = tuple[Tensor, Spans]
Policy = Callable[[Candidates], "Kept | None"]
"""Returns sorted indices and how they lie, or None where everything stays."""
