# SPDX-License-Identifier: Apache-2.0
"""Tasks side by side in processes of their own, for the benchmarks."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from xsvggt_ros.errors import ConfigurationError

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def in_parallel(
    do: Callable[[_Task], _Result], tasks: Sequence[_Task], jobs: int
) -> Iterator[_Result]:
    """Yield the results of tasks in their order, ``jobs`` of them at a time.

    One job runs in this process. Processes begin again (spawn): a fork of a process in which
    PyTorch has started threads may hang.

    Raises:
        ConfigurationError: fewer than one job.

    """
    if jobs < 1:
        raise ConfigurationError(f"--jobs {jobs}: at least one task runs at a time")
    if jobs == 1 or len(tasks) < 2:
        yield from map(do, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=context) as pool:
        yield from pool.map(do, tasks)
