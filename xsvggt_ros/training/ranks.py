# SPDX-License-Identifier: Apache-2.0
"""Several processes that learn one network, as ``torchrun`` starts them."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor, distributed

from xsvggt_ros.errors import ConfigurationError


class Ranks:
    """What this process is among those that learn together; alone where nobody started others.

    Attributes:
        rank: number of this process, from 0.
        count: of processes.

    """

    def __init__(self, device: torch.device) -> None:
        """Meet the others, if ``torchrun`` says that there are any.

        Args:
            device: where this process learns; NCCL joins GPUs, Gloo joins CPUs.

        Raises:
            ConfigurationError: there are others, and this PyTorch cannot join processes.

        """
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0")) if self.count > 1 else 0
        self._device = device
        if self.count == 1:
            return
        if not distributed.is_available():
            raise ConfigurationError(
                "this PyTorch was built without torch.distributed; start a single process"
            )
        if device.type == "cuda":
            torch.cuda.set_device(device)
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")

    @property
    def first(self) -> bool:
        """Whether this process says, measures and writes for all."""
        return self.rank == 0

    def average(self, gradients: Sequence[Tensor | None]) -> None:
        """Make gradients, of any shapes, the means over all processes, in one exchange."""
        if self.count == 1:
            return
        there = [each for each in gradients if each is not None]
        flat = torch.cat([each.flatten() for each in there])
        distributed.all_reduce(flat)
        flat /= self.count
        for each, part in zip(there, flat.split([g.numel() for g in there]), strict=True):
            each.copy_(part.view_as(each))

    def agreed(self, progress: float, goes_on: bool) -> tuple[float, bool]:
        """Return the first process's progress, and whether all continue."""
        if self.count == 1:
            return progress, goes_on
        facts = torch.tensor([progress, float(goes_on)], dtype=torch.float64, device=self._device)
        distributed.broadcast(facts, 0)
        return float(facts[0]), bool(facts[1])

    def end(self) -> None:
        """Leave the others."""
        if self.count > 1 and distributed.is_initialized():
            distributed.destroy_process_group()


def device_of_rank(device: torch.device) -> torch.device:
    """Return the GPU of this process, where ``torchrun`` started several on one machine."""
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device
