# SPDX-License-Identifier: Apache-2.0
"""What the core logs, forwarded to the node's logger; the core itself knows no ROS."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rclpy.impl.rcutils_logger import RcutilsLogger

_CORE = "xsvggt_ros"


class _Bridge(logging.Handler):
    def __init__(self, logger: RcutilsLogger, on_warning: Callable[[str], None]) -> None:
        super().__init__()
        self._logger = logger
        self._on_warning = on_warning

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        # rclpy fixes the severity of a call by the line it is made from: one line for each.
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)
        if record.levelno >= logging.WARNING:
            self._on_warning(record.getMessage())


@contextmanager
def forwarded_logging(logger: RcutilsLogger, on_warning: Callable[[str], None]) -> Iterator[None]:
    """Forward the core's log records; ``on_warning`` gets the text of warnings and errors."""
    core = logging.getLogger(_CORE)
    before = core.level, core.propagate
    bridge = _Bridge(logger, on_warning)
    core.addHandler(bridge)
    core.setLevel(logging.DEBUG)
    core.propagate = False
    try:
        yield
    finally:
        core.removeHandler(bridge)
        core.setLevel(before[0])
        core.propagate = before[1]
