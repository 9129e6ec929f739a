# SPDX-License-Identifier: Apache-2.0
"""What SIGINT, SIGTERM and SIGHUP do to a program of this package."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing import resource_tracker
from threading import Event
from types import FrameType
from typing import Any, NoReturn

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
