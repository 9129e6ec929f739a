# SPDX-License-Identifier: Apache-2.0
"""What SIGINT and SIGTERM do to a program of this package."""

from __future__ import annotations

import os
import signal
import sys
from threading import Event
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def leave_at_signals() -> None:
    """End the process at once and quietly, as long as it has nothing to finish.

    An exception would surface within the import or the extension that happens to run, and some
    of these abort the process then.
    """
    for number in _SIGNALS:
        signal.signal(number, lambda *_: os._exit(0))


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
    for number in _SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    return stop
