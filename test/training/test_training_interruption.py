# SPDX-License-Identifier: Apache-2.0
"""A training that a signal ends: at every moment it is saved, and the same command continues."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from xsvggt_ros.process import SIGNALS, deaf_children, stop_request
from xsvggt_ros.training.settings import Schedule, TrainingSettings
from xsvggt_ros.training.trainer import Trainer

TINY = TrainingSettings(preset="tiny", recipe="test", steps=6, warmup=2, device="cpu")
QUICK = Schedule(score="short")

# Says by a file, since it may be another process, that the first clip is being rendered, and
# finishes it only once another file is there.
PROGRAM = """
import sys
import time
from pathlib import Path
from xsvggt_ros.training import batches
from xsvggt_ros.training.__main__ import main

render_clip = batches.render_clip
def told(settings, index, device):
    Path(sys.argv[1], "shooting").touch()
    while not Path(sys.argv[1], "signalled").exists():
        time.sleep(0.01)
    return render_clip(settings, index, device)
batches.render_clip = told

if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
"""


def started(tmp_path: Path, workers: int) -> subprocess.Popen[str]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    options = ["--output", str(tmp_path / "training"), "--preset", "tiny", "--recipe", "test"]
    options += ["--steps", "20000", "--device", "cpu", "--score", "short", "--threads", "1"]
    options += ["--workers", str(workers)]
    return subprocess.Popen(
        [sys.executable, str(program), str(tmp_path), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(Path(__file__).parents[2]), *filter(None, sys.path)]
            ),
        },
    )


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "number"), [(0, signal.SIGTERM), (1, signal.SIGINT)])
def test_a_signal_to_all_processes_while_images_are_awaited(
    tmp_path: Path, workers: int, number: int
) -> None:
    """As Ctrl-C does: the whole group hears it."""
    running = started(tmp_path, workers)
    try:
        while not (tmp_path / "shooting").exists():
            assert running.poll() is None, running.communicate()
            time.sleep(0.05)
        os.killpg(running.pid, number)
        (tmp_path / "signalled").touch()
        said, errors = running.communicate(timeout=120)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.communicate()
    assert running.returncode == 130, errors
    assert "Traceback" not in errors
    assert said.splitlines()[-1].startswith("stopped after step ")
    assert said.splitlines()[-1].endswith(" of 20000; the same command continues")
    assert (tmp_path / "training" / "state.json").is_file()


def test_a_stop_is_asked_for_before_each_clip(tmp_path: Path) -> None:
    rendered = []
    trainer = Trainer(TINY, tmp_path)

    def stop() -> bool:
        rendered.append(trainer.step)
        return True

    outcome = trainer.train(QUICK, stop=stop)
    assert rendered == [0]
    assert outcome.line() == "stopped after step 0 of 6; the same command continues"
    again = Trainer(TINY, tmp_path)
    assert again.train(QUICK).step == 6


def test_children_that_are_started_deaf_hear_nothing_and_this_process_does() -> None:
    program = "import signal; print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with stop_request() as stop:
        with deaf_children():
            signal.raise_signal(signal.SIGINT)
            said = subprocess.run(
                [sys.executable, "-c", program], capture_output=True, text=True, check=True
            ).stdout
            assert not stop.is_set()
        assert stop.wait(10)
    assert all(repr(each) in said for each in SIGNALS)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_data_of_workers_is_the_same_after_a_resumption_in_a_stage_with_gaps(
    tmp_path: Path,
) -> None:
    """From step 5 of 8 on the memory of the curriculum `test` has gaps."""
    settings = replace(TINY, steps=8)
    whole = list(Trainer(settings, tmp_path / "a").data.batches(0))
    later = list(Trainer(replace(settings, workers=1), tmp_path / "b").data.batches(6))
    assert [stage.gaps for _, stage in later] == [0.5, 0.5]
    assert len(whole) == 8
    for (one, stage), (other, again) in zip(whole[6:], later, strict=True):
        assert stage == again
        assert one.images.equal(other.images)
        assert one.truth.points.equal(other.truth.points)
