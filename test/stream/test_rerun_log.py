# SPDX-License-Identifier: Apache-2.0
"""What the Rerun viewer is given, read back from the file; and what is said where it is missing."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from command_line import run

from xsvggt_ros.errors import EnvironmentMissingError, OutputError
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import Similarity
from xsvggt_ros.stream import rerun_log
from xsvggt_ros.stream.recording import CacheBytes, RecordedFrame, TopView, TruthComparison
from xsvggt_ros.stream.rerun_log import MOST_POINTS, REQUIREMENT, RerunLog, true_path_in_map

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "sample" / "room"
HEIGHT, WIDTH = 48, 64
TRUTH = np.array([[1, 0, 0], [1, 3, 0], [1, 3, 6]], np.float64)


def frame(index: int, stamp: int) -> RecordedFrame:
    random = np.random.default_rng(stamp)
    pose = np.eye(4)
    pose[:3, 3] = (index, 0.5, 0.25)
    depth = random.random((HEIGHT, WIDTH), np.float32) + 1
    depth[0, :3] = (np.nan, np.inf, -np.inf)
    return RecordedFrame(
        index=index,
        stamp=stamp,
        camera_to_map=pose,
        intrinsics=Intrinsics(50.0, 51.0, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT),
        points=random.random((HEIGHT, WIDTH, 3), np.float32),
        depth=depth,
        confidence=random.random((HEIGHT, WIDTH), np.float32),
        color=random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8),
        cache=CacheBytes(1000 + index, 10, 5000 + index),
    )


def comparison(motion: Similarity) -> TruthComparison:
    return TruthComparison(
        transform=motion,
        positions=TRUTH,
        true_positions=TRUTH,
        depths={},
        map_transform=motion,
        depth_scale=1.0,
        abs_rel_median=0.0,
        extent=1.0,
        top_view=TopView(np.zeros((2, 2, 3), np.uint8), (0, 0), (1, 1)),
    )


TURN = Similarity(3.0, np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([1.0, 2, 3]))


def logged(file: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each entity of a recording, in order."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for chunk in pytest.importorskip("rerun.chunk").RrdReader(file).stream():
        rows.setdefault(chunk.entity_path, []).extend(chunk.to_record_batch().to_pylist())
    return rows


def column(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows])


@pytest.fixture
def empty_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand for rerun where nothing of it is called."""
    for name in ("rerun", "rerun.blueprint"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))


@pytest.fixture
def recorded(tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of a session of three frames and of one of two, which came second."""
    pytest.importorskip("rerun", reason=f"needs pip install '{REQUIREMENT}'")
    log = RerunLog(file=tmp_path / "new" / "run.rrd")
    for index, stamp in (
        (0, 1_000_000),
        (1, 2_000_000),
        (2, 3_000_000),
        (0, 1_500_000),
        (1, 2_500_000),
    ):
        log.log_frame(frame(index, stamp))
    assert log.close(comparison(TURN)) == [tmp_path / "new" / "run.rrd"]
    return logged(tmp_path / "new" / "run.rrd")


def test_each_session_is_logged_by_itself_on_the_timeline_of_its_stamps(
    recorded: dict[str, list[dict[str, Any]]],
) -> None:
    for session, stamps in ((0, [1_000_000, 2_000_000, 3_000_000]), (1, [1_500_000, 2_500_000])):
        for name in ("map/camera", "map/camera/image", "map/points", "cache/allocated"):
            rows = recorded[f"/session_{session}/{name}"]
            times = column(rows, "stamp").astype("datetime64[ns]").astype(int)
            assert times.tolist() == stamps, name
            assert not {"log_time", "log_tick"} & set(rows[0])


def test_camera_image_and_depth_are_those_of_the_frame(
    recorded: dict[str, list[dict[str, Any]]],
) -> None:
    given = frame(1, 2_000_000)
    pose = recorded["/session_0/map/camera"][1]
    np.testing.assert_allclose(pose["Transform3D:translation"][0], (1, 0.5, 0.25))
    np.testing.assert_allclose(pose["Transform3D:mat3x3"][0], np.eye(3).ravel())
    pinhole = recorded["/session_0/map/camera/image"][1]
    by_columns = np.reshape(pinhole["Pinhole:image_from_camera"][0], (3, 3)).T
    np.testing.assert_allclose(by_columns, given.intrinsics.matrix())
    np.testing.assert_allclose(pinhole["Pinhole:resolution"][0], (WIDTH, HEIGHT))
    row = recorded["/session_0/map/camera/image/depth"][1]
    assert row["DepthImage:meter"] == [1.0]
    depth = np.frombuffer(bytes(row["DepthImage:buffer"][0]), np.float32).reshape(HEIGHT, WIDTH)
    assert depth[0, :3].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(depth[1:], given.depth[1:])
    image = recorded["/session_0/map/camera/image/color"][1]
    assert bytes(image["EncodedImage:blob"][0])[:2] == b"\xff\xd8", "a JPEG"


def test_points_are_confident_ones_in_the_map_and_no_more_than_the_limit(
    recorded: dict[str, list[dict[str, Any]]],
) -> None:
    given = frame(2, 3_000_000)
    points = np.array(recorded["/session_0/map/points"][2]["Points3D:positions"], np.float32)
    assert points.shape == (MOST_POINTS, 3)
    confident = given.known_points(rerun_log.CONFIDENT_SHARE)[0]
    assert len(confident) > MOST_POINTS
    assert set(map(tuple, points)) <= set(map(tuple, confident))


def test_bytes_and_paths_are_logged(recorded: dict[str, list[dict[str, Any]]]) -> None:
    for name, first in (("allocated", 1010), ("uncompressed", 5000)):
        values = column(recorded[f"/session_0/cache/{name}"], "Scalars:scalars").ravel()
        assert values.tolist() == [first, first + 1, first + 2]
    steps = column(recorded["/session_0/map/path"], "LineStrips3D:strips")[:, 0, :, 0]
    assert steps.tolist() == [[0, 1], [1, 2]]
    assert "/session_1/map/true_path" not in recorded, "the truth is that of the longest session"
    (row,) = recorded["/session_0/map/true_path"]
    there = TURN.points(np.array(row["LineStrips3D:strips"][0], np.float64))
    np.testing.assert_allclose(there, TRUTH, atol=1e-5)


def test_the_true_path_is_laid_on_the_estimated_one() -> None:
    np.testing.assert_allclose(TURN.points(true_path_in_map(comparison(TURN))), TRUTH, atol=1e-12)


def test_an_older_recording_stays_where_no_frame_came(tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason=f"needs pip install '{REQUIREMENT}'")
    file = tmp_path / "run.rrd"
    file.write_bytes(b"older")
    assert RerunLog(file=file).close() == []
    assert file.read_bytes() == b"older"


@pytest.mark.usefixtures("empty_package")
def test_the_viewer_needs_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "WAYLAND_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(EnvironmentMissingError, match=r"no display.*--rerun-file FILE\.rrd"):
        RerunLog(viewer=True)


def test_the_viewer_is_opened_for_a_recording_since_rerun_ignores_the_call_without_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rerun = pytest.importorskip("rerun", reason=f"needs pip install '{REQUIREMENT}'")
    opened = []
    monkeypatch.setattr(rerun, "spawn", lambda **options: opened.append(options))
    monkeypatch.setenv("DISPLAY", ":0")
    RerunLog(viewer=True)
    (options,) = opened
    assert isinstance(options["recording"], rerun.RecordingStream)
    assert options["connect"] is False


@pytest.mark.usefixtures("empty_package")
def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"is a directory; give --rerun-file a name"):
        RerunLog(file=tmp_path)
    (tmp_path / "in_the_way").write_text("")
    with pytest.raises(OutputError, match="is no directory; choose another place"):
        RerunLog(file=tmp_path / "in_the_way" / "run.rrd")


@pytest.mark.parametrize("command", ["reconstruct", "demo"])
@pytest.mark.parametrize("option", [["--rerun"], ["--rerun-file", "run.rrd"]])
def test_without_the_package_the_command_that_installs_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, option: list[str]
) -> None:
    if command == "demo":
        pytest.importorskip("rclpy")
        pytest.importorskip("xsvggt_ros.msg")
    monkeypatch.setitem(sys.modules, "rerun", None)
    result = run(command, SAMPLE, "-o", tmp_path / "out", "--preset", "tiny", *option)
    assert result.exit_code == 1
    said = re.sub(r"\s+", " ", result.stderr)
    assert "--rerun and --rerun-file need rerun-sdk" in said
    assert f"pip install '{REQUIREMENT}'" in said
    assert not (tmp_path / "out").exists()


def test_reconstruct_writes_a_recording(tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason=f"needs pip install '{REQUIREMENT}'")
    file = tmp_path / "out" / "run.rrd"
    words = ["reconstruct", SAMPLE, "-o", tmp_path / "out", "--preset", "tiny", "--device", "cpu"]
    result = run(*words, "--max-frames", 2, "--rerun-file", file)
    assert result.exit_code == 0, result.output
    assert len(logged(file)["/session_0/map/points"]) == 2


def test_the_demo_writes_a_recording_with_the_truth(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2: run scripts/test")
    pytest.importorskip("xsvggt_ros.msg", reason="needs this package's messages: run scripts/test")
    pytest.importorskip("rerun", reason=f"needs pip install '{REQUIREMENT}'")
    file = tmp_path / "out" / "run.rrd"
    words = ["demo", "-o", tmp_path / "out", "--device", "cpu", "--max-frames", 4]
    result = run(*words, "--rerun-file", file)
    assert result.exit_code == 0, result.output
    assert "rerun FILE opens it in its viewer" in result.output
    rows = logged(file)
    assert len(rows["/session_0/map/points"]) == 4
    (truth,) = rows["/session_0/map/true_path"]
    assert np.shape(truth["LineStrips3D:strips"][0]) == (4, 3)


def test_the_extra_asks_for_what_the_sentence_says() -> None:
    lines = (ROOT / "scripts" / "requirements" / "rerun.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [REQUIREMENT]
