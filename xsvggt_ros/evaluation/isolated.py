# SPDX-License-Identifier: Apache-2.0
"""Runs an evaluation in its own process, so that running out of memory ends it alone.

Each run of a sweep gets one: its peaks of memory are its own then, and whatever kills it becomes a
line of the table.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

from xsvggt_ros.errors import XsvggtError, first_line
from xsvggt_ros.evaluation.request import EvaluationRequest
from xsvggt_ros.evaluation.results import write_evaluation
from xsvggt_ros.evaluation.runner import Progress, evaluate
from xsvggt_ros.interruption import SIGNALS
from xsvggt_ros.threads import ask_for_threads

TELL_EVERY = 0.2
"""Seconds between two messages on progress."""

END_TIMEOUT = 30.0
"""Seconds that a process may take to end after its last message."""


class RunFailedError(XsvggtError):
    """A run in its own process gave no result; the message says why."""


def evaluate_isolated(
    request: EvaluationRequest, directory: Path, stop: Event, progress: Progress, threads: int = 0
) -> dict[str, Any]:
    """Evaluate, write the results into ``directory``, and return what metrics.json holds.

    Args:
        request: what is evaluated.
        directory: of the results.
        stop: ends the run after the frame in hand.
        progress: is told the frames done.
        threads: of PyTorch in that process, where several run side by side; 0 = its default.

    Raises:
        RunFailedError: the run ended without a result.
        KeyboardInterrupt: ``stop`` was set before the first result.

    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_run, args=(there, request, directory, threads), daemon=True)
    process.start()
    there.close()
    try:
        return _follow(here, process, stop, progress)
    finally:
        here.close()
        process.join(END_TIMEOUT)
        if process.is_alive():
            process.terminate()
            process.join(END_TIMEOUT)


def _follow(
    connection: Connection, process: Any, stop: Event, progress: Progress
) -> dict[str, Any]:
    told = False
    while True:
        if stop.is_set() and not told:
            connection.send("stop")
            told = True
        if not connection.poll(TELL_EVERY):
            continue
        try:
            kind, content = connection.recv()
        except EOFError:
            process.join(END_TIMEOUT)
            raise RunFailedError(_death(process.exitcode)) from None
        if kind == "progress":
            progress(*content)
        elif kind == "done":
            metrics: dict[str, Any] = content
            return metrics
        elif kind == "stopped":
            raise KeyboardInterrupt
        else:
            raise RunFailedError(content)


def _death(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "the system killed the run, most likely because memory ran out; lower the budget"
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name} ended the run"
    return f"the run ended without a result, with code {code}"


def _run(connection: Connection, request: EvaluationRequest, directory: Path, threads: int) -> None:
    """Evaluate and report to the parent, which alone may stop it; signals are ignored."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    logging.getLogger().addHandler(logging.NullHandler())  # warnings are in the report
    if threads:
        ask_for_threads(threads)
    stop = Event()
    try:
        evaluation = evaluate(request, stop=stop, progress=_Telling(connection, stop))
        written = write_evaluation(evaluation, directory)
    except KeyboardInterrupt:
        connection.send(("stopped", None))
    except XsvggtError as error:
        connection.send(("failed", str(error)))
    except MemoryError:
        connection.send(("failed", "memory ran out; lower the budget or the width"))
    except Exception as error:  # noqa: BLE001 - whatever it is, the table must name it
        connection.send(("failed", f"{type(error).__name__}: {first_line(error)}"))
    else:
        connection.send(("done", written.metrics()))


class _Telling:
    """Reports progress to the parent at intervals, and listens for a stop."""

    def __init__(self, connection: Connection, stop: Event) -> None:
        self._connection = connection
        self._stop = stop
        self._last = -TELL_EVERY

    def __call__(self, done: int, total: int | None, doing: str) -> None:
        try:
            if self._connection.poll():
                self._connection.recv()
                self._stop.set()
            if monotonic() - self._last >= TELL_EVERY:
                self._connection.send(("progress", (done, total, doing)))
                self._last = monotonic()
        except (EOFError, BrokenPipeError):
            self._stop.set()  # the parent is gone
