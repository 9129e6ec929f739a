# SPDX-License-Identifier: Apache-2.0
"""Kernels that begin before the one in front of them has ended. Importing this needs Triton.

From compute capability 9.0 on, a kernel may let the next one start, which then does what does not
depend on it, and waits for it before it goes on ("programmatic dependent launch"). It hides the
launch, and here the first reads of weights, which is much where a kernel takes a few microseconds.

A kernel that starts early may run beside kernels long before it in the stream, so before it waits
it may read nothing but constants, and must write nothing.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl

OLDEST = (9, 0)
_INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"


@triton.jit
def start_next() -> None:
    """Let the next kernel of the stream start."""
    tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def wait_for_previous() -> None:
    """Wait until the kernel in front has ended."""
    tl.extra.cuda.gdc_wait()


@cache
def can_start_early(device: torch.device) -> bool:
    """Return whether kernels can start early on ``device``, and this Triton knows how."""
    if device.type != "cuda" or _INTERPRETING or torch.version.hip is not None:
        return False
    known = hasattr(getattr(tl.extra, "cuda", None), "gdc_wait")
    return known and torch.cuda.get_device_capability(device) >= OLDEST


def launch_options(ahead: bool) -> dict[str, Any]:
    """Return what a kernel that starts early is launched with."""
    return {"launch_pdl": True} if ahead else {}
