# SPDX-License-Identifier: Apache-2.0
"""The reconstruction node as a child process."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

import xsvggt_ros
from xsvggt_ros.errors import OutputError, XsvggtError
from xsvggt_ros.ros.dds import remove_abandoned

if TYPE_CHECKING:
    from typing_extensions import Self

INTERRUPT_TIMEOUT = 30.0
"""Seconds between SIGINT and SIGKILL."""

TAIL_LINES = 15
_PR_SET_PDEATHSIG = 1


class ChildNode:
    """Runs the node with parameters, in a namespace, its output in a log file.

    It gets a session of its own, so that Ctrl-C in the terminal reaches it through us alone. Where
    we are killed, Linux ends it.
    """

    def __init__(
        self,
        parameters: Mapping[str, object],
        *,
        namespace: str,
        log: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.log = log
        self._command = _command(parameters, namespace)
        self._environment = {**os.environ, **_import_path(), **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start the node."""
        with _new_file(self.log) as output:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent(),
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the node where that has not been done."""
        self.stop()

    @property
    def pid(self) -> int:
        """Process number, once it has been started."""
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code, None while the node runs."""
        return self._process.poll() if self._process else None

    def stop(self) -> int:
        """Ask the node to end by SIGINT, insist by SIGKILL; return its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(INTERRUPT_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
            remove_abandoned()
            return code

    def failure(self, what: str) -> XsvggtError:
        """Return an error that shows the end of the node's log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        tail = "\n".join(lines[-TAIL_LINES:])
        return XsvggtError(f"{what}; the end of {self.log}:\n{tail}")


def _new_file(path: Path) -> BinaryIO:
    """Open a file for writing; raise OutputError where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")
    except OSError as error:
        raise OutputError(
            f"'{path}' cannot be written ({error.strerror}); choose another place"
        ) from error


def _end_with_parent() -> Callable[[], None] | None:
    """Return what a new process runs so that it gets SIGTERM when its parent dies; only Linux."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(0)

    return bind


def _command(parameters: Mapping[str, object], namespace: str) -> list[str]:
    """Return the command line; values are quoted as JSON, which YAML reads."""
    command = [sys.executable, "-m", "xsvggt_ros.ros.node", "--ros-args"]
    command += ["-r", f"__ns:={namespace}"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={json.dumps(value)}"]
    return command


def _import_path() -> dict[str, str]:
    """Return the variable by which the child finds this package where it runs from a checkout."""
    root = Path(next(iter(xsvggt_ros.__path__))).resolve().parent
    if not (root / "package.xml").is_file():
        return {}
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}
