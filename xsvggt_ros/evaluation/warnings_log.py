# SPDX-License-Identifier: Apache-2.0
"""Collects what a run warned of, each sentence once with how often it came."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

MOST = 50
"""Different warnings kept; of more, only the number is told."""

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class WarningLog(logging.Handler):
    """Keeps warnings of this package; those that differ in numbers only count as the same."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._first: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._beyond = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record of the log."""
        self.note(record.getMessage())

    def note(self, text: str) -> None:
        """Take a warning that did not come through the log."""
        kind = _NUMBER.sub("#", text)
        if kind not in self._first and len(self._first) >= MOST:
            self._beyond += 1
            return
        self._first.setdefault(kind, text)
        self._counts[kind] = self._counts.get(kind, 0) + 1

    def knows(self, text: str) -> bool:
        """Tell whether a warning has come already, if only with other numbers."""
        return _NUMBER.sub("#", text) in self._first

    def lines(self) -> list[str]:
        """Return the warnings in the order in which they first came."""
        lines = [
            text if self._counts[kind] == 1 else f"{text} ({self._counts[kind]} times in all)"
            for kind, text in self._first.items()
        ]
        if self._beyond:
            lines.append(f"{self._beyond} more warnings of other kinds; run with --debug for all")
        return lines


@contextmanager
def collecting_warnings() -> Iterator[WarningLog]:
    """Yield a log of what this package warns of meanwhile."""
    log = WarningLog()
    logger = logging.getLogger("xsvggt_ros")
    logger.addHandler(log)
    try:
        yield log
    finally:
        logger.removeHandler(log)
