# SPDX-License-Identifier: Apache-2.0
"""Written sequences are read back, by this package's own sources and loaders, with equal values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command_line import run
from present import present
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore
from typer.testing import Result

from xsvggt_ros.errors import ConfigurationError, OutputError
from xsvggt_ros.geometry.files import UNFINISHED, read_tum
from xsvggt_ros.geometry.rigid import matrix_from_quaternion
from xsvggt_ros.stream.sources import open_source
from xsvggt_ros.synthetic import export
from xsvggt_ros.synthetic.export import write_sequence
from xsvggt_ros.synthetic.motion import MotionSettings
from xsvggt_ros.synthetic.renderer import Quality
from xsvggt_ros.synthetic.rooms import room_named
from xsvggt_ros.synthetic.sequence import (
    EffectSettings,
    Sequence,
    SequenceSettings,
    SyntheticFrame,
    held_out,
)

SETTINGS = SequenceSettings(
    seed=3, frames=4, width=48, height=36, room=room_named("calm"), quality=Quality(1, False)
)


@pytest.fixture(scope="module")
def sequence() -> Sequence:
    return Sequence(SETTINGS)


@pytest.fixture(scope="module")
def frames(sequence: Sequence) -> list[SyntheticFrame]:
    return list(sequence)


def same_trajectory(path: Path, frames: list[SyntheticFrame]) -> None:
    trajectory = read_tum(path)
    assert trajectory.stamps.tolist() == [frame.stamp for frame in frames]
    for frame, place, turn in zip(
        frames, trajectory.positions, trajectory.quaternions, strict=True
    ):
        np.testing.assert_allclose(place, frame.camera_to_world[:3, 3], atol=1e-8)
        rotation = matrix_from_quaternion(turn)
        np.testing.assert_allclose(rotation, frame.camera_to_world[:3, :3], atol=1e-8)


def test_a_directory(sequence: Sequence, frames: list[SyntheticFrame], tmp_path: Path) -> None:
    path = write_sequence(sequence, tmp_path / "seq", "directory")
    with open_source(path) as source:
        read = list(source)
    assert [each.stamp for each in read] == [frame.stamp for frame in frames]
    for each, frame in zip(read, frames, strict=True):
        np.testing.assert_array_equal(each.decode(), frame.color)
        depth = np.load(path / "depth" / f"{frame.index:06d}.npy")
        np.testing.assert_array_equal(depth, frame.depth)
    same_trajectory(path / "trajectory.tum", frames)
    row = (path / "cameras.csv").read_text().splitlines()[1].split(",")
    k = frames[0].intrinsics
    assert row[0] == "000000.png"
    assert [float(value) for value in row[2:]] == pytest.approx(
        [k.fx, k.fy, 24, 18, 48, 36], abs=1e-6
    )


def test_a_tum_directory(sequence: Sequence, frames: list[SyntheticFrame], tmp_path: Path) -> None:
    path = write_sequence(sequence, tmp_path / "seq", "tum")
    lines = [line.split() for line in (path / "rgb.txt").read_text().splitlines()[1:]]
    depths = [line.split() for line in (path / "depth.txt").read_text().splitlines()[1:]]
    assert len(lines) == len(depths) == len(frames)
    for (stamp, color), (_, depth), frame in zip(lines, depths, frames, strict=True):
        assert round(float(stamp) * 1e9) == frame.stamp
        image = cv2.cvtColor(present(cv2.imread(str(path / color))), cv2.COLOR_BGR2RGB)
        np.testing.assert_array_equal(image, frame.color)
        metres = present(cv2.imread(str(path / depth), cv2.IMREAD_UNCHANGED)) / 5000
        np.testing.assert_allclose(metres, frame.depth, atol=0.000101)
    same_trajectory(path / "groundtruth.txt", frames)
    with open_source(path / "rgb") as source:
        np.testing.assert_array_equal(next(iter(source)).decode(), frames[0].color)


def test_a_bag(sequence: Sequence, frames: list[SyntheticFrame], tmp_path: Path) -> None:
    path = write_sequence(sequence, tmp_path / "seq", "bag")
    assert (path / "metadata.yaml").is_file()
    assert list(path.glob("*.mcap"))
    with open_source(path, topic="/camera/image_raw") as source:
        raw = list(source)
    with open_source(path, topic="/camera/image_raw/compressed") as source:
        compressed = list(source)
    for each, packed, frame in zip(raw, compressed, frames, strict=True):
        assert each.stamp == packed.stamp == frame.stamp
        assert each.frame_id == "camera_optical_frame"
        np.testing.assert_array_equal(each.decode(), frame.color)
        assert np.abs(packed.decode().astype(int) - frame.color).mean() < 3
        assert present(each.calibration).k == tuple(frame.intrinsics.matrix().ravel())
    found: dict[str, list[tuple[int, Any]]] = {}
    with AnyReader([path], default_typestore=get_typestore(Stores.LATEST)) as reader:
        for connection, received, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            found.setdefault(connection.topic, []).append((received, message))
    for k, frame in enumerate(frames):
        received, depth = found["/camera/depth/image_raw"][k]
        assert received == frame.stamp  # what /clock says when the bag is played
        assert depth.encoding == "32FC1"
        np.testing.assert_array_equal(depth.data.view(np.float32).reshape(36, 48), frame.depth)
        _, odometry = found["/ground_truth/odometry"][k]
        assert (odometry.header.frame_id, odometry.child_frame_id) == (
            "map",
            "camera_optical_frame",
        )
        place, turn = odometry.pose.pose.position, odometry.pose.pose.orientation
        np.testing.assert_allclose([place.x, place.y, place.z], frame.camera_to_world[:3, 3])
        rotation = matrix_from_quaternion(np.array([turn.x, turn.y, turn.z, turn.w]))
        np.testing.assert_allclose(rotation, frame.camera_to_world[:3, :3], atol=1e-9)
        transform = found["/tf"][k][1].transforms[0]
        assert transform.transform.rotation == turn
        # A node that replays this gives the camera a parent of its own.
        assert transform.child_frame_id not in {each.frame_id for each in raw}
    speed = found["/ground_truth/odometry"][2][1].twist.twist
    moved = frames[2].camera_to_world[:3, 3] - frames[1].camera_to_world[:3, 3]
    own = frames[2].camera_to_world[:3, :3].T @ moved / 0.1
    np.testing.assert_allclose([speed.linear.x, speed.linear.y, speed.linear.z], own, atol=1e-9)


def test_lost_frames_leave_gaps_in_the_stamps(tmp_path: Path) -> None:
    from dataclasses import replace

    lossy = Sequence(replace(SETTINGS, frames=8, effects=EffectSettings(drops=0.5)))
    path = write_sequence(lossy, tmp_path / "seq", "tum")
    stamps = read_tum(path / "groundtruth.txt").stamps
    assert 1 < len(stamps) < 8
    assert set(np.diff(stamps)) != {100_000_000}


def test_a_taken_place_and_an_unknown_format_are_refused(
    sequence: Sequence, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(OutputError, match="not empty"):
        write_sequence(sequence, tmp_path, "directory")
    with pytest.raises(ConfigurationError, match="tum"):
        write_sequence(sequence, tmp_path / "seq", "video")
    assert (tmp_path / "mine.txt").read_text() == "keep me"


@pytest.mark.parametrize("kind", ["directory", "bag", "tum"])
def test_an_interrupted_stream_leaves_nothing_and_can_be_made_again(
    sequence: Sequence, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "there").mkdir()

    def interrupt(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    for place in (tmp_path / "there", tmp_path / "new"):
        with pytest.raises(KeyboardInterrupt):
            write_sequence(sequence, place, kind, interrupt)
    assert [each.name for each in tmp_path.rglob("*")] == ["there"]
    (tmp_path / "there" / UNFINISHED).mkdir()  # as a killed run leaves it
    for place in (tmp_path / "there", tmp_path / "new"):
        assert write_sequence(sequence, place, kind) == place
    names = [sorted(_names(tmp_path / each)) for each in ("there", "new")]
    assert [each.replace("there", "new") for each in names[0]] == names[1]
    if kind == "bag":
        for each in ("there", "new"):
            with open_source(tmp_path / each, topic="/camera/image_raw") as source:
                assert len(list(source)) == len(sequence)


def _names(directory: Path) -> list[str]:
    return [str(each.relative_to(directory)) for each in directory.rglob("*")]


def test_held_out_sequences_are_those_of_the_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def remember(sequence: Sequence, output: Path, kind: str, each: object) -> None:
        written.append(sequence.settings)

    monkeypatch.setattr(export, "write_sequence", remember)

    def asked(*words: str) -> Result:
        return run("synthesize", "-o", tmp_path / "x", "--held-out", "short_walk", *words)

    assert asked().exit_code == 0
    assert asked("--width", "56", "--height", "42", "--room", "calm").exit_code == 0
    assert written == [held_out("short_walk"), held_out("short_walk", "calm", 56, 42)]
    refused = asked("--frames", "100", "--movers", "0", "--no-shadows", "--seed", "1")
    assert refused.exit_code == 1
    assert "--seed, --frames, --shadows, --movers would be ignored beside" in refused.output
    assert len(written) == 2
    plain = run("synthesize", "-o", tmp_path / "x", "--frames", 1)
    assert plain.exit_code == 0
    assert (written[2].width, written[2].height, written[2].room) == (320, 240, room_named("rich"))


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "seq"
    size = ["--frames", "3", "--width", "40", "--height", "30"]
    look = ["--room", "calm", "--samples", "1", "--motion", "drive", "--seed", "5"]
    words = ["synthesize", "-o", out, *size, *look]
    result = run(*words)
    assert result.exit_code == 0, result.output
    assert sorted(each.name for each in out.glob("*.png")) == [f"{k:06d}.png" for k in range(3)]
    expected = Sequence(
        SequenceSettings(
            seed=5, frames=3, width=40, height=30, room=room_named("calm"),
            motion=MotionSettings("drive"), quality=Quality(1, True),
        )
    )  # fmt: skip
    with open_source(out) as source:
        np.testing.assert_array_equal(next(iter(source)).decode(), expected.frame(0).color)
    again = run(*words)
    assert again.exit_code == 1
    assert "not empty" in again.output
    wrong = run("synthesize", "-o", tmp_path / "x", "--room", "cave")
    assert wrong.exit_code == 1
    assert "calm" in wrong.output
