# SPDX-License-Identifier: Apache-2.0
"""Which build of PyTorch to install, and what that will download."""

from __future__ import annotations

import json
import os
import shlex
import urllib.error
import urllib.request
from dataclasses import dataclass

from commands import Runner
from layout import VENV, requirements
from report import SetupError, note

SKIP = "skip"
CPU = "cpu"
_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
_PROBE_SECONDS = 4.0


@dataclass(frozen=True)
class TorchBuild:
    """Arguments for pip, and what they bring, in words and GB on disk."""

    arguments: tuple[str, ...]
    announcement: str
    disk_gb: float


def chosen() -> str:
    """Return the user's choice, empty where there is none."""
    return os.environ.get("XSVGGT_TORCH", "").strip()


def find(runner: Runner, choice: str) -> TorchBuild:
    """Find the build to install without downloading it."""
    if choice == SKIP:
        return TorchBuild((), "PyTorch: left out, as XSVGGT_TORCH=skip asks", 0.0)
    if choice == CPU:
        return _find_pinned(runner)
    return TorchBuild(tuple(shlex.split(choice)), f"PyTorch: {choice} (XSVGGT_TORCH)", 3.0)


def _find_pinned(runner: Runner) -> TorchBuild:
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


def check(runner: Runner) -> None:
    """Refuse an environment in which torch does not even start."""
    try:
        version = runner.python("import torch; print(torch.__version__)").split()[-1]
    except SetupError as error:
        remedy = 'choose another build: XSVGGT_TORCH="torch==2.13.0" scripts/setup'
        raise SetupError(f"PyTorch does not start here; {error.problem}", remedy) from error
    note(f"PyTorch {version}")
