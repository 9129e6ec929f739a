# SPDX-License-Identifier: Apache-2.0
"""Triton kernels in tests: on a GPU where there is one, else by Triton's interpreter."""

import os
from importlib.util import find_spec

import pytest
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"

triton_required = pytest.mark.skipif(
    find_spec("triton") is None,
    reason="needs Triton: pip install -r scripts/requirements/test.txt",
)
