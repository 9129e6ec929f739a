# SPDX-License-Identifier: Apache-2.0
"""Runs the evaluations of a sweep on a Ray cluster.

Every machine needs this package, and the source and the weights under the paths that the request
names (or a source that is rendered, ``synthetic:``). Results come back as files.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from threading import Event
from typing import Any

import torch

from xsvggt_ros.errors import ConfigurationError, XsvggtError, first_line
from xsvggt_ros.evaluation.isolated import RunFailedError
from xsvggt_ros.evaluation.request import EvaluationRequest
from xsvggt_ros.evaluation.results import write_evaluation
from xsvggt_ros.evaluation.runner import Progress, evaluate

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
        task = self._ray.remote(max_retries=1, **self._needs)(_run).remote(request, threads)
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


def _run(request: EvaluationRequest, threads: int) -> Answer | str:
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
    except XsvggtError as error:
        return str(error)
    except MemoryError:
        return "memory ran out; lower the budget or the width"
    except Exception as error:  # noqa: BLE001 - whatever it is, the table must name it
        return f"{type(error).__name__}: {first_line(error)}"
