# SPDX-License-Identifier: Apache-2.0
"""The demo: the node in a process of its own, over real DDS, compared with the engine alone."""

import shutil
import sys
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from xsvggt_ros import cli
from xsvggt_ros.geometry.trajectory_io import read_tum
from xsvggt_ros.stream.overview import OVERVIEW_SIZE
from xsvggt_ros.stream.sources import open_source

HOW = "needs ROS 2 and this package's messages: run scripts/test, or source a ROS 2 workspace"
pytest.importorskip("rclpy", reason=HOW)
pytest.importorskip("xsvggt_ros.msg", reason=HOW)

from xsvggt_ros.ros import node_process
from xsvggt_ros.ros.metered_source import MeteredSource

SAMPLE = Path(__file__).parents[1] / "sample" / "room"
TINY = ["--preset", "tiny", "--device", "cpu", "--budget", "200"]


@pytest.fixture(autouse=True)
def private_domain(monkeypatch):
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)


@pytest.fixture
def exit_codes(monkeypatch):
    codes = []
    stop = node_process.NodeProcess.stop

    def noted(process):
        codes.append(stop(process))
        return codes[-1]

    monkeypatch.setattr(node_process.NodeProcess, "stop", noted)
    return codes


def run(*arguments: object):
    return CliRunner().invoke(cli.app, [str(each) for each in arguments])


def test_the_demo_gives_what_the_engine_alone_gives(tmp_path, exit_codes):
    result = run("demo", "-o", tmp_path / "dds", *TINY)
    assert result.exit_code == 0, result.output
    assert "no checkpoint given" in result.stdout
    assert set(exit_codes) == {0}
    alone = run("reconstruct", SAMPLE, "-o", tmp_path / "alone", *TINY)
    assert alone.exit_code == 0, alone.output
    over_dds, directly = (read_tum(tmp_path / f / "trajectory.tum") for f in ("dds", "alone"))
    with open_source(SAMPLE) as source:
        assert over_dds.stamps.tolist() == [frame.stamp for frame in source]
    np.testing.assert_array_equal(over_dds.positions, directly.positions)
    np.testing.assert_array_equal(over_dds.quaternions, directly.quaternions)
    assert_same_cloud(*(tmp_path / f / "cloud.ply" for f in ("dds", "alone")))
    picture = cv2.imread(str(tmp_path / "dds" / "overview.png"))
    assert picture.shape[1::-1] == OVERVIEW_SIZE


def assert_same_cloud(first: Path, second: Path):
    """Poses went over DDS as quaternions, so points differ by rounding; colours do not."""
    row = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
    rows = [
        np.frombuffer(p.read_bytes().partition(b"end_header\n")[2], row) for p in (first, second)
    ]
    assert len(rows[0]) > 0
    assert np.isfinite(rows[0]["xyz"]).all()
    np.testing.assert_allclose(rows[0]["xyz"], rows[1]["xyz"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(rows[0]["rgb"], rows[1]["rgb"])


def test_unusable_pictures_and_the_end_of_a_long_recording_are_told(tmp_path):
    pictures = tmp_path / "pictures"
    shutil.copytree(SAMPLE, pictures)
    (pictures / "001.jpg").write_bytes(b"no picture")
    result = run("demo", pictures, "-o", tmp_path / "out", "--max-frames", 3, *TINY)
    assert result.exit_code == 0, result.output
    assert "1 unusable pictures" in result.stdout
    assert "Only the first 3 pictures" in result.stdout
    stamps = read_tum(tmp_path / "out" / "trajectory.tum").stamps.tolist()
    assert stamps == [100_000_000, 300_000_000, 400_000_000]


def test_weights_that_are_not_there_end_the_demo_with_the_reason(tmp_path):
    result = run("demo", "-o", tmp_path, "--checkpoint", "nowhere.pth", *TINY)
    assert result.exit_code == 1
    assert "the node ended with exit code 1" in result.stderr
    assert "'nowhere.pth' does not exist" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "cloud.ply").exists()


@pytest.mark.parametrize(
    ("program", "options", "words"),
    [
        ("raise SystemExit('so much for that')", [], ["exit code 1", "so much for that"]),
        ("import signal; signal.pause()", ["--patience", "1"], ["no progress for 1 s", "0 pict"]),
    ],
    ids=["dies", "is silent"],
)
def test_a_node_that_fails_is_given_up_with_its_log(monkeypatch, tmp_path, program, options, words):
    monkeypatch.setattr(node_process, "_command", lambda *_: [sys.executable, "-c", program])
    result = run("demo", "-o", tmp_path, *options, *TINY)
    assert result.exit_code == 1
    for word in words:
        assert word in result.stderr


def test_no_more_pictures_are_under_way_than_the_window():
    with open_source(SAMPLE) as source:
        metered = MeteredSource(source, window=4, limit=100)
        answered = 0
        metered.allow(answered)
        for frame in metered:
            assert frame.decode().shape == (384, 512, 3)
            assert metered.sent - answered <= 4
            if metered.sent - answered == 4:
                answered += 1
                metered.allow(answered)
        assert (metered.sent, metered.cut, metered.frame_count) == (12, False, 12)


def test_nothing_is_sent_before_it_is_allowed_and_closing_ends_the_wait():
    with open_source(SAMPLE) as source:
        metered = MeteredSource(source, window=4, limit=100)
        sent = []
        thread = Thread(target=lambda: sent.extend(metered))
        thread.start()
        metered.close()
        thread.join(30)
        assert not thread.is_alive()
        assert sent == []
