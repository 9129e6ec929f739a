# SPDX-License-Identifier: Apache-2.0
"""The process that a program of this package runs in: its threads, and what signals do to it.

Threads of OpenMP that have nothing to do spin for a while, in case work comes. Where two programs
share the cores, each spins in the other's way: two evaluations at once take many times as long as
one after the other. So idle threads sleep here, and small networks get fewer of them.

Imports no PyTorch by itself.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Any, NoReturn

THREAD_COUNT = "OMP_NUM_THREADS"
THREAD_WAITING = "OMP_WAIT_POLICY"
_OTHER_WAITING = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")
CHANNELS_PER_THREAD = 96
"""Channels of a network's tokens that keep one thread busy; below, threads wait for each other."""

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_given_threads = os.environ.get(THREAD_COUNT)


def wait_passively() -> None:
    """Let idle threads of this process and of its children sleep instead of spin.

    OpenMP reads it when PyTorch is loaded, so programs call this first. What the environment says
    already stays.
    """
    if not any(name in os.environ for name in (THREAD_WAITING, *_OTHER_WAITING)):
        os.environ[THREAD_WAITING] = "PASSIVE"


def ask_for_threads(count: int) -> None:
    """Have this process and its children compute on ``count`` threads.

    0 = what the environment said before, or else as suits the network.
    """
    if count:
        os.environ[THREAD_COUNT] = str(count)
        _set_threads(count)
    elif _given_threads is not None:
        os.environ[THREAD_COUNT] = _given_threads
    else:
        os.environ.pop(THREAD_COUNT, None)


def suit_threads(channels: int) -> int:
    """Compute on as many threads as suit a network of ``channels``, unless somebody asked for some.

    Returns how many there are. Call it before the network first runs.
    """
    count = asked_threads() or suitable_threads(channels, available_cores())
    _set_threads(count)
    return count


def asked_threads() -> int:
    """Return how many threads the environment asks for, 0 where it does not say."""
    first = os.environ.get(THREAD_COUNT, "").partition(",")[0].strip()
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
    passive = os.environ.get(THREAD_WAITING, "").upper() == "PASSIVE"
    return "idle ones sleep" if passive else "idle ones spin"


def _set_threads(count: int) -> None:
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

INTERRUPTED = 130
"""Exit code of a program that a signal ended."""


def interruptible() -> AbstractContextManager[None]:
    """Make every signal a KeyboardInterrupt, SIGINT also where the shell had it ignored."""
    return _handled_by(signal.default_int_handler)


@contextmanager
def stop_request() -> Iterator[Event]:
    """Yield an event that the first signal sets; the next one is a KeyboardInterrupt."""
    requested = Event()

    def request(number: int, place: Any) -> None:
        if requested.is_set():
            signal.default_int_handler(number, place)
        requested.set()

    with _handled_by(request):
        yield requested


@contextmanager
def deaf_children() -> Iterator[None]:
    """Hold signals back for a while; processes that this thread starts meanwhile never hear them.

    A signal for the whole group of processes then ends only the one that knows what to finish, and
    that one tells the others.
    """
    # Starting it, which the first queue does, would let signals through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _handled_by(handler: Callable[[int, Any], Any]) -> Iterator[None]:
    """Handle signals for a while; only the main thread can, so others change nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.getsignal(each) for each in SIGNALS}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        del before[signal.SIGHUP]  # nohup: the run outlives its terminal
    for each in before:
        signal.signal(each, handler)
    try:
        yield
    finally:
        for each, earlier in before.items():
            signal.signal(each, earlier)


def leave_at_signals() -> None:
    """End the process at once and quietly, as long as it has nothing to finish.

    An exception would surface within the import or the extension that happens to run, and some
    of these abort the process then.
    """
    _handle(lambda *_: os._exit(0))


def leave(code: int | None) -> NoReturn:
    """End the process now that all is taken down.

    The interpreter's own way out takes seconds where PyTorch is loaded, and signals kill in it.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def event_at_signals() -> Event:
    """Return an event that is set by the next signal."""
    stop = Event()
    _handle(lambda *_: stop.set())
    return stop


def _handle(handler: Callable[[int, FrameType | None], None]) -> None:
    for number in SIGNALS:
        # nohup: the program outlives its terminal.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)
