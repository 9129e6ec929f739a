# SPDX-License-Identifier: Apache-2.0
"""Runs an evaluation elsewhere: in a process of its own, or on a Ray cluster.

In a process, so that running out of memory ends it alone: its peaks of memory are its own then, and
whatever kills it becomes a line of the table. On a cluster, every machine needs this package, and
the source and the weights under the paths that the request names (or a source that is rendered,
``synthetic:``); results come back as files.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import torch

from xsvggt_ros.errors import ConfigurationError, XsvggtError, first_line
from xsvggt_ros.evaluation.request import EvaluationRequest
from xsvggt_ros.evaluation.results import write_evaluation
from xsvggt_ros.evaluation.runner import Progress, evaluate
from xsvggt_ros.process import SIGNALS, ask_for_threads

TELL_EVERY = 0.2
"""Seconds between two messages on progress."""

END_TIMEOUT = 30.0
"""Seconds that a process may take to end after its last message."""


Run = Callable[..., dict[str, Any]]
"""What :func:`evaluate_isolated` does, here or elsewhere."""


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
    except Exception as error:  # noqa: BLE001 - whatever it is, the table must name it
        connection.send(("failed", _failure(error)))
    else:
        connection.send(("done", written.metrics()))


@contextmanager
def place_to_run(address: str | None, device: str, jobs: int) -> Iterator[tuple[Run | None, int]]:
    """Yield what runs the evaluations of a sweep, None = this machine, and how many at once.

    Args:
        address: of a cluster, as :class:`Cluster` takes it; None = this machine.
        device: of the runs.
        jobs: that were asked for; 1 on a cluster = as many as it has room for.

    """
    if address is None:
        yield None, jobs
        return
    cluster = Cluster(address, device)
    try:
        yield cluster.evaluate, cluster.slots if jobs == 1 else min(jobs, cluster.slots)
    finally:
        cluster.close()


def _failure(error: Exception) -> str:
    """Return what the table says of a run that failed."""
    if isinstance(error, XsvggtError):
        return str(error)
    if isinstance(error, MemoryError):
        return "memory ran out; lower the budget or the width"
    return f"{type(error).__name__}: {first_line(error)}"


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


LOCAL = "local"
"""As an address: a cluster of this machine alone, that ends with the command."""

ASK_EVERY = 0.5
"""Seconds between two checks whether a run is done or is to stop."""

Answer = tuple[dict[str, Any], dict[str, bytes]]
"""What metrics.json holds, and all files of a run by name."""


class Cluster:
    """A Ray cluster that runs evaluations.

    Attributes:
        slots: runs that it has room for at once.

    """

    def __init__(self, address: str, device: str) -> None:
        """Connect.

        Args:
            address: of a cluster, as Ray takes it (``HOST:PORT``, ``ray://HOST:PORT``, ``auto``),
                or LOCAL.
            device: of the runs: each takes a GPU where that is ``cuda``, else a processor.

        Raises:
            ConfigurationError: Ray is not there, nothing answers, or the cluster has no room.

        """
        self._ray = _ray()
        try:
            self._ray.init(
                address=None if address == LOCAL else address,
                include_dashboard=False if address == LOCAL else None,
                logging_level=logging.ERROR,
                log_to_driver=False,
                ignore_reinit_error=True,
            )
        except Exception as error:  # what does not start or answer raises bare Exceptions in Ray
            raise ConfigurationError(
                f"--cluster {address}: no Ray answers there ({first_line(error)}); start one with "
                "`ray start --head` and give its HOST:PORT, or local for this machine alone"
            ) from error
        gpus = device.startswith("cuda")
        self._needs = {"num_cpus": 1, "num_gpus": 1 if gpus else 0}
        self.slots = int(self._ray.cluster_resources().get("GPU" if gpus else "CPU", 0))
        if not self.slots:
            self.close()
            what = "a GPU" if gpus else "a processor"
            raise ConfigurationError(
                f"--cluster {address}: no machine there offers {what}; choose another --device"
            )

    def evaluate(
        self,
        request: EvaluationRequest,
        directory: Path,
        stop: Event,
        progress: Progress,
        threads: int = 0,
    ) -> dict[str, Any]:
        """Evaluate on the cluster, write the results into ``directory``, and return metrics.json.

        Args:
            request: what is evaluated.
            directory: of the results, on this machine.
            stop: ends the run after the frame in hand.
            progress: is told the frames done.
            threads: of PyTorch in that run; 0 = its default.

        Raises:
            RunFailedError: the run ended without a result.
            KeyboardInterrupt: ``stop`` was set before the result.

        """
        task = self._ray.remote(max_retries=1, **self._needs)(_run_there).remote(request, threads)
        progress(0, None, "on the cluster")
        while not self._ray.wait([task], timeout=ASK_EVERY)[0]:
            if stop.is_set():
                self._ray.cancel(task, force=True)
                raise KeyboardInterrupt
        try:
            answer: Answer | str = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            raise RunFailedError(f"the cluster lost the run: {first_line(error)}") from error
        if isinstance(answer, str):
            raise RunFailedError(answer)
        metrics, files = answer
        for name, content in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return metrics

    def close(self) -> None:
        """Disconnect; a local cluster shuts down."""
        self._ray.shutdown()


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigurationError(
            "--cluster needs Ray, which is not installed; pip install 'xsvggt_ros[cluster]'"
        ) from error
    return ray


def _run_there(request: EvaluationRequest, threads: int) -> Answer | str:
    """Evaluate on the machine that Ray chose; a message in place of results where that fails."""
    if threads:
        torch.set_num_threads(threads)
    try:
        with tempfile.TemporaryDirectory() as place:
            found = evaluate(request, stop=Event(), progress=lambda *_: None)
            written = write_evaluation(found, Path(place))
            files = {
                path.relative_to(place).as_posix(): path.read_bytes()
                for path in Path(place).rglob("*")
                if path.is_file()
            }
            return written.metrics(), files
    except Exception as error:  # noqa: BLE001 - whatever it is, the table must name it
        return _failure(error)
