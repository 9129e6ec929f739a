# SPDX-License-Identifier: Apache-2.0
"""The node: images in; points, depth, poses and the state of the cache out.

The executor's thread only wraps and queues. One worker thread decodes, reconstructs, packs and
publishes, so that parameters are answered while a frame is in the network.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.parameter import Parameter

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import (
    ConfigurationError,
    DeviceFullError,
    FrameError,
    XsvggtError,
    first_line,
)
from xsvggt_ros.ros.engine import build_reconstructor, build_worker, release_device
from xsvggt_ros.ros.image_input import RigInput
from xsvggt_ros.ros.lifecycle import ManagedNode, manager_appears
from xsvggt_ros.ros.log_bridge import LogThrottle, forwarded_logging
from xsvggt_ros.ros.parameter_server import ParameterServer
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.publishers import MapPublisher, RigPublisher
from xsvggt_ros.ros.scale_input import ScaleInput
from xsvggt_ros.ros.services import Services
from xsvggt_ros.ros.status import Diagnostics, StatusPublisher, degraded
from xsvggt_ros.ros.transforms import TransformLookup
from xsvggt_ros.stream.chain_settings import caches_of
from xsvggt_ros.stream.frame import Frame, FrameResult, FrameUpdate
from xsvggt_ros.stream.mapping import MapBuilder
from xsvggt_ros.stream.pipeline import PipelineHooks
from xsvggt_ros.stream.worker import FrameQueue

if TYPE_CHECKING:
    from xsvggt_ros.stream.chain import ChainedReconstructor
    from xsvggt_ros.stream.reconstructor import Reconstructor
    from xsvggt_ros.stream.worker import Worker

T = TypeVar("T")

logger = logging.getLogger(__name__)

NODE_NAME = "xsvggt"
TICK_PERIOD = 1.0
MAP_PERIOD = 0.05
"""Seconds between two looks at whether the map is due."""
REFUSAL_PERIOD = 5.0
WARNING_PERIOD = 30.0
NAMESAKE_PATIENCE = 30.0
"""Seconds: a node that was killed is seen for 20 s, its successor lives with it so long."""
SHUTDOWN_TIMEOUT = 4.0
"""Seconds for the current frame at shutdown; launch sends SIGTERM after 5."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What there is from configure to cleanup."""

    reconstructor: ChainedReconstructor
    worker: Worker
    queue: FrameQueue

    def settle(self, timeout: float) -> bool:
        """Wait for the current frame; return False if it takes longer."""
        try:
            self.worker.submit(lambda _: None).result(timeout)
        except FutureTimeoutError:
            return False
        except CancelledError:  # it has stopped
            return True
        return True


class ReconstructNode(ManagedNode):
    """Wires the topics to the engine.

    Raises:
        ConfigurationError: parameters that no node could have.

    """

    def __init__(self, loading: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        """Build the node; the weights, which may take long, are loaded within ``loading``."""
        # ROS destroys a node whose parameters are refused, so half of one must be able to end.
        self._engine: Engine | None = None
        self._cleanup = ExitStack()
        try:
            super().__init__(NODE_NAME)
        except ParameterException as error:  # of the parameters that rclpy itself declares
            raise ConfigurationError(f"{error}; give it a legal value") from error
        except (NameValidationException, RuntimeError) as error:
            reason = first_line(error).partition(", at ")[0]
            if "name" not in reason:
                raise
            # Jazzy mistakes the reason, so what is legal is said here.
            raise ConfigurationError(
                f"{reason}; correct __ns or __node among the ROS arguments: words of letters, "
                "digits and _ that begin with a letter, a / between them and none at the end"
            ) from error
        self._loading = loading
        self._refusals = LogThrottle(REFUSAL_PERIOD)
        self._warnings = LogThrottle(WARNING_PERIOD)
        self._said_once: set[str] = set()
        self._alone = monotonic()
        self._parameter_server = ParameterServer(self)
        self._status = StatusPublisher(self)
        self._cleanup.enter_context(forwarded_logging(self.get_logger(), self._status.note))
        self._transforms = TransformLookup(self, lambda: self._parameter_server.settings)
        self._scale = ScaleInput(self, lambda: self._parameter_server.settings)
        self._outputs = RigPublisher(self, self._transforms.owners)
        self._outputs.prepare(self._parameter_server.settings.input.camera_names)
        self._diagnostics = Diagnostics(self, self._status)
        self._changes: SimpleQueue[dict[str, int | float]] = SimpleQueue()
        self._changed = self.create_guard_condition(self._adopt_changes)
        self._map = MapPublisher(self)
        self._map_publication: Future[None] | None = None
        self._cleanup.callback(Services(self, self).close)
        self._input: RigInput | None = None
        self._wanted_cache: CacheSettings | None = None
        self._parameter_server.attach(self._check_cache, self._configure_cache)
        self._parameter_server.warn_of_unknown(qos=False)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(TICK_PERIOD, self._on_tick, clock=steady)
        self.create_timer(MAP_PERIOD, self._on_map_timer, clock=steady)

    def start(self) -> None:
        """Configure and activate, unless that is left to a lifecycle manager.

        Raises:
            XsvggtError: weights, parameters or an environment with which it cannot run.

        """
        if not self._parameter_server.settings.lifecycle.autostart:
            self.get_logger().info("unconfigured: waiting for ros2 lifecycle set, or a manager")
        elif manager_appears(self):
            self.get_logger().warning(
                "unconfigured: another node holds a client of ~/change_state, so a lifecycle "
                "manager is left to start this one; set lifecycle.autostart to false to say so"
            )
        else:
            self.autostart()

    def configure(self) -> None:
        """Load the weights, warm up the network, and start the worker."""
        settings = self._parameter_server.settings
        self._status.begin()
        self._said_once.clear()
        self._status.set_paused(False)
        self._diagnostics.begin()
        self._scale.begin()
        self._outputs.prepare(settings.input.camera_names)
        self._status.show_phase("warming up")
        with self._loading():
            reconstructor = build_reconstructor(settings)
        self._wanted_cache = settings.cache
        size = settings.input.queue_size * len(settings.input.camera_names)
        queue = FrameQueue(settings.input.queue_policy, size)
        worker = build_worker(reconstructor, self._hooks(), queue, self._on_room)
        worker.start()
        self._engine = Engine(reconstructor, worker, queue)
        self._parameter_server.locked = True

    def activate(self) -> None:
        """Subscribe."""
        engine = self._configured
        settings = self._parameter_server.settings
        self._outputs.forget_map()
        self._transforms.listen()
        self._scale.listen()
        self._input = RigInput(self, settings, engine.queue, lambda: engine.worker.activity)
        self._parameter_server.warn_of_unknown(qos=True)
        topics = ", ".join(each.topic for each in self._input.cameras)
        self.get_logger().info(f"waiting for images on {topics}")

    def deactivate(self) -> None:
        """Unsubscribe, and finish the current frame; cache and session stay."""
        self._unsubscribe()
        engine = self._configured
        engine.queue.discard()
        if not engine.settle(SHUTDOWN_TIMEOUT):
            self.get_logger().warning(
                f"the current frame takes longer than {SHUTDOWN_TIMEOUT:g} s; its results follow"
            )

    def cleanup(self) -> None:
        """Stop the worker, and free the device.

        Raises:
            FrameError: the current frame takes too long; nothing has changed then.

        """
        self._unsubscribe()
        engine = self._engine
        if engine is not None:
            engine.queue.discard()
            if not engine.settle(SHUTDOWN_TIMEOUT) or not engine.worker.stop(SHUTDOWN_TIMEOUT):
                raise FrameError(
                    f"the current frame takes longer than {SHUTDOWN_TIMEOUT:g} s; try again"
                )
            self._map.drop(self._parameter_server.settings.frames.map)
        self._engine = engine = None
        self._wanted_cache = None
        self._status.begin()
        self._parameter_server.locked = False
        release_device()

    def recover(self, failure: str) -> None:
        """Clean up after an unforeseen failure, and keep it in the status."""
        self.cleanup()
        self._status.note(failure)

    def close(self) -> bool:
        """Finish the current frame and destroy the node; return False if the frame takes longer."""
        if self._engine is not None and not self._engine.worker.stop(SHUTDOWN_TIMEOUT):
            self.get_logger().warning(
                f"the current frame takes longer than {SHUTDOWN_TIMEOUT:g} s; leaving without it"
            )
            return False
        self.destroy_node()
        return True

    def destroy_node(self) -> None:
        """Finish the current frame, however long it takes, and destroy the node.

        Its worker, its services' threads and what logs publish on it until then.
        """
        if self._engine is not None:
            self._engine.worker.stop(None)
        self._cleanup.close()
        super().destroy_node()

    @property
    def _configured(self) -> Engine:
        if self._engine is None:
            raise ConfigurationError("the node is not configured; configure it first")
        return self._engine

    def _unsubscribe(self) -> None:
        if self._input is not None:
            self._input.close()
            self._input = None
        self._transforms.close()
        self._scale.close()

    def _check_cache(self, settings: Settings) -> None:
        if self._engine is None:
            return
        engine = self._engine.reconstructor
        engine.check_refinement(settings.pose.refinement)
        caches = caches_of(settings.chain)
        if settings.cache != self._wanted_cache or caches != caches_of(engine.chain):
            engine.check_cache(settings.cache, caches=caches)

    def _configure_cache(self, settings: Settings) -> None:
        """Have the worker apply the new cache settings before its next frame."""
        if self._engine is None:
            return
        engine, wanted = self._engine.reconstructor, settings.cache
        refinement, chain = settings.pose.refinement, settings.chain
        self._engine.worker.submit(lambda _: engine.set_refinement(refinement))
        changes: list[Callable[[Reconstructor], None]] = [lambda _: engine.set_chain(chain)]
        if wanted != self._wanted_cache:
            self._wanted_cache = wanted
            # A budget for two caches is there before the second one is, and goes after it.
            first = 0 if caches_of(chain) > 1 else 1
            changes.insert(first, lambda _: engine.configure_cache(wanted))
        for change in changes:
            self._engine.worker.submit(change).add_done_callback(self._report_failed_change)

    def _report_failed_change(self, change: Future[None]) -> None:
        if not change.cancelled() and (error := change.exception()):
            self._wanted_cache = None  # so that the same values may be tried again
            self._status.note(f"cache and chain keep their settings: {error}")
            self.get_logger().error(f"cache and chain keep their settings: {error}")

    def _hooks(self) -> PipelineHooks:
        """Return what this node adds to the way of a frame."""
        return PipelineHooks(
            transforms=self._transforms.look_up,
            scale=self._scale.scale,
            measured_pose=self._scale.measured_pose,
            map=lambda update: self._map.add(update, self._parameter_server.settings),
            publish=lambda update: self._outputs.publish(update, self._parameter_server.settings),
            report=self._report,
            report_refusal=self._report_refusal,
            report_failure=self._report_failure,
        )

    def _report(self, update: FrameUpdate) -> None:
        """Say what one frame brought."""
        if update.faults and (admitted := self._warnings.admit(degraded(update.faults))):
            self.get_logger().warning(admitted)
        self._status.set_scale(self._scale.state, self._scale.idleness() or "")
        self._status.set_map(self._map.points, self._map.nbytes, self._map.seconds)
        self._diagnostics.meter.note_latency(update.total_seconds)
        self._status.show_update(update, self._configured.worker.counters)

    def _report_refusal(self, frame: Frame, error: XsvggtError) -> None:
        text = f"image with stamp {frame.stamp / 1e9:.3f} refused: {error}"
        if admitted := self._refusals.admit(text):
            self.get_logger().warning(admitted)
        self._status.show_refusal(frame, text, self._configured.worker.counters)
        if isinstance(error, DeviceFullError):
            self._changes.put(error.changes)
            self._changed.trigger()

    def _report_failure(self, result: FrameResult, error: Exception) -> None:
        text = f"the result of stamp {result.stamp / 1e9:.3f} was not published: {_describe(error)}"
        logger.debug("%s", text, exc_info=error)
        if admitted := self._refusals.admit(text):
            self.get_logger().error(admitted)
        self._status.show_refusal(result, text, self._configured.worker.counters)

    def _adopt_changes(self) -> None:
        """Set the parameters to what the engine reduced by itself."""
        while not self._changes.empty():
            changes = self._changes.get()
            parameters = [Parameter(name, value=value) for name, value in changes.items()]
            result = self.set_parameters_atomically(parameters)
            if not result.successful:
                self.get_logger().error(f"the parameters keep the old budget: {result.reason}")

    def _on_room(self) -> None:
        """Wake the executor: with queue policy all, images may wait in the middleware."""
        if self._configured.queue.policy == "all" and self.executor is not None:
            self.executor.wake()

    def _on_tick(self) -> None:
        try:
            self._outputs.publish_path()
        except Exception as error:  # noqa: BLE001 - it would end the executor
            self._report_unpublished("the path", error)
        if self._input is None or self._engine is None:
            self._warn_of_rivals()
            self._status.show_phase("unconfigured" if self._engine is None else "inactive")
            self._diagnostics.publish()
            return
        images, engine = self._input, self._engine
        for camera in images.cameras:
            camera.match_publishers()
        self._transforms.match_publishers()
        timeout = self._parameter_server.settings.watchdog.timeout
        stuck = images.watchdogs[0].stuck(timeout)
        if not engine.worker.alive:
            stuck = (
                "the worker has ended unexpectedly, and nothing is reconstructed: restart the node"
            )
        self._warn_of_faults(images, timeout)
        self._warn_of_rivals()
        silences = [] if stuck else [each.silence(timeout) for each in images.watchdogs]
        # The last one is shown in ~/status: it explains the others.
        for warning in filter(None, (self._scale.silence(timeout), *silences, stuck)):
            self._warn(warning)
        self._status.timeout = timeout
        self._status.set_scale(self._scale.state, self._scale.idleness() or "")
        self._status.show_idle(engine.worker.counters, stuck=bool(stuck))
        self._diagnostics.publish(
            engine.worker.counters, images, engine.reconstructor, self._map.facts
        )

    def _warn_of_rivals(self) -> None:
        """Warn of another node of this name, or of others that broadcast our transforms."""
        own = (self.get_name(), self.get_namespace())
        namesake = self.get_node_names_and_namespaces().count(own) > 1
        text = (
            f"another node is named {self.get_fully_qualified_name()}, too, so that topics, "
            "services and parameters of both are mixed up: end one of them, or start it in "
            "another namespace, with frames of its own"
        )
        settings = self._parameter_server.settings
        faults = self._transforms.owners.conflicts(settings, namesake=namesake)
        if not namesake:
            self._alone = monotonic()
            self._status.forget(text)
        elif monotonic() - self._alone > NAMESAKE_PATIENCE:
            faults.append(text)
        for fault in faults:
            self._status.note_fault(fault)
            if fault not in self._said_once:
                self._said_once.add(fault)
                self.get_logger().warning(fault)

    def _warn_of_faults(self, images: RigInput, timeout: float) -> None:
        """Warn of faults of the input."""
        mixtures = [each.mixture() for each in images.watchdogs]
        for fault in filter(None, (*mixtures, *images.clock_warnings())):
            self._status.note_fault(fault)
            self._warn(fault)
        for camera in images.cameras:
            if missing := camera.missing_calibration(timeout):
                # No fault: many cameras have none. So ~/status goes on with what it says.
                self.get_logger().warning(missing)

    def _on_map_timer(self) -> None:
        """Have the worker publish the map if it is due: packing would block this thread."""
        settings = self._parameter_server.settings
        if self._input is not None:
            self._outputs.repeat_map(settings)
        busy = self._map_publication is not None and not self._map_publication.done()
        if self._engine is None or busy or not self._map.due(settings.map.rate):
            return
        self._map_publication = self._engine.worker.submit(
            lambda _: self._map.publish(settings.frames.map)
        )
        self._map_publication.add_done_callback(self._report_failed_map)

    def _report_failed_map(self, publication: Future[None]) -> None:
        if not publication.cancelled() and (error := publication.exception()):
            self._report_unpublished("the map", error)

    def _report_unpublished(self, what: str, error: BaseException) -> None:
        text = f"{what} was not published: {_describe(error)}"
        self._status.note_fault(text)
        self._warn(text)

    @property
    def paused(self) -> bool:
        """Whether images are dropped because somebody asked for it."""
        return self._configured.queue.paused

    def pause(self) -> None:
        """Drop and count images from now on."""
        self._configured.queue.pause()
        self._status.set_paused(True)

    def resume(self) -> int:
        """Take images again; return how many were dropped meanwhile."""
        self._status.set_paused(False)
        return self._configured.queue.resume()

    def reset(self, reason: str) -> Future[None]:
        """Forget the stream and its map before the next image."""

        def forget(engine: Reconstructor) -> None:
            engine.reset(reason)
            self._outputs.forget_map()
            self._map.clear(self._parameter_server.settings.frames.map)

        return self._configured.worker.submit(forget)

    def reanchor(self, reason: str) -> Future[None]:
        """Start from a new first frame with the next image, in the same world."""
        engine = self._configured
        return engine.worker.submit(lambda _: engine.reconstructor.ask_for_join(reason))

    def with_map(self, look: Callable[[MapBuilder], T]) -> Future[T]:
        """Call ``look`` with the map between two images."""
        return self._configured.worker.submit(lambda _: look(self._map.builder))

    def _warn(self, warning: str) -> None:
        self._status.note(warning)
        if admitted := self._warnings.admit(warning):
            self.get_logger().warning(admitted)


def _describe(error: BaseException) -> str:
    """Return an error in one line; with its type, unless it is one of this package."""
    line = first_line(error)
    return line if isinstance(error, XsvggtError) else f"{type(error).__name__}: {line}"
