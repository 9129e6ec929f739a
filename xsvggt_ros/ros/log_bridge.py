# SPDX-License-Identifier: Apache-2.0
"""What the package logs, forwarded to the node's logger; the core itself knows no ROS."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rclpy.impl.rcutils_logger import RcutilsLogger

from xsvggt_ros.ros.log_throttle import LogThrottle

_PACKAGE = "xsvggt_ros"
_REPEAT = 5.0


class _Bridge(logging.Handler):
    def __init__(self, logger: RcutilsLogger, on_warning: Callable[[str], None]) -> None:
        super().__init__()
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
    before = package.level, package.propagate
    bridge = _Bridge(logger, on_warning)
    package.addHandler(bridge)
    package.setLevel(logging.DEBUG)
    package.propagate = False
    try:
        yield
    finally:
        package.removeHandler(bridge)
        package.setLevel(before[0])
        package.propagate = before[1]
