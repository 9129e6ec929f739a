# SPDX-License-Identifier: Apache-2.0
"""How many threads compute on the CPU, and how they wait. Imports no PyTorch by itself.

Threads of OpenMP that have nothing to do spin for a while, in case work comes. Where two programs
share the cores, each spins in the other's way: two evaluations at once take many times as long as
one after the other. So idle threads sleep here, and small networks get fewer of them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

COUNT = "OMP_NUM_THREADS"
WAITING = "OMP_WAIT_POLICY"
_OTHER_WAITING = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")
CHANNELS_PER_THREAD = 96
"""Channels of a network's tokens that keep one thread busy; below, threads wait for each other."""

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_given = os.environ.get(COUNT)


def wait_passively() -> None:
    """Let idle threads of this process and of its children sleep instead of spin.

    OpenMP reads it when PyTorch is loaded, so programs call this first. What the environment says
    already stays.
    """
    if not any(name in os.environ for name in (WAITING, *_OTHER_WAITING)):
        os.environ[WAITING] = "PASSIVE"


def ask_for_threads(count: int) -> None:
    """Have this process and its children compute on ``count`` threads.

    0 = what the environment said before, or else as suits the network.
    """
    if count:
        os.environ[COUNT] = str(count)
        _set(count)
    elif _given is not None:
        os.environ[COUNT] = _given
    else:
        os.environ.pop(COUNT, None)


def suit_threads(channels: int) -> int:
    """Compute on as many threads as suit a network of ``channels``, unless somebody asked for some.

    Returns how many there are. Call it before the network first runs.
    """
    count = asked_threads() or suitable_threads(channels, available_cores())
    _set(count)
    return count


def asked_threads() -> int:
    """Return how many threads the environment asks for, 0 where it does not say."""
    first = os.environ.get(COUNT, "").partition(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def suitable_threads(channels: int, cores: int) -> int:
    """Return how many threads suit a network whose tokens have ``channels``."""
    return max(1, min(cores, channels // CHANNELS_PER_THREAD))


def available_cores() -> int:
    """Return the cores that this process may use: by affinity, and by a container's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores


def waiting_in_words() -> str:
    """Return how idle threads wait, for people."""
    others = [f"{name}={os.environ[name]}" for name in _OTHER_WAITING if name in os.environ]
    if others:
        return f"idle ones as {', '.join(others)} says"
    passive = os.environ.get(WAITING, "").upper() == "PASSIVE"
    return "idle ones sleep" if passive else "idle ones spin"


def _set(count: int) -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
