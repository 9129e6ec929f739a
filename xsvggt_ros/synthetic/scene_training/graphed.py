# SPDX-License-Identifier: Apache-2.0
"""A step of training as one CUDA graph: thousands of small launches become one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_WARM_STEPS = 3


class GraphedStep:
    """Repeats what a function has once done on a GPU.

    The function must make its random numbers on the device with the default generator, and must
    not ask the device for anything. What it returned is filled again at each repetition.
    """

    def __init__(self, step: Callable[[], dict[str, Tensor]], clear: Callable[[], None]) -> None:
        """Run ``step`` a few times to warm up, then capture it.

        Args:
            step: learns from one batch, the optimiser's step included.
            clear: frees the gradients, before each step and before the capture.

        Raises:
            RuntimeError: something in it cannot be captured.

        """
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for number in range(_WARM_STEPS):
                clear()
                if number == _WARM_STEPS - 1:
                    _without_waiting(step)
                else:
                    step()
        torch.cuda.current_stream().wait_stream(aside)
        clear()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._parts = step()

    def __call__(self) -> dict[str, Tensor]:
        """Repeat it; the result is overwritten by the next repetition."""
        self._graph.replay()
        return self._parts


def _without_waiting(step: Callable[[], dict[str, Tensor]]) -> None:
    """Run a step; raise RuntimeError where it waits for the device, which no capture survives."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode(before)
