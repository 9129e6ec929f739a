# SPDX-License-Identifier: Apache-2.0
"""Log messages of the package as those of a node, and none of them too often."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rclpy.impl.rcutils_logger import RcutilsLogger

logger = logging.getLogger(__name__)


_VARYING = re.compile(r"\b[0-9a-f]{2}\b(?: [0-9a-f]{2}\b)*|\d+")
"""Hexadecimal bytes and numbers."""

_MOST_KINDS = 256


class LogThrottle:
    """Lets a text through once per ``interval`` seconds.

    Texts that differ in numbers or bytes are one. What was held back is counted and told with the
    next text that gets through.
    """

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._kinds: dict[str, tuple[float, int]] = {}

    def admit(self, text: str) -> str | None:
        """Return what to log, or None where the same was logged a moment ago."""
        kind = _VARYING.sub("#", text)
        now = self._clock()
        last, held_back = self._kinds.get(kind, (-float("inf"), 0))
        if now - last < self._interval:
            self._kinds[kind] = last, held_back + 1
            return None
        if len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
        self._kinds[kind] = now, 0
        return f"{text} ({held_back} more like this)" if held_back else text


_PACKAGE = "xsvggt_ros"
_REPEAT = 5.0


class _Bridge(logging.Handler):
    """Forwards records.

    Attributes:
        before: level and propagation of the package's logger without any bridge. Two nodes of one
            process may end in any order, so that neither can restore what it found.

    """

    def __init__(
        self,
        logger: RcutilsLogger,
        on_warning: Callable[[str], None],
        before: tuple[int, bool],
    ) -> None:
        super().__init__()
        self.before = before
        self._logger = logger
        self._on_warning = on_warning
        self._repetition = LogThrottle(_REPEAT)

    def emit(self, record: logging.LogRecord) -> None:
        if text := self._admitted(record):
            self._log(record.levelno, text)
        if record.levelno >= logging.WARNING:
            self._on_warning(record.getMessage())

    def _admitted(self, record: logging.LogRecord) -> str | None:
        text = self.format(record)
        return text if record.levelno < logging.INFO else self._repetition.admit(text)

    def _log(self, level: int, text: str) -> None:
        # rclpy fixes the severity of a call by the line it is made from: one line for each.
        if level >= logging.ERROR:
            self._logger.error(text)
        elif level >= logging.WARNING:
            self._logger.warning(text)
        elif level >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)


@contextmanager
def forwarded_logging(logger: RcutilsLogger, on_warning: Callable[[str], None]) -> Iterator[None]:
    """Forward the package's log records, each kind once per while; debug ones all.

    ``on_warning`` gets the text of every warning and error.
    """
    package = logging.getLogger(_PACKAGE)
    others = _bridges(package)
    before = others[0].before if others else (package.level, package.propagate)
    bridge = _Bridge(logger, on_warning, before)
    package.addHandler(bridge)
    package.setLevel(logging.DEBUG)
    package.propagate = False
    try:
        yield
    finally:
        package.removeHandler(bridge)
        if not _bridges(package):
            package.setLevel(before[0])
            package.propagate = before[1]


def _bridges(package: logging.Logger) -> list[_Bridge]:
    return [handler for handler in package.handlers if isinstance(handler, _Bridge)]
