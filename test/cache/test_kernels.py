# SPDX-License-Identifier: Apache-2.0
"""The Triton kernels compute what their definitions in PyTorch do (see triton_interpreter.py).

And they compile for the cards of users, also where no card is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


KERNELS = {
    "xstreamvggt": {
        "attend_camera", "copy_newest", "count_camera_token", "decode_segment", "layer_norm",
        "linear_row", "move_camera_tokens", "normalize_and_rotate", "pool_queries",
        "query_products", "resize", "write_beside", "write_keys", "write_values",
    },
    "balanced": {"sum_directions", "similarities", "unit_range"},
}  # fmt: skip
"""Those of a frame, at least."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Triton compiles on Linux only")
@pytest.mark.parametrize(
    ("policy", "bits", "camera_frames", "capabilities"),
    [
        ("xstreamvggt", 4, 256, ["7.5", "8.7", "9.0"]),
        ("balanced", 2, 2000, ["12.0"]),
    ],
)
def test_kernels_compile_for_cards_that_are_not_there(
    policy: str, bits: int, camera_frames: int, capabilities: list[str], tmp_path: Path
) -> None:
    root, written = Path(__file__).parents[2], tmp_path / "kernels.json"
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "benchmarks/kernels.py", "--policy", policy, "--bits", str(bits)]
    command += ["--camera-frames", str(camera_frames)]
    command += ["--capabilities", *capabilities, "--json", str(written)]
    done = subprocess.run(
        command, cwd=root, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(written.read_text(encoding="utf-8"))
    assert list(found) == capabilities
    for capability, card in found.items():
        kernels = {each["name"]: each for each in card["kernels"]}
        assert kernels.keys() >= KERNELS[policy]
        # Where Triton multiplies without tensor cores, PyTorch attends.
        assert ("attend" in kernels) == (capability != "7.5")
        for each in kernels.values():
            assert each["shared_bytes"] <= card["shared_bytes"], (capability, each)
            assert each["spilled_bytes"] == 0, (capability, each)
