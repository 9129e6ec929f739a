# SPDX-License-Identifier: Apache-2.0
"""The one thread that owns the model, the cache and the device."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock, Thread, current_thread
from time import monotonic
from typing import Any, TypeVar

from xsvggt_ros.errors import XsvggtError
from xsvggt_ros.stream.frame import Frame, FrameResult
from xsvggt_ros.stream.frame_queue import FrameQueue
from xsvggt_ros.stream.reconstructor import Reconstructor
from xsvggt_ros.stream.stepper import Stage, Stepper

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Counters:
    """Frames since the worker was made; ``received`` is the sum of all the others."""

    received: int
    processed: int
    dropped: int
    refused: int
    pending: int


@dataclass(frozen=True, slots=True)
class Activity:
    """What the worker is at, and since when (seconds of the monotonic clock)."""

    stage: Stage
    since: float


class Worker:
    """Takes frames from a queue in order and reconstructs them; runs commands between two frames.

    Callbacks run on the worker's thread. Whatever goes wrong with one frame is reported and the
    next one is taken.
    """

    def __init__(
        self,
        reconstructor: Reconstructor,
        queue: FrameQueue,
        *,
        on_result: Callable[[FrameResult], None],
        on_refused: Callable[[Frame, XsvggtError], None],
        on_room: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare, but do not start.

        Args:
            reconstructor: from :meth:`start` on touched by this thread alone.
            queue: closed by :meth:`stop`.
            on_result: gets each result.
            on_refused: gets each frame that could not be used, with the reason.
            on_room: called whenever a frame has left the queue.

        """
        self._reconstructor = reconstructor
        self._queue = queue
        self._on_result = on_result
        self._on_refused = on_refused
        self._on_room = on_room
        self._commands: deque[tuple[Future[Any], Callable[[Reconstructor], Any]]] = deque()
        self._stepper = Stepper(reconstructor, self.enter)
        self._processed = 0
        self._refused = 0
        self._stopping = False
        self._admission = Lock()
        self._activity = Activity("idle", monotonic())
        self._thread = Thread(target=self._run, name="xsvggt-worker")

    @property
    def activity(self) -> Activity:
        """What the worker is doing now."""
        return self._activity

    @property
    def alive(self) -> bool:
        """Whether the thread runs; one that has ended by itself takes no frame any more."""
        return self._thread.is_alive()

    @property
    def counters(self) -> Counters:
        """How many frames went where."""
        # What is done is read before what came in, so that no frame is counted as done only.
        processed, refused = self._processed, self._refused
        received, dropped = self._queue.counts()
        pending = received - dropped - processed - refused
        return Counters(received, processed, dropped, refused, pending)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Finish the frame in hand, drop the rest, and wait; return whether the thread ended."""
        self._queue.close()
        self._refuse_commands()
        if self._thread.is_alive() and current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def submit(self, command: Callable[[Reconstructor], T]) -> Future[T]:
        """Run ``command`` on the worker's thread before the next frame; cancelled once stopping."""
        future: Future[T] = Future()
        with self._admission:
            if self._stopping:
                future.cancel()
                return future
            self._commands.append((future, command))
        self._queue.wake()
        return future

    def _run(self) -> None:
        while not self._stopping:
            self.enter("idle")
            frame = self._queue.take(interrupted=lambda: bool(self._commands))
            if frame is not None:
                self._process(frame)
            elif self._commands:
                self._run_commands()
            else:  # somebody closed the queue
                break
        self._refuse_commands()

    def _refuse_commands(self) -> None:
        with self._admission:
            self._stopping = True
        for future, _ in self._take_commands():
            future.cancel()

    def _take_commands(self) -> Iterator[tuple[Future[Any], Callable[[Reconstructor], Any]]]:
        while True:
            try:
                yield self._commands.popleft()
            except IndexError:
                return

    def _run_commands(self) -> None:
        for future, command in self._take_commands():
            self.enter("commanded")
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(command(self._reconstructor))
            except Exception as error:  # noqa: BLE001 - handed to whoever asked
                future.set_exception(error)

    def _process(self, frame: Frame) -> None:
        self._call("room was not announced", self._on_room)
        try:
            result = self._stepper.step(frame)
        except XsvggtError as error:
            self._refused += 1
            self._call("a refusal was not reported", self._on_refused, frame, error)
        else:
            self._processed += 1
            self.enter("publishing")
            self._call("a result was not published", self._on_result, result)

    def _call(self, failure: str, callback: Callable[..., None], *arguments: Any) -> None:
        try:
            callback(*arguments)
        except Exception:
            logger.exception("%s", failure)

    def enter(self, stage: Stage) -> None:
        """Say what is being done now; for callbacks, on this thread."""
        self._activity = Activity(stage, monotonic())
