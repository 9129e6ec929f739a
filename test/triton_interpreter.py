# SPDX-License-Identifier: Apache-2.0
"""Triton kernels on a CPU, by Triton's interpreter, or on a GPU.

Triton decides while it is imported whether it interprets, so the tests of kernels run in a process
of their own: they are functions of files called ``kernels_*.py``, which ``test_kernels.py`` runs.
"""

import os
import subprocess
import sys
from pathlib import Path

INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETING else "cuda"
"""Where the tests of a ``kernels_*.py`` put their tensors."""

FILES = sorted(Path(__file__).parent.glob("kernels_*.py"))


def run_kernel_tests(file: Path, *, interpret: bool) -> subprocess.CompletedProcess[str]:
    """Run the tests of ``file`` in a new process and return how that ended."""
    environment = dict(os.environ)
    environment.pop("TRITON_INTERPRET", None)
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    return subprocess.run(
        command,
        env=environment,
        cwd=file.parent.parent,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
