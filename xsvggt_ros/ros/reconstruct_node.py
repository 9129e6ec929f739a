# SPDX-License-Identifier: Apache-2.0
"""The node: pictures in; points, depth, poses and the state of the cache out.

The executor's thread only wraps and queues. One worker thread decodes, reconstructs, packs and
publishes, so that parameters are answered while a frame is in the network.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, nullcontext
from time import perf_counter

from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.node import Node

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError, XsvggtError
from xsvggt_ros.ros.arrival import Arrival
from xsvggt_ros.ros.engine import build_reconstructor, build_worker
from xsvggt_ros.ros.image_input import ImageInput
from xsvggt_ros.ros.log_bridge import forwarded_logging
from xsvggt_ros.ros.parameter_server import ParameterServer
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.publishers import Publishers
from xsvggt_ros.ros.repetition import Repetition
from xsvggt_ros.ros.status import Session, StatusBoard
from xsvggt_ros.ros.watchdog import Watchdog
from xsvggt_ros.stream.frame import Frame, FrameResult
from xsvggt_ros.stream.frame_queue import FrameQueue

NODE_NAME = "xsvggt"
TICK_PERIOD = 1.0
REPEAT_REFUSAL = 5.0
REPEAT_COMPLAINT = 30.0
LONGEST_GOODBYE = 4.0
"""Seconds for the frame in hand at shutdown; launch sends SIGTERM after 5."""


class ReconstructNode(Node):
    """Wires the topics to the engine.

    Raises:
        XsvggtError: parameters, weights or environment with which it cannot run.

    """

    def __init__(self, loading: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        """Build the node; the weights, which may take long, are loaded within ``loading``."""
        try:
            super().__init__(NODE_NAME)
        except ParameterException as error:  # of the parameters that rclpy itself declares
            raise ConfigurationError(f"{error}; give it a legal value") from error
        self._cleanup = ExitStack()
        self._refusals = Repetition(REPEAT_REFUSAL)
        self._complaints = Repetition(REPEAT_COMPLAINT)
        self._parameter_server = ParameterServer(self)
        self._status = StatusBoard(self)
        self._cleanup.enter_context(forwarded_logging(self.get_logger(), self._status.note))
        settings = self._parameter_server.settings
        with loading():
            self._reconstructor = build_reconstructor(settings)
        self._wanted_cache: CacheSettings | None = settings.cache_settings
        self._outputs = Publishers(self)
        self._arrival = Arrival()
        self._keeps_all = settings.input.queue_policy == "all"
        queue = FrameQueue(settings.input.queue_policy, settings.input.queue_size)
        self._worker = build_worker(
            self._reconstructor,
            queue,
            on_result=self._on_result,
            on_refused=self._on_refused,
            on_room=self._on_room,
        )
        self._input = ImageInput(self, settings, queue, self._arrival)
        self._watchdog = Watchdog(self, self._input, lambda: self._worker.activity)
        self._parameter_server.attach(self._check_cache, self._configure_cache)
        self._parameter_server.warn_of_unknown()
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(TICK_PERIOD, self._on_tick, clock=steady)

    def start(self) -> None:
        """Start to reconstruct."""
        self._worker.start()
        self.get_logger().info(f"waiting for pictures on {self._input.topic}")

    def close(self) -> bool:
        """Finish the frame in hand and destroy the node; return False if the frame takes longer."""
        if not self._worker.stop(LONGEST_GOODBYE):
            self.get_logger().warning(
                f"the frame in hand takes longer than {LONGEST_GOODBYE:g} s; leaving without it"
            )
            return False
        self._cleanup.close()
        self.destroy_node()
        return True

    def _check_cache(self, settings: Settings) -> None:
        if settings.cache_settings != self._wanted_cache:
            self._reconstructor.check_cache(settings.cache_settings)

    def _configure_cache(self, settings: Settings) -> None:
        """Let the worker take on the cache's new settings before its next frame."""
        wanted = settings.cache_settings
        if wanted == self._wanted_cache:
            return
        self._wanted_cache = wanted
        change = self._worker.submit(lambda engine: engine.configure_cache(wanted))
        change.add_done_callback(self._report_failed_change)

    def _report_failed_change(self, change: Future[None]) -> None:
        if not change.cancelled() and (error := change.exception()):
            self._wanted_cache = None  # so that the same values may be tried again
            self._status.note(f"the cache keeps its settings: {error}")
            self.get_logger().error(f"the cache keeps its settings: {error}")

    def _on_result(self, result: FrameResult) -> None:
        started = perf_counter()
        self._outputs.publish(result, self._parameter_server.settings)
        self._status.show_result(
            result,
            Session(self._reconstructor.session, self._reconstructor.session_frames),
            self._worker.counters,
            publish_seconds=perf_counter() - started,
            total_seconds=self._arrival.age(),
        )

    def _on_refused(self, frame: Frame, error: XsvggtError) -> None:
        text = f"picture with stamp {frame.stamp / 1e9:.3f} refused: {error}"
        if admitted := self._refusals.admit(text):
            self.get_logger().warning(admitted)
        self._status.show_refusal(frame, text, self._worker.counters)

    def _on_room(self) -> None:
        """Wake the executor: with queue policy all, pictures may wait in the middleware."""
        if self._keeps_all and self.executor is not None:
            self.executor.wake()

    def _on_tick(self) -> None:
        self._input.match_publishers()
        self._outputs.publish_path()
        timeout = self._parameter_server.settings.watchdog.timeout
        stuck = self._watchdog.stuck(timeout)
        complaint = stuck or self._watchdog.silence(timeout)
        if complaint:
            self._complain(complaint)
        self._status.show_idle(self._worker.counters, timeout=timeout, stuck=bool(stuck))

    def _complain(self, complaint: str) -> None:
        self._status.note(complaint)
        if admitted := self._complaints.admit(complaint):
            self.get_logger().warning(admitted)
