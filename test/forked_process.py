# SPDX-License-Identifier: Apache-2.0
"""Programs in processes of their own that need not import PyTorch first."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from functools import cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[1]
PRELOADED = [
    "forked_process", "xsvggt_ros.ros.reconstruct_node", "xsvggt_ros.model.checkpoint",
    "xsvggt_ros.stream.chain", "xsvggt_ros.stream.memory", "xsvggt_ros.stream.worker",
]  # fmt: skip


class ForkedProcess:
    """A Python program in a process of its own that begins with what it imports already there.

    PyTorch's import takes longer than most tests of the node. One process for each worker of the
    tests imports it, and each node is a fork of that one, which never computes or talks to ROS.
    """

    def __init__(self, program: tuple[str, str], arguments: list[str], env: dict[str, str]) -> None:
        """Start a program, given as `python` takes it: -m and a module, or -c and code."""
        context = _preloading()
        receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_become, args=(program, arguments, env, sender), daemon=True
        )
        self._process.start()
        sender.close()
        self.stdout: IO[str] = os.fdopen(os.dup(receiver.fileno()), encoding="utf-8")
        receiver.close()

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process.pid is not None
        return self._process.pid

    def send_signal(self, number: int) -> None:
        """Send a signal unless it has ended."""
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("node", timeout or 0.0)
        return code


@cache
def _preloading() -> ForkServerContext:
    """Start the process that imports, with the modules that this one would find."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    forkserver.ensure_running()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
    return context


def _become(
    program: tuple[str, str], arguments: list[str], env: dict[str, str], output: Connection
) -> None:
    """Be the program from here on, with its output and environment."""
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    output.close()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(ROOT)
    option, what = program
    if option == "-m":
        sys.argv = [what, *arguments]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.argv = [option, *arguments]
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
