# SPDX-License-Identifier: Apache-2.0
"""Processes of ROS on this machine: their domains and shared memory, and the node as a child."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, BinaryIO

import xsvggt_ros
from xsvggt_ros.errors import ConfigurationError, EnvironmentMissingError, OutputError, XsvggtError

if TYPE_CHECKING:
    from typing_extensions import Self


HIGHEST_DOMAIN = 101
"""Above it, DDS ports of Linux run into those given to outgoing connections."""

LAST_DOMAIN = 232
"""Above it, there are no ports."""

CANDIDATES = range(1, HIGHEST_DOMAIN + 1)
"""Domains that `free_domain` chooses from; 0 is everybody's default."""


def given_domain() -> int | None:
    """Return the domain that ROS_DOMAIN_ID names, None where it is not set.

    Raises:
        ConfigurationError: it names none.

    """
    given = os.environ.get("ROS_DOMAIN_ID", "")
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and int(given) <= LAST_DOMAIN):
        raise ConfigurationError(
            f"ROS_DOMAIN_ID is '{given}'; set it to a number from 0 to {LAST_DOMAIN}, or unset it"
        )
    return int(given)


def free_domain() -> int:
    """Return a random domain in which nobody on this machine takes part just now.

    Raises:
        EnvironmentMissingError: there is none.

    """
    for domain in random.SystemRandom().sample(CANDIDATES, len(CANDIDATES)):
        if not _taken(domain):
            return domain
    raise EnvironmentMissingError(
        f"all ROS domains from {CANDIDATES[0]} to {CANDIDATES[-1]} are in use on this machine; "
        "end some nodes, or set ROS_DOMAIN_ID"
    )


def _taken(domain: int) -> bool:
    """Ask for the port at which the first participant of the domain is found (RTPS 9.6.1)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", 7400 + 250 * domain + 10))
        except OSError:
            return True
        return False


DIRECTORY = Path("/dev/shm")
YOUNG = 5.0
"""Seconds in which a new lock may not have been taken yet by the participant that made it.
Trying such a lock would be in its way; removing it would cut that participant off."""
_OWN_FILES = Path("/proc/self/fd")
_LOCK = re.compile(r"(fastdds|fastrtps)_[0-9a-f]{16}_el")


def abandoned() -> list[Path]:
    """Return the segments whose owners are gone."""
    found = []
    for lock in _locks():
        try:
            if time() - lock.stat().st_mtime < YOUNG:
                continue
            file = os.open(lock, os.O_RDONLY)
        except OSError:  # it has just gone, or is another user's
            continue
        try:
            if _lockable(file):
                found.append(_segment(lock))
        finally:
            os.close(file)
    return found


def remove_abandoned() -> None:
    """Give back the memory of processes that are gone, those of other users excepted."""
    for segment in abandoned():
        _remove(segment)


def remove_own() -> None:
    """Give back the memory of this process, which is about to end without taking leave of DDS.

    What has been sent may be lost to those who have not looked at it yet.
    """
    with suppress(OSError):  # no such place on this system
        for file in _OWN_FILES.iterdir():
            with suppress(OSError):  # closed meanwhile
                lock = file.readlink()
                # Only through the file by which it is held can a lock be taken again.
                if lock in _locks() and _lockable(int(file.name)):
                    _remove(_segment(lock))


def _locks() -> list[Path]:
    try:
        return [file for file in DIRECTORY.iterdir() if _LOCK.fullmatch(file.name)]
    except OSError:  # no such directory on this system
        return []


def _lockable(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _segment(lock: Path) -> Path:
    return lock.with_name(lock.name.removesuffix("_el"))


def _remove(segment: Path) -> None:
    for file in (segment, segment.with_name(f"{segment.name}_el")):
        with suppress(OSError):
            file.unlink()


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

    def __exit__(self, *exception: object) -> None:
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
