# SPDX-License-Identifier: Apache-2.0
"""Where things are, running programs there, and what the terminal shows of it."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent
CHECKOUT = SCRIPTS.parent
REQUIREMENTS = SCRIPTS / "requirements"
UNDERLAY = SCRIPTS / "underlay"
STAND_INS = UNDERLAY / "python"
VENV = CHECKOUT / ".venv"
PYTHON = VENV / "bin" / "python"
LOG = VENV / "setup.log"
RECORD = VENV / "setup.json"
SHELL_SETUP = VENV / "ros_env.sh"
BUILD = VENV / "build"


def site_packages() -> Path:
    """Return the directory that the environment's modules are installed into."""
    return next(VENV.glob("lib/python3.*/site-packages"))


def requirements(name: str) -> list[str]:
    """Return the lines of one requirement file without its comments."""
    lines = (REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def digest(*parts: str | Path) -> str:
    """Return a hash over texts, files and whole directories."""
    sha = hashlib.sha256()
    for part in parts:
        for content in _contents(part):
            sha.update(content + b"\0")
    return sha.hexdigest()[:16]


def _contents(part: str | Path) -> list[bytes]:
    if isinstance(part, str):
        return [part.encode()]
    if part.is_dir():
        files = [path for path in sorted(part.rglob("*")) if path.is_file()]
        return [
            str(path.relative_to(part)).encode() + b"\0" + path.read_bytes()
            for path in files
            if "__pycache__" not in path.parts
        ]
    return [part.read_bytes()]


class SetupError(Exception):
    """The set-up cannot go on; says why and what to do about it."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


class Steps:
    """Counts steps and times them."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce one step, and its duration when it has succeeded."""
        self._done += 1
        label = f"[{self._done}/{self._total}]"
        say(f"{label} {title}")
        begin = time.monotonic()
        yield
        say(f"{' ' * len(label)} done in {time.monotonic() - begin:.1f} s")


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


def note(text: str) -> None:
    """Print a detail of the current step."""
    say(f"      {text}")


Words = Sequence[str | Path]

_BIG_DOWNLOAD = re.compile(r"^\s*Downloading (\S+)(?: \S+)* \((\d+\.\d+ (?:MB|GB))\)")
_SHOWN_FROM_MB = 15.0

_PIP_FAILURES = (
    (r"No space left on device|Errno 28", "the disk is full", "free some space and run this again"),
    (
        r"Name or service not known|name resolution|NewConnectionError|Failed to establish"
        r"|Network is unreachable|ConnectTimeout|Read timed out|Connection (refused|reset|aborted)"
        r"|ProxyError|RemoteDisconnected",
        "the package index cannot be reached",
        "check the network (behind a proxy: export https_proxy=...; own mirror: PIP_INDEX_URL=...)"
        " and run this again, it goes on where it stopped",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError",
        "the package index has a certificate that this machine does not trust",
        "set PIP_CERT to your organisation's certificate bundle",
    ),
    (
        r"No matching distribution found for (?P<what>\S+)",
        "no package for this Python and platform: {what}",
        "choose another Python (PYTHON=python3.12 scripts/setup) or check your pip configuration"
        " (pip config list)",
    ),
    (
        r"ResolutionImpossible|conflicting dependencies",
        "the packages contradict each other",
        "read the log; a constraint in your pip configuration is the usual cause",
    ),
)


_FOREIGN = ("PYTHONPATH", "AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "COLCON_PREFIX_PATH")
_PIP = {
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_INPUT": "1",
    "PIP_PROGRESS_BAR": "off",
    "PIP_USER": "0",
}


def environment(*, isolated: bool) -> dict[str, str]:
    """Return the variables for programs of the environment.

    ``isolated`` keeps the Python paths and ROS prefixes of the shell out, and lets the ROS wheels
    find their libraries by themselves.
    """
    variables = os.environ | _PIP
    dropped = ["PYTHONHOME", "VIRTUAL_ENV"]
    if isolated:
        dropped += [*_FOREIGN, "_ROS_WHEELS_BOOTSTRAP_COMPLETE"]
    for name in dropped:
        variables.pop(name, None)
    for name, path in (
        ("PATH", VENV / "bin"),
        ("AMENT_PREFIX_PATH", VENV),
        ("CMAKE_PREFIX_PATH", VENV),
        ("LD_LIBRARY_PATH", VENV / "lib"),
    ):
        variables[name] = os.pathsep.join(filter(None, [str(path), variables.get(name)]))
    return variables


class Runner:
    """Runs programs of the environment."""

    def __init__(self, *, isolated: bool) -> None:
        self.variables = environment(isolated=isolated)

    def pip(self, *words: str | Path) -> str:
        """Run pip; return what it said."""
        status, output = self._logged([PYTHON, "-m", "pip", *words], echo=_echo_download)
        if status:
            raise _pip_error(output)
        return output

    def python(self, code: str, *arguments: str) -> str:
        """Run a few lines with the environment's interpreter; return what they print."""
        return self.run([PYTHON, "-c", code, *arguments], "a check of the environment")

    def run(self, command: Words, what: str, *, cwd: Path = VENV) -> str:
        """Run any program; return what it said."""
        status, output = self._logged(command, cwd=cwd)
        if status:
            last = "\n".join(f"  | {line}" for line in output.strip().splitlines()[-12:])
            raise SetupError(f"{what} failed:\n{last}", f"the whole output is in {LOG}")
        return output

    def _logged(
        self, command: Words, *, cwd: Path = VENV, echo: Callable[[str], None] | None = None
    ) -> tuple[int, str]:
        lines: list[str] = []
        with LOG.open("a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(map(str, command))}\n")
            with subprocess.Popen(
                [str(word) for word in command],
                cwd=cwd,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            ) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    lines.append(line)
                    log.write(line)
                    if echo:
                        echo(line)
        return process.returncode, "".join(lines)


def _echo_download(line: str) -> None:
    found = _BIG_DOWNLOAD.match(line)
    if not found:
        return
    amount, unit = found[2].split()
    if unit == "GB" or float(amount) >= _SHOWN_FROM_MB:
        note(f"downloading {found[1].rsplit('/', 1)[-1]} ({found[2]})")


def _pip_error(output: str) -> SetupError:
    for pattern, problem, remedy in _PIP_FAILURES:
        found = re.search(pattern, output)
        if found:
            sentence = problem.format(**found.groupdict())
            return SetupError(f"pip: {sentence}", f"{remedy}; log: {LOG}")
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no output"]
    errors = [line for line in lines if re.match(r"error\b|\w*Error:", line, re.IGNORECASE)]
    problem = f"pip failed: {(errors or lines)[-1]}"
    return SetupError(problem, f"the whole output is in {LOG}")
