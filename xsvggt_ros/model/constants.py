# SPDX-License-Identifier: Apache-2.0
"""Tensors that follow from the size of the images, computed once per size instead of per frame."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

SIZES_KEPT = 4
"""Sizes whose constants are kept; a stream has one, a rig of different cameras one for each."""


class Constants:
    """What a module keeps for the sizes used last.

    A tensor stays where it is while it is kept, so that a CUDA graph may read it; whoever captures
    one holds on to :meth:`tensors`, since a fifth size drops the first.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, tuple[Tensor, ...]] = OrderedDict()

    def get(
        self, key: Hashable, build: Callable[[], tuple[Tensor, ...]], *, keep: bool = True
    ) -> tuple[Tensor, ...]:
        """Return what ``build`` makes for ``key``; it must not depend on anything else.

        Args:
            key: the size, and the device and dtype where these vary.
            build: makes the tensors.
            keep: False = build each time, with gradients: what depends on weights that change.

        """
        if not keep or torch.compiler.is_compiling():
            return build()
        if key not in self._kept:
            # Tensors made in inference mode could not take part in a training later.
            with torch.inference_mode(mode=False), torch.no_grad():
                self._kept[key] = build()
            if len(self._kept) > SIZES_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def tensors(self) -> list[Tensor]:
        """Return all that is kept."""
        return [tensor for kept in self._kept.values() for tensor in kept]

    def __deepcopy__(self, memo: object) -> Constants:
        return Constants()
