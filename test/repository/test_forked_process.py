# SPDX-License-Identifier: Apache-2.0
"""A forked program is the program: arguments, environment, output, exit code, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from forked_process import ROOT, ForkedProcess

PATIENCE = 90.0
"""Seconds after which a process is taken never to end."""

TELL = """
import os, sys
print(__name__, sys.argv[1:], os.environ["TOLD"], "HOME" in os.environ, os.getcwd(), flush=True)
os.write(2, b"beside\\n")
sys.exit(3)
"""
WAIT = "import time; print('up', flush=True); time.sleep(600)"


def test_a_fork_does_what_the_interpreter_does() -> None:
    words, env = ["a b", "--ros-args"], {"TOLD": "this", "PATH": os.environ["PATH"]}
    forked = ForkedProcess(("-c", TELL), words, env)
    assert forked.wait(PATIENCE) == 3
    command = [sys.executable, "-c", TELL, *words]
    begun = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert begun.returncode == 3
    assert forked.stdout.read() == begun.stdout + begun.stderr
    forked.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_a_fork_and_is_its_exit_code(number: int) -> None:
    forked = ForkedProcess(("-c", WAIT), [], dict(os.environ))
    assert forked.stdout.readline() == "up\n"
    with pytest.raises(subprocess.TimeoutExpired):
        forked.wait(0.01)
    forked.send_signal(number)
    assert forked.wait(PATIENCE) == -number
    forked.send_signal(number)  # it is gone: nobody else is hit
    forked.stdout.close()


def test_a_module_is_run_as_a_program() -> None:
    forked = ForkedProcess(("-m", "xsvggt_ros"), ["--help"], dict(os.environ))
    assert forked.wait(PATIENCE) == 0
    assert "reconstruct" in forked.stdout.read()
    forked.stdout.close()
