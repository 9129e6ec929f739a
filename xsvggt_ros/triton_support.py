# SPDX-License-Identifier: Apache-2.0
"""Whether kernels written in Triton can run here.

Triton comes with PyTorch's CUDA builds, needs a GPU of compute capability 7.0 or newer, and
compiles at run time, for which it needs a C compiler. Where any of that is missing, the operations
of this package run as plain PyTorch instead.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec

import torch

from xsvggt_ros.errors import first_line

logger = logging.getLogger(__name__)

_OLDEST = (7, 0)


def triton_runs(device: torch.device) -> bool:
    """Return whether Triton kernels run on ``device``; the first call for a GPU tries one."""
    if device.type != "cuda":
        return False
    index = device.index if device.index is not None else torch.cuda.current_device()
    return why_not(index) == ""


@cache
def why_not(index: int) -> str:
    """Return why Triton kernels do not run on GPU ``index``; empty where they do."""
    reason = _missing(index) or _failure(index)
    if reason:
        logger.warning(
            "no Triton kernels on GPU %d: %s; PyTorch's own operations are used, which is slower",
            index, reason,
        )  # fmt: skip
    return reason


def _missing(index: int) -> str:
    if find_spec("triton") is None:
        return "the package triton is not installed (it comes with PyTorch's CUDA builds)"
    capability = torch.cuda.get_device_capability(index)
    if capability < _OLDEST:
        return f"its compute capability {capability[0]}.{capability[1]} is below 7.0"
    return ""


def _failure(index: int) -> str:
    """Compile and run a small kernel; return what went wrong."""
    try:
        from xsvggt_ros.triton_probe import doubled

        with torch.cuda.device(index):
            found = doubled(torch.ones(4, device=f"cuda:{index}"))
        return "" if bool((found == 2).all()) else "a trial kernel gives wrong results"
    except Exception as error:  # noqa: BLE001 - a compiler fails in many ways, and none may end a node
        return f"a trial kernel cannot be compiled ({first_line(error)}); install a C compiler"
