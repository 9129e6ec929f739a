# SPDX-License-Identifier: Apache-2.0
"""The life of the node in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.signals import SignalHandlerOptions

from xsvggt_ros.errors import ConfigurationError, XsvggtError
from xsvggt_ros.ros.reconstruct_node import NODE_NAME, ReconstructNode
from xsvggt_ros.ros.signals import event_at_signals

_WAKE_PERIOD = 0.1


def run(args: list[str] | None) -> int:
    """Run the node until SIGINT or SIGTERM; return the exit code."""
    try:
        with _ros(args):
            _spin(ReconstructNode())
    except XsvggtError as error:
        get_logger(NODE_NAME).fatal(str(error))
        return 1
    return 0


@contextmanager
def _ros(args: list[str] | None) -> Iterator[None]:
    """Keep ROS up; its own signal handlers would take it down before the worker has ended."""
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:
        raise ConfigurationError(f"the ROS arguments cannot be used: {error}") from error
    try:
        yield
    finally:
        rclpy.try_shutdown()


def _spin(node: ReconstructNode) -> None:
    stop = event_at_signals()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    node.start()
    try:
        with suppress(ExternalShutdownException):
            while not stop.is_set():
                executor.spin_once(timeout_sec=_WAKE_PERIOD)
    finally:
        if not node.close():
            os._exit(0)  # ROS cannot be taken down below a thread that is about to publish
        executor.shutdown()
