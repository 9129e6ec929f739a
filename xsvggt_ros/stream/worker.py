# SPDX-License-Identifier: Apache-2.0
"""What drives the way of frames: a thread behind a queue, or a loop over a recorded stream.

The thread is the one that owns the model, the cache and the device.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from threading import Condition, Lock, Thread, current_thread
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from xsvggt_ros.errors import ConfigurationError, XsvggtError
from xsvggt_ros.stream.frame import Frame, FrameResult, FrameUpdate
from xsvggt_ros.stream.health import Counters
from xsvggt_ros.stream.pipeline import Activity, FramePipeline, PipelineHooks
from xsvggt_ros.stream.stamps import settled

if TYPE_CHECKING:  # it needs PyTorch, whose absence the node reports by itself
    from xsvggt_ros.stream.reconstructor import Reconstructor


logger = logging.getLogger(__name__)


QueuePolicy = Literal["latest", "all"]


class FrameQueue:
    """Holds frames in order, from any number of threads to one worker.

    ``latest`` drops the oldest frame and counts it; ``all`` holds the source back until there is
    room.
    """

    def __init__(self, policy: QueuePolicy = "latest", size: int = 1) -> None:
        """Make an empty queue; raise ConfigurationError for an unknown policy or no room."""
        if policy not in ("latest", "all"):
            raise ConfigurationError(
                f"input.queue_policy '{policy}' is unknown; choose latest or all"
            )
        if size < 1:
            raise ConfigurationError(f"input.queue_size is {size}; it must be at least 1")
        self._policy = policy
        self._size = size
        self._frames: deque[Frame] = deque()
        self._changed = Condition()
        self._closed = False
        self._paused = False
        self._missed = 0
        self._received = 0
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def policy(self) -> QueuePolicy:
        """What happens when a frame meets a full queue."""
        return self._policy

    @property
    def full(self) -> bool:
        """Whether the next frame would be held back or push another out; never while paused."""
        return len(self._frames) >= self._size and not self._paused

    @property
    def received(self) -> int:
        """Frames put in since the queue was made."""
        return self._received

    @property
    def dropped(self) -> int:
        """Frames pushed out by newer ones, or lost before they came here."""
        return self._dropped

    def counts(self) -> tuple[int, int]:
        """Return frames received and dropped, both of one moment."""
        with self._changed:
            return self._received, self._dropped

    def put(self, frame: Frame) -> bool:
        """Add a frame, unless paused; with ``all`` wait for room first.

        Returns False if the queue is closed.
        """
        with self._changed:
            if self._policy == "all":
                self._changed.wait_for(lambda: self._closed or not self.full)
            if self._closed:
                return False
            if self._paused:
                self._received += 1
                self._dropped += 1
                self._missed += 1
                return True
            if self.full:
                self._frames.popleft()
                self._dropped += 1
            self._frames.append(frame)
            self._received += 1
            self._changed.notify_all()
            return True

    @property
    def paused(self) -> bool:
        """Whether frames that come are dropped."""
        return self._paused

    def pause(self) -> None:
        """Drop what comes from now on, counted; what is held stays."""
        with self._changed:
            self._paused = True
            self._missed = 0
            self._changed.notify_all()

    def resume(self) -> int:
        """Take frames again; return how many were dropped meanwhile."""
        with self._changed:
            self._paused = False
            return self._missed

    def note_lost(self, count: int) -> None:
        """Count frames that were meant for this queue and lost on the way, as dropped."""
        with self._changed:
            self._received += count
            self._dropped += count

    def take(self, interrupted: Callable[[], bool] = lambda: False) -> Frame | None:
        """Remove and return the oldest frame, waiting for one.

        Returns None once the queue is closed, or ``interrupted()`` is true after :meth:`wake`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._closed or interrupted())
            if interrupted() or not self._frames:
                return None
            self._changed.notify_all()
            return self._frames.popleft()

    def wake(self) -> None:
        """Let whoever waits look again at what it waits for."""
        with self._changed:
            self._changed.notify_all()

    def discard(self) -> None:
        """Drop what is held, counted."""
        with self._changed:
            self._dropped += len(self._frames)
            self._frames.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """Take no more frames and release whoever waits; frames held are dropped and counted."""
        with self._changed:
            self._closed = True
            self.discard()


T = TypeVar("T")


class Worker:
    """Takes frames from a queue in order and processes them; runs commands between two frames."""

    def __init__(
        self,
        pipeline: FramePipeline,
        queue: FrameQueue,
        *,
        on_room: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare, but do not start.

        Args:
            pipeline: from :meth:`start` on touched by this thread alone.
            queue: closed by :meth:`stop`.
            on_room: called whenever a frame has left the queue, on the worker's thread.

        """
        self._pipeline = pipeline
        self._queue = queue
        self._on_room = on_room
        self._commands: deque[tuple[Future[Any], Callable[[Reconstructor], Any]]] = deque()
        self._stopping = False
        self._admission = Lock()
        self._thread = Thread(target=self._run, name="xsvggt-worker")

    @property
    def activity(self) -> Activity:
        """What the worker is doing now."""
        return self._pipeline.activity

    @property
    def alive(self) -> bool:
        """Whether the thread runs; one that has ended by itself takes no frame any more."""
        return self._thread.is_alive()

    @property
    def counters(self) -> Counters:
        """How many frames went where."""
        # What is done is read before what came in, so that no frame is counted as done only.
        processed, refused = self._pipeline.processed, self._pipeline.refused
        received, dropped = self._queue.counts()
        waiting = self._pipeline.waiting_frames
        pending = received - dropped - processed - refused
        return Counters(received, processed, dropped, refused, pending, waiting)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float | None) -> bool:
        """Finish the current frame, drop the rest, and wait; return whether the thread ended.

        Args:
            timeout: most seconds to wait; None = as long as it takes.

        """
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

    def finish_first_pass(self) -> Future[None]:
        """Let frames that wait for the first pass to fill go without it: the stream has ended."""
        return self.submit(lambda _: self._pipeline.finish())

    def _run(self) -> None:
        while not self._stopping:
            self._pipeline.enter("idle")
            frame = self._queue.take(interrupted=lambda: bool(self._commands))
            if frame is not None:
                self._announce_room()
                self._pipeline.process(frame)
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
            self._pipeline.enter("commanded")
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(command(self._pipeline.reconstructor))
            except Exception as error:  # noqa: BLE001 - handed to whoever asked
                future.set_exception(error)
            self._pipeline.refuse_lost_frames()

    def _announce_room(self) -> None:
        try:
            self._on_room()
        except Exception:
            logger.exception("room was not announced")


Refused = Callable[[Frame, XsvggtError], None]


def reconstruct(
    frames: Iterable[Frame], reconstructor: Reconstructor, on_refused: Refused
) -> Iterator[FrameResult]:
    """Yield the result of each usable frame, by the rules that the node's worker follows.

    Args:
        frames: in the order of their stamps.
        reconstructor: at the beginning of a session.
        on_refused: is told of each frame that cannot be used.

    """
    ready: list[FrameUpdate] = []
    hooks = PipelineHooks(report=ready.append, report_refusal=on_refused)
    pipeline = FramePipeline(reconstructor, hooks)
    blind: list[str] = []
    for frame in settled(frames):
        pipeline.process(frame)
        yield from _results(ready, blind)
    pipeline.finish()
    yield from _results(ready, blind)
    if blind:
        logger.warning(
            "%d of %d images show nothing; of the first, %s",
            len(blind), pipeline.processed, blind[0],
        )  # fmt: skip


def _results(ready: list[FrameUpdate], blind: list[str]) -> Iterator[FrameResult]:
    """Yield the results that are ready; add to ``blind`` why images among them show nothing."""
    for update in ready:
        if update.blind:
            blind.append(update.blind)
        yield update.result
    ready.clear()
