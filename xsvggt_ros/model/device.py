# SPDX-License-Identifier: Apache-2.0
"""Where a network runs."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from xsvggt_ros.errors import ConfigurationError, first_line


def free_host_memory() -> int:
    """Return the bytes that a program may take without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        rows = dict(line.split(":", 1) for line in lines)
        return int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def resident_memory() -> int:
    """Return the bytes of this process that are in memory, 0 where nobody tells."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


AUTO = "auto"


def device_named(name: str) -> torch.device:
    """Return the device called ``name`` as PyTorch spells it; ``auto`` = a GPU where there is one.

    Raises:
        ConfigurationError: this build of PyTorch, or this machine, has no such device.

    """
    if name == AUTO:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigurationError(
            f"device '{name}' cannot be used with torch {torch.__version__}: "
            f"{first_line(error)}; use 'cpu', or install a torch build for it"
        ) from error
    return device


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that may be allocated on ``device``, None where nobody knows."""
    if device.type == "cuda":
        # What PyTorch has reserved and does not use is free as well.
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + idle
    return free_host_memory() if device.type == "cpu" else None


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` says that there is no memory left, on a GPU or on the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # The CPU's allocator has no error of its own.
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def used_memory(device: torch.device) -> int:
    """Return the bytes that this process has taken on ``device``; on the host, its resident set."""
    if device.type == "cuda":
        return int(torch.cuda.memory_reserved(device))
    return resident_memory()


def release_cached_memory() -> None:
    """Return to the system what PyTorch holds on a GPU and nobody uses."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
