# SPDX-License-Identifier: Apache-2.0
"""benchmarks/answers.py: every answer is awaited, and checked."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

REASON = "needs ROS 2 and this package's messages: run scripts/test, or source a built workspace"
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("xsvggt_ros.msg", reason=REASON)

ROOT = Path(__file__).parents[2]


def start(temporary: Path, *options: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "benchmarks/answers.py", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_half_of_the_calls_are_refused_and_nothing_stays_behind(tmp_path: Path) -> None:
    done = start(tmp_path, "--preset=tiny", "--width=112", "--calls=5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| refused, as they must be | 3 |" in done.stdout
    assert not list(tmp_path.glob("answers-*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--calls=0"], "--calls 0: must be at least 1"),
        (["--preset=no-such"], "the node ended with"),
    ],
)
def test_what_cannot_run_is_said_at_once(tmp_path: Path, options: list[str], message: str) -> None:
    done = start(tmp_path, *options)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("answers-*"))


class ObedientClient:
    """Takes whatever it is told."""

    processed = 0

    def until(self, *_: object) -> None:
        self.processed += 3

    def ask(self, *_: object) -> tuple[float, bool]:
        return 0.01, True

    def publish(self) -> None:
        pass

    executor = type("Executor", (), {"spin_once": staticmethod(lambda **_: None)})


def test_an_answer_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    seconds, wrong, _ = importlib.import_module("answers").measure(ObedientClient(), 3)
    assert len(seconds) == 3
    assert wrong == ["cache.key_bits = 3 was taken"] * 2
