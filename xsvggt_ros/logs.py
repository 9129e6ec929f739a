# SPDX-License-Identifier: Apache-2.0
"""Loggers of this package that are plain ones, whatever class a host program has installed.

ROS 2's launch, once imported, makes every new logger one that passes nothing on to its parents and
loses its handlers with each launch: the package's records would reach neither the node's log, nor
its status, nor the command line. Each room imports this module before it makes a logger.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "xsvggt_ros"


def _module_names() -> Iterator[str]:
    import xsvggt_ros

    yield PACKAGE
    for directory in xsvggt_ros.__path__:
        for path in Path(directory).rglob("*.py"):
            parts = path.relative_to(directory).with_suffix("").parts
            yield ".".join((PACKAGE, *(part for part in parts if part != "__init__")))


def _make_loggers() -> None:
    host = logging.getLoggerClass()
    logging.setLoggerClass(logging.Logger)
    try:
        for name in set(_module_names()):
            logging.getLogger(name).propagate = True
    finally:
        logging.setLoggerClass(host)


_make_loggers()
