# SPDX-License-Identifier: Apache-2.0
"""A few hundred images of the soak: all faults, nothing unanswered, nothing leaked."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REASON = "needs ROS 2 and this package's messages: run scripts/test, or source a built workspace"
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("tf2_msgs", reason=REASON)
pytest.importorskip("xsvggt_ros.msg", reason=REASON)

ROOT = Path(__file__).parents[2]
FRAMES = 240


@pytest.mark.slow
def test_the_node_outlives_every_fault(tmp_path: Path) -> None:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [
            sys.executable,
            "benchmarks/soak.py",
            f"--frames={FRAMES}",
            "--fault-every=4",
            f"--output={tmp_path}",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "| limits broken | none |" in page
    kinds = (
        "garbled", "repeated", "gap", "jump back", "resized", "storm", "churn", "outlier", "deep",
        "dark", "owner", "camera info",
    )  # fmt: skip
    thrown = dict(re.findall(rf"({'|'.join(kinds)}) (\d+)", page))
    assert len(thrown) == len(kinds)
    assert all(int(count) > 0 for count in thrown.values()), thrown
    with (tmp_path / "samples.csv").open(encoding="utf-8") as stream:
        samples = list(csv.DictReader(stream))
    assert len(samples) == FRAMES - int(thrown["garbled"]) - int(thrown["repeated"])
    assert all(float(sample["latency"]) > 0 for sample in samples)
    assert (tmp_path / "figure.png").stat().st_size > 10_000
