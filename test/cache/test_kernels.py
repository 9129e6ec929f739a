# SPDX-License-Identifier: Apache-2.0
"""The Triton kernels compute what their definitions in PyTorch do (see triton_interpreter.py)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from triton_interpreter import FILES, run_kernel_tests

pytestmark = pytest.mark.skipif(
    find_spec("triton") is None,
    reason="needs the package triton: pip install -r scripts/requirements/test.txt",
)
each_file = pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])


@pytest.mark.slow
@each_file
def test_interpreted_kernels_equal_their_definitions(file: Path) -> None:
    done = run_kernel_tests(file, interpret=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.gpu
@each_file
def test_compiled_kernels_equal_their_definitions(file: Path) -> None:
    done = run_kernel_tests(file, interpret=False)
    assert done.returncode == 0, done.stdout
