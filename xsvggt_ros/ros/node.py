# SPDX-License-Identifier: Apache-2.0
"""The program ``reconstruct_node``: the life of the node in a process of its own.

What takes seconds to import is imported once signals are waited for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

from xsvggt_ros.errors import ConfigurationError, XsvggtError
from xsvggt_ros.process import (
    event_at_signals,
    interruptible,
    leave,
    leave_at_signals,
    wait_passively,
)

if TYPE_CHECKING:
    from xsvggt_ros.ros.reconstruct_node import ReconstructNode

_WAKE_PERIOD = 0.1


def main(args: list[str] | None = None) -> int:
    """Run the node until a signal ends it; return the exit code."""
    leave_at_signals()
    wait_passively()
    return run(args)


def run(args: list[str] | None) -> int:
    """Run the node, signals being waited for already; return the exit code."""
    from rclpy.logging import get_logger

    from xsvggt_ros.ros.engine import import_engine
    from xsvggt_ros.ros.reconstruct_node import NODE_NAME, ReconstructNode

    try:
        import_engine()  # nothing has to be taken down yet
        stop = event_at_signals()
        with _ros(args), suppress(KeyboardInterrupt):
            _spin(ReconstructNode(partial(_interruptible, stop)), stop)
    except XsvggtError as error:
        get_logger(NODE_NAME).fatal(str(error))
        return 1
    return 0


@contextmanager
def _interruptible(stop: Event) -> Iterator[None]:
    """Let a signal break off the block, which takes no care of ``stop`` itself."""
    with interruptible():
        if stop.is_set():
            raise KeyboardInterrupt
        yield


@contextmanager
def _ros(args: list[str] | None) -> Iterator[None]:
    """Keep ROS up; its own signal handlers would take it down before the worker has ended."""
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:
        raise ConfigurationError(f"the ROS arguments cannot be used: {error}") from error
    try:
        yield
    finally:
        rclpy.try_shutdown()


def _spin(node: ReconstructNode, stop: Event) -> None:
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

    from xsvggt_ros.ros.processes import remove_own

    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        node.start()
        with suppress(ExternalShutdownException):
            while not stop.is_set():
                executor.spin_once(timeout_sec=_WAKE_PERIOD)
    finally:
        if not node.close():
            remove_own()
            os._exit(0)  # ROS cannot be taken down below a thread that is about to publish
        executor.shutdown()


if __name__ == "__main__":
    leave(main())
