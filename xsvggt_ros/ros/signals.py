# SPDX-License-Identifier: Apache-2.0
"""What SIGINT, SIGTERM and SIGHUP do to a program of this package."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from threading import Event
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
    for number in _SIGNALS:
        # nohup: the program outlives its terminal.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)
