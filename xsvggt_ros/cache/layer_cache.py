# SPDX-License-Identifier: Apache-2.0
"""The cache of one global layer, behind the interface that ours and the released one fill."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class LayerCache(Protocol):
    """Remembers the tokens of one global layer."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend over what is remembered and the new frame, all [1, heads, tokens, head_dim].

        The newest frame takes part unrounded.
        """
        ...

    def absorb(self, update: Tensor) -> None:
        """Remember what stays of the frame just attended, and drop what does not.

        Args:
            update: what the block's MLP added to its tokens, [1, tokens, dim].

        """
        ...

    def clear(self) -> None:
        """Forget everything, keeping the allocation."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens held now."""
        ...

    @property
    def seen(self) -> int:
        """Tokens ever handed in since the last :meth:`clear`."""
        ...

    @property
    def nbytes(self) -> int:
        """Allocated bytes."""
        ...

    @property
    def numbers(self) -> Tensor:
        """Number in the stream of each token held, int64 [sets, tokens]."""
        ...
