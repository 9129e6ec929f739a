# SPDX-License-Identifier: Apache-2.0
"""The demo: the node in a process of its own, over real DDS, compared with the engine alone."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import Signals
from threading import Thread
from typing import Any

import cv2
import numpy as np
import pytest
from bags import SECOND, write_jumping_bag
from command_line import run
from present import present

from xsvggt_ros.commands.on_topics import ROOM_BUDGET
from xsvggt_ros.geometry.files import read_tum
from xsvggt_ros.geometry.rigid import align
from xsvggt_ros.model.config import PRESETS
from xsvggt_ros.stream import results
from xsvggt_ros.stream.frame import Frame
from xsvggt_ros.stream.recording import CacheBytes, LongestSession, RecordedFrame, Recording
from xsvggt_ros.stream.results import OVERVIEW_SIZE
from xsvggt_ros.stream.sources import open_source
from xsvggt_ros.synthetic.sequence import Sequence as SyntheticSequence
from xsvggt_ros.synthetic.sequence import held_out

HOW = "needs ROS 2 and this package's messages: run scripts/test, or source a ROS 2 workspace"
pytest.importorskip("rclpy", reason=HOW)
pytest.importorskip("xsvggt_ros.msg", reason=HOW)

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from xsvggt_ros.msg import ReconstructionStatus

from xsvggt_ros.ros import demo, processes
from xsvggt_ros.ros.demo import Recorder
from xsvggt_ros.ros.replay_topics import MeteredSource

PATIENCE = 90.0
"""Seconds after which a condition is taken never to come true, on a machine that is busy."""

ROOM_FRAMES = 24

SAMPLE = Path(__file__).parents[2] / "sample" / "room"
TINY = ["--preset", "tiny", "--device", "cpu", "--budget", "200"]


@pytest.fixture(autouse=True)
def private_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)


@pytest.fixture
def exit_codes(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    codes: list[int | None] = []
    stop = processes.ChildNode.stop

    def noted(process: processes.ChildNode) -> int | None:
        codes.append(stop(process))
        return codes[-1]

    monkeypatch.setattr(processes.ChildNode, "stop", noted)
    return codes


def test_the_demo_gives_what_the_engine_alone_gives(
    tmp_path: Path, exit_codes: list[int | None]
) -> None:
    result = run("demo", SAMPLE, "-o", tmp_path / "dds", *TINY)
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
    image = present(cv2.imread(str(tmp_path / "dds" / "overview.png")))
    assert image.shape[1::-1] == OVERVIEW_SIZE


def test_without_a_source_the_bundled_model_sees_a_room_whose_truth_is_known(
    tmp_path: Path, exit_codes: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings: list[Recording] = []
    write = results.write_results

    def noted(recording: Recording, *given: Any) -> list[Path]:
        recordings.append(recording)
        return write(recording, *given)

    monkeypatch.setattr(results, "write_results", noted)
    result = run("demo", "-o", tmp_path, "--device", "cpu", "--max-frames", ROOM_FRAMES)
    assert result.exit_code == 0, result.output
    assert set(exit_codes) == {0}
    assert "no checkpoint given" not in result.stdout, "the model was made for this room"
    for words in ("ATE", "depth AbsRel", "uncompressed", "frames per second"):
        assert words in result.stdout
    assert present(cv2.imread(str(tmp_path / "overview.png"))).shape[1::-1] == OVERVIEW_SIZE
    assert len(read_tum(tmp_path / "trajectory.tum")) == ROOM_FRAMES
    depths = sorted((tmp_path / "depth").glob("*.png"))
    assert len(depths) == ROOM_FRAMES
    assert present(cv2.imread(str(depths[-1]), cv2.IMREAD_UNCHANGED)).shape == (84, 112)
    shown = float(present(re.search(r"([0-9.]+) %", result.stdout))[1])
    assert shown == pytest.approx(100 * error_of(tmp_path / "trajectory.tum"), abs=0.06)
    check_cache(recordings[0].cache)


def error_of(path: Path) -> float:
    """Return the ATE over the extent, from the file alone; it is far below standing still."""
    truth = SyntheticSequence(held_out("long_loop")).poses[:ROOM_FRAMES, :3, 3]
    estimated = read_tum(path).positions
    off = align(estimated, truth, scale=True).points(estimated) - truth
    ate, standing = (
        np.sqrt((each**2).sum(axis=1).mean()) for each in (off, truth - truth.mean(axis=0))
    )
    assert ate < 0.6 * standing
    return float(ate / np.linalg.norm(np.ptp(truth, axis=0)))


def check_cache(cache: list[CacheBytes]) -> None:
    """Allocated bytes stay where they are, uncompressed ones grow by the same with each frame."""
    config = PRESETS["demo"]
    tokens = config.tokens_per_frame(84, 112)
    assert 8 * tokens == ROOM_BUDGET
    each_frame = 2 * 4 * tokens * config.embed_dim * config.depth
    assert [each.uncompressed for each in cache] == [
        each_frame * count for count in range(1, ROOM_FRAMES + 1)
    ]
    full = {each.allocated for each in cache[8:]}
    assert len(full) == 1
    assert 0 < full.pop() < 8 * each_frame / 4, "4 bits and the grids of small groups"


def assert_same_cloud(first: Path, second: Path) -> None:
    """Poses went over DDS as quaternions, so points differ by rounding; colours do not."""
    row = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
    rows = [
        np.frombuffer(p.read_bytes().partition(b"end_header\n")[2], row) for p in (first, second)
    ]
    assert len(rows[0]) > 0
    assert np.isfinite(rows[0]["xyz"]).all()
    np.testing.assert_allclose(rows[0]["xyz"], rows[1]["xyz"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(rows[0]["rgb"], rows[1]["rgb"])


def test_unusable_images_and_the_end_of_a_long_recording_are_told(tmp_path: Path) -> None:
    directory = tmp_path / "images"
    shutil.copytree(SAMPLE, directory)
    (directory / "001.jpg").write_bytes(b"no image")
    result = run("demo", directory, "-o", tmp_path / "out", "--max-frames", 3, *TINY)
    assert result.exit_code == 0, result.output
    assert "1 unusable images" in result.stdout
    assert "Only the first 3 images" in result.stdout
    stamps = read_tum(tmp_path / "out" / "trajectory.tum").stamps.tolist()
    assert stamps == [100_000_000, 300_000_000, 400_000_000]


def test_weights_that_are_not_there_end_the_demo_with_the_reason(tmp_path: Path) -> None:
    result = run("demo", SAMPLE, "-o", tmp_path, "--checkpoint", "nowhere.pth", *TINY)
    assert result.exit_code == 1
    assert "the node ended with exit code 1" in result.stderr
    assert "'nowhere.pth' does not exist" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "cloud.ply").exists()


@pytest.mark.parametrize(
    ("program", "options", "words"),
    [
        ("raise SystemExit('so much for that')", [], ["exit code 1", "so much for that"]),
        (
            "import signal; signal.pause()",
            ["--patience", "1"],
            ["no progress for 1 s", "0 images sent"],
        ),
        (
            "import time\nwhile True: print('waiting for images on /image', flush=True), "
            "time.sleep(0.1)",
            ["--patience", "1"],
            ["no progress for 1 s"],
        ),
    ],
    ids=["dies", "is silent", "complains"],
)
def test_a_node_that_fails_is_given_up_with_its_log(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    program: str,
    options: list[str],
    words: list[str],
) -> None:
    monkeypatch.setattr(processes, "_command", lambda *_: [sys.executable, "-c", program])
    result = run("demo", SAMPLE, "-o", tmp_path, *options, *TINY)
    assert result.exit_code == 1
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize("domain", ["500", "abc"])
def test_a_domain_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, domain: str
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    result = run("demo", SAMPLE, "-o", tmp_path, *TINY)
    assert result.exit_code == 1
    assert f"ROS_DOMAIN_ID is '{domain}'; set it to a number from 0 to 232" in result.stderr


def test_of_a_bag_that_jumps_back_the_longest_session_is_written(tmp_path: Path) -> None:
    result = run("demo", write_jumping_bag(tmp_path / "bag"), "-o", tmp_path / "out", *TINY)
    assert result.exit_code == 0, result.output
    assert "longest, 3 of 5 frames" in re.sub(r"\s+", " ", result.stdout)
    recorded = read_tum(tmp_path / "out" / "trajectory.tum").stamps.tolist()
    assert recorded == [SECOND, 2 * SECOND, 3 * SECOND]


def test_a_signal_leaves_what_has_been_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exit_codes: list[int | None]
) -> None:
    add = LongestSession.add

    def add_with_signal(recorded: LongestSession, frame: RecordedFrame) -> None:
        add(recorded, frame)
        if recorded.frames == 3:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(LongestSession, "add", add_with_signal)
    result = run("demo", SAMPLE, "-o", tmp_path, *TINY)
    assert result.exit_code == 130, result.output
    assert "Interrupted: the results hold what came out of 3 frames" in result.stdout
    assert len(read_tum(tmp_path / "trajectory.tum")) == 3
    assert exit_codes == [0]


def test_a_place_where_no_log_can_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "require_writable", lambda _: None)
    (tmp_path / "file").touch()
    result = run("demo", SAMPLE, "-o", tmp_path / "file" / "out", *TINY)
    assert result.exit_code == 1
    assert "node.log' cannot be written" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_the_node_ends_with_the_demo(tmp_path: Path, number: Signals) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for index in range(1000):
        (many / f"{index}.jpg").symlink_to(SAMPLE / "000.jpg")
    program = "from xsvggt_ros.cli import app; app()"
    words = ["demo", many, "-o", tmp_path / "out", "--max-frames", 1000, *TINY]
    with subprocess.Popen([sys.executable, "-c", program, *map(str, words)]) as process:
        wait_until(lambda: bool(node_of(process.pid)) and said(tmp_path, "waiting for images"))
        node = node_of(process.pid)
        process.send_signal(number)
        process.wait(PATIENCE)
    wait_until(lambda: not runs(node))
    assert process.returncode == (-number if number == signal.SIGKILL else 130)


def said(directory: Path, words: str) -> bool:
    log = directory / "out" / "node.log"
    return log.exists() and words in log.read_text()


def node_of(process: int) -> int:
    """Return the child of a process, 0 while there is none."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return int(children[0]) if children else 0


def runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(fulfilled: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not fulfilled():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_replay_that_follows_loses_nothing_even_to_a_node_that_drops(tmp_path: Path) -> None:
    """Published at full speed, most of these images would be dropped."""
    many = tmp_path / "many"
    many.mkdir()
    for index in range(60):
        (many / f"{index}.jpg").symlink_to(SAMPLE / f"{index % 12:03d}.jpg")
    parameters = {"model.preset": "tiny", "input.width": 56, "input.queue_policy": "latest"}
    domain = processes.free_domain()
    environment = {"ROS_DOMAIN_ID": str(domain)}
    words = [many, "--fixed-rate", 1e6, "--transport", "raw", "--image-topic", "/left/image"]
    command = [sys.executable, "-m", "xsvggt_ros.ros.replay", *map(str, words)]
    with (
        processes.ChildNode(
            parameters, namespace="/left", log=tmp_path / "log", environment=environment
        ) as node,
        status_of("/left/xsvggt", domain) as newest,
    ):
        done = subprocess.run(
            [*command, "--follow", "/left/xsvggt"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE,
        )
        wait_until(lambda: newest().frames_received == 60 and newest().frames_pending == 0)
        assert (newest().frames_processed, newest().frames_dropped) == (60, 0)
        assert "60 images replayed" in done.stderr
        assert node.stop() == 0


@contextmanager
def status_of(node: str, domain: int) -> Iterator[Callable[[], ReconstructionStatus]]:
    """Yield what spins once and returns the newest status of a node."""
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    recorder = Recorder(LongestSession(), of_node=node, context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(recorder)

    def newest() -> ReconstructionStatus:
        executor.spin_once(timeout_sec=0.1)
        return recorder.status or ReconstructionStatus()

    yield newest
    executor.shutdown()
    recorder.destroy_node()
    context.try_shutdown()


def test_no_more_images_are_under_way_than_the_window() -> None:
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


def test_nothing_is_sent_before_it_is_allowed_and_closing_ends_the_wait() -> None:
    with open_source(SAMPLE) as source:
        metered = MeteredSource(source, window=4, limit=100)
        sent: list[Frame] = []
        thread = Thread(target=lambda: sent.extend(metered))
        thread.start()
        metered.close()
        thread.join(30)
        assert not thread.is_alive()
        assert sent == []
