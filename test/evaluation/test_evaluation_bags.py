# SPDX-License-Identifier: Apache-2.0
"""Bags give images, depth and poses as they were recorded, and never guess."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from bags import BAG_KINDS, SECOND, BagKind
from present import present, true_depth, true_intrinsics, true_pose, truth_of
from scipy.spatial.transform import Rotation
from truth_bags import CAMERA, STAMPS, Messages, compressed_depth, records, write

from xsvggt_ros.errors import ConfigurationError, SourceError
from xsvggt_ros.evaluation.request import SourceOptions
from xsvggt_ros.evaluation.sources import open_source
from xsvggt_ros.evaluation.sources.bag_truth import TimedPoses
from xsvggt_ros.evaluation.sources.truth_files import read_truth
from xsvggt_ros.stream.processing import Calibrator
from xsvggt_ros.synthetic.export import write_sequence
from xsvggt_ros.synthetic.sequence import Sequence, held_out


def made(
    tmp_path: Path,
    *extra: tuple[int, str, Any],
    kind: BagKind = "mcap",
    leave_out: Collection[str] = (),
    messages: Messages | None = None,
) -> Path:
    messages = messages or Messages(kind)
    kept = [each for each in records(messages) if each[1] not in leave_out]
    return write(tmp_path / "bag", messages, kind, [*kept, *extra])


@pytest.mark.parametrize("kind", BAG_KINDS)
def test_images_depth_and_poses_are_those_that_were_recorded(tmp_path: Path, kind: BagKind) -> None:
    source = open_source(made(tmp_path, kind=kind))
    frames = list(source)
    assert (source.kind, source.frame_count, len(frames)) == ("bag", 5, 5)
    assert [each.stamp for each in frames] == STAMPS
    rows = zip(frames, datasets.colors(), datasets.depths(), datasets.poses(), strict=True)
    for frame, color, depth, pose in rows:
        np.testing.assert_array_equal(frame.frame.decode(), color)
        np.testing.assert_allclose(true_depth(frame), depth, atol=1e-6)
        np.testing.assert_allclose(true_pose(frame), pose, atol=1e-9)
        assert true_intrinsics(frame).fy == 101
    assert source.warnings == []
    assert json.loads(json.dumps(source.describe()))["poses"] == "/ground_truth/odometry"
    again = open_source(source.describe()["path"], SourceOptions(start=1, stride=2, limit=1))
    assert again.frame_count == 1
    assert [each.stamp for each in again] == [STAMPS[1]]


def test_two_image_topics_are_listed_and_one_is_chosen(tmp_path: Path) -> None:
    messages = Messages("mcap")
    other = messages.image(STAMPS[0], datasets.colors()[0], "rgb8")
    bag = made(tmp_path, (STAMPS[0], "/rear/image_raw", other), messages=messages)
    with pytest.raises(SourceError, match=r"2 image topics.*/camera/image_raw .*/rear/image_raw"):
        open_source(bag)
    chosen = open_source(bag, SourceOptions(topic="/camera/image_raw"))
    assert chosen.frame_count == 5


def test_a_compressed_transport_of_the_same_images_is_no_second_topic(tmp_path: Path) -> None:
    sequence = Sequence(held_out("short_walk", width=56, height=42))
    write_sequence(sequence, tmp_path / "bag", "bag")
    source = open_source(tmp_path / "bag", SourceOptions(limit=2))
    for index, frame in enumerate(source):
        expected = sequence.frame(index)
        np.testing.assert_array_equal(frame.frame.decode(), expected.color)
        np.testing.assert_array_equal(true_depth(frame), expected.depth)
        np.testing.assert_allclose(true_pose(frame), expected.camera_to_world, atol=1e-9)
    assert source.describe()["topic"] == "/camera/image_raw"


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_compressed_depth_is_read(tmp_path: Path, encoding: str) -> None:
    messages = Messages("mcap")
    topic = "/camera/depth/image_raw/compressedDepth"
    extra = [
        (stamp, topic, messages.compressed(stamp, compressed_depth(depth, encoding),
                                           f"{encoding}; compressedDepth png"))
        for stamp, depth in zip(STAMPS, datasets.depths(), strict=True)
    ]  # fmt: skip
    bag = made(tmp_path, *extra, messages=messages, leave_out={"/camera/depth/image_raw"})
    source = open_source(bag)
    assert source.describe()["depth"] == topic
    for frame, depth in zip(source, datasets.depths(), strict=True):
        tolerance = 1e-6 if encoding == "16UC1" else depth**2 / 90  # one step of inverse depth
        error = np.abs(true_depth(frame) - depth)
        assert np.isnan(true_depth(frame)[0, 0])
        assert (error <= tolerance)[~np.isnan(depth)].all()


def test_float_depth_and_several_depth_topics(tmp_path: Path) -> None:
    messages = Messages("mcap")
    metres = datasets.depths()[0] + 1
    extra = (STAMPS[0], "/other/depth", messages.image(STAMPS[0], metres, "32FC1"))
    bag = made(tmp_path, extra, messages=messages)
    with pytest.raises(SourceError, match="2 depth topics"):
        open_source(bag)
    chosen = list(open_source(bag, SourceOptions(depth_topic="/other/depth")))
    np.testing.assert_allclose(true_depth(chosen[0]), metres)
    assert truth_of(chosen[1]).depth is None
    none = open_source(bag, SourceOptions(depth_topic="none"))
    assert truth_of(next(iter(none))).depth is None
    with pytest.raises(SourceError, match="no depth on '/nowhere'"):
        open_source(bag, SourceOptions(depth_topic="/nowhere"))


def test_a_pose_that_nobody_calls_truth_is_offered_and_not_taken(tmp_path: Path) -> None:
    messages = Messages("mcap")
    wheels = [
        (stamp, "/odom", messages.odometry(stamp, pose, "base_link"))
        for stamp, pose in zip(STAMPS, datasets.poses(), strict=True)
    ]
    bag = made(tmp_path, *wheels, messages=messages, leave_out={"/ground_truth/odometry"})
    source = open_source(bag)
    assert truth_of(next(iter(source))).camera_to_world is None
    assert any("/odom" in each and "--truth" in each for each in source.warnings)
    asked = open_source(bag, SourceOptions(truth="/odom"))
    np.testing.assert_allclose(true_pose(next(iter(asked))), datasets.poses()[0])
    assert any("poses of 'base_link'" in each for each in asked.warnings)
    with pytest.raises(SourceError, match=r"neither a file nor a topic.*/odom"):
        open_source(bag, SourceOptions(truth="/nowhere"))


def test_two_topics_called_truth_are_not_guessed_between(tmp_path: Path) -> None:
    messages = Messages("mcap")
    pose = messages.pose_stamped(STAMPS[0], np.eye(4))
    bag = made(tmp_path, (STAMPS[0], "/vicon/pose", pose), messages=messages)
    with pytest.raises(SourceError, match=r"2 topics look like.*/vicon/pose"):
        open_source(bag)
    none = open_source(bag, SourceOptions(truth="none"))
    assert truth_of(next(iter(none))).camera_to_world is None


@pytest.mark.parametrize("kind", BAG_KINDS)
def test_tf_gives_the_pose_of_one_frame_in_another(tmp_path: Path, kind: BagKind) -> None:
    messages = Messages(kind)
    mount = np.eye(4)
    mount[:3, :3] = Rotation.from_euler("xyz", [0.3, -0.2, 0.9]).as_matrix()
    mount[:3, 3] = [0.1, 0.0, 0.5]
    shift = np.eye(4)
    shift[:3, 3] = [5, 6, 7]
    extra = [(STAMPS[0], "/tf_static", messages.tf(0, [("base_link", CAMERA, mount)]))]
    extra += [
        (stamp, "/tf", messages.tf(stamp, [("odom", "base_link", pose), ("odom", "world", shift)]))
        for stamp, pose in zip(STAMPS, datasets.poses(), strict=True)
    ]
    bag = made(tmp_path, *extra, kind=kind, messages=messages)
    source = open_source(bag, SourceOptions(truth=f"world -> {CAMERA}"))
    for frame, pose in zip(source, datasets.poses(), strict=True):
        expected = np.linalg.inv(shift) @ pose @ mount
        np.testing.assert_allclose(true_pose(frame), expected, atol=1e-9)
    with pytest.raises(SourceError, match=r"no frame 'moon'.*base_link"):
        open_source(bag, SourceOptions(truth=f"moon->{CAMERA}"))


def test_a_mounted_camera_gets_the_static_transform(tmp_path: Path) -> None:
    messages = Messages("mcap")
    mount = np.eye(4)
    mount[:3, 3] = [0, 0, 0.5]
    extra = [(STAMPS[0], "/tf_static", messages.tf(0, [("base_link", CAMERA, mount)]))]
    extra += [
        (stamp, "/gt/odometry", messages.odometry(stamp, pose, "base_link"))
        for stamp, pose in zip(STAMPS, datasets.poses(), strict=True)
    ]
    bag = made(tmp_path, *extra, messages=messages, leave_out={"/ground_truth/odometry"})
    source = open_source(bag)
    assert source.warnings == []
    for frame, pose in zip(source, datasets.poses(), strict=True):
        np.testing.assert_allclose(true_pose(frame), pose @ mount, atol=1e-9)


@pytest.mark.parametrize("kind", ["tum", "kitti", "euroc"])
def test_a_file_gives_the_poses(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("data.csv" if kind == "euroc" else "truth.txt")
    lines = []
    for stamp, pose in zip(STAMPS, datasets.poses(), strict=True):
        x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat()
        place = pose[:3, 3].tolist()
        if kind == "tum":
            lines.append(f"{stamp / SECOND:.9f} {datasets.row(np.array([*place, x, y, z, w]))}")
        elif kind == "kitti":
            lines.append(datasets.row(pose[:3]))
        else:
            lines.append(",".join(map(repr, [stamp, *place, w, x, y, z, 0.1, 0.2])).replace(
                "np.float64(", "").replace(")", ""))  # fmt: skip
    head = "#timestamp, p_RS_R_x [m], p_RS_R_y [m]\n" if kind == "euroc" else "# a remark\n"
    path.write_text(head + "\n".join(lines) + "\n")
    assert read_truth(path).kind == kind
    source = open_source(made(tmp_path), SourceOptions(truth=str(path)))
    for frame, pose in zip(source, datasets.poses(), strict=True):
        np.testing.assert_allclose(true_pose(frame), pose, atol=1e-7)
    assert kind in source.describe()["poses"]
    assert any("IMU" in each for each in source.warnings) == (kind == "euroc")


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "truth.txt").write_text("1 2 3\n")
    with pytest.raises(SourceError, match="has 3 columns"):
        read_truth(tmp_path / "truth.txt")
    (tmp_path / "truth.csv").write_text("1,2,3\n")
    with pytest.raises(SourceError, match="3 columns"):
        read_truth(tmp_path / "truth.csv")


def test_poses_are_interpolated_between_near_neighbours_only() -> None:
    second = np.eye(4)
    second[:3, :3] = Rotation.from_euler("z", 80, degrees=True).as_matrix()
    second[:3, 3] = [4, 0, 0]
    track = TimedPoses([1000, 2000, 9000], [np.eye(4), second, np.eye(4)], tolerance=800)
    quarter = present(track.at(1250))
    assert quarter[:3, 3].tolist() == [1, 0, 0]
    turned = Rotation.from_matrix(quarter[:3, :3]).as_euler("zyx", degrees=True)
    np.testing.assert_allclose(turned, [20, 0, 0], atol=1e-9)
    np.testing.assert_array_equal(track.at(2000), second)
    np.testing.assert_array_equal(track.at(2500), second)
    assert track.at(5000) is None
    assert track.at(100) is None
    np.testing.assert_array_equal(track.at(300), np.eye(4))


DISTORTED = (-0.3, 0.1, 0.0, 0.0, 0.0)
P = (5.0, 0.0, 3.5, 0.0, 0.0, 6.0, 2.5, 0.0, 0.0, 0.0, 1.0, 0.0)


def with_camera(tmp_path: Path, topic: str = "image_raw", **changes: Any) -> Path:
    """Write a bag whose camera_info has other numbers, and whose images another topic."""
    messages = Messages("mcap")
    written = []
    for stamp, name, message in records(messages):
        if name.endswith("camera_info"):
            fields = {key: np.array(value) for key, value in changes.items()}
            written.append((stamp, name, replace(message, **fields)))
        else:
            written.append((stamp, name.replace("camera/image_raw", f"camera/{topic}"), message))
    return write(tmp_path / "bag", messages, "mcap", written)


def test_the_truth_is_in_the_camera_whose_image_the_engine_makes(tmp_path: Path) -> None:
    turn = Rotation.from_euler("y", 0.1).as_matrix()
    k = (6.0, 0.0, 3.5, 0.0, 6.0, 2.5, 0.0, 0.0, 1.0)
    bag = with_camera(tmp_path, d=DISTORTED, k=k, p=P, r=turn.ravel())
    source = open_source(bag)
    frame = next(iter(source))
    engine = present(
        Calibrator("auto").rectification_for(frame.frame.calibration, frame.frame.decode())
    )
    assert engine.maps is not None
    lens = true_intrinsics(frame)
    assert (lens.fx, lens.fy, lens.cx, lens.cy) == (5.0, 6.0, 3.5, 2.5)
    np.testing.assert_array_equal(
        true_depth(frame), engine.rectify_depth(datasets.depths()[0].astype(np.float32))
    )
    assert np.isnan(true_depth(frame)).sum() > 1
    expected = datasets.poses()[0]
    expected[:3, :3] = expected[:3, :3] @ turn.T
    np.testing.assert_allclose(true_pose(frame), expected, atol=1e-9)
    assert source.warnings == []


def test_rectified_images_have_the_camera_of_p(tmp_path: Path) -> None:
    source = open_source(with_camera(tmp_path, topic="image_rect", d=DISTORTED, p=P))
    frame = next(iter(source))
    lens = true_intrinsics(frame)
    assert (lens.fx, lens.fy, lens.cx, lens.cy) == (5.0, 6.0, 3.5, 2.5)
    np.testing.assert_allclose(true_depth(frame), datasets.depths()[0], atol=1e-6)
    assert source.warnings == []


def test_a_lens_that_the_engine_does_not_know_is_warned_of(tmp_path: Path) -> None:
    source = open_source(with_camera(tmp_path, d=(0.1, 0.2)))
    frame = next(iter(source))
    assert true_intrinsics(frame).fy == 101
    np.testing.assert_allclose(true_depth(frame), datasets.depths()[0], atol=1e-6)
    assert source.warnings == ["the lens distorts, and images are taken as they are"]


def test_given_intrinsics_stand_in_for_a_missing_camera_info(tmp_path: Path) -> None:
    given = SourceOptions(intrinsics=(10.0, 11.0, 4.0, 3.0))
    missing = {"/camera/camera_info"}
    source = open_source(made(tmp_path / "a", leave_out=missing), given)
    lens = true_intrinsics(next(iter(source)))
    assert (lens.fx, lens.fy, lens.cx, lens.cy) == (10.0, 11.0, 4.0, 3.0)
    assert (lens.width, lens.height) == (datasets.WIDTH, datasets.HEIGHT)
    assert source.warnings == []
    known = open_source(made(tmp_path / "b"), given)
    assert true_intrinsics(next(iter(known))).fy == 101
    assert any("--intrinsics is not used" in each for each in known.warnings)
    flat = open_source(made(tmp_path / "c", leave_out={*missing, "/camera/depth/image_raw"}), given)
    assert any("--intrinsics is of no use" in each for each in flat.warnings)


def test_a_kind_makes_no_sense_for_a_bag(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no option kind"):
        open_source(made(tmp_path), SourceOptions(kind="tum"))
