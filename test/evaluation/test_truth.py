# SPDX-License-Identifier: Apache-2.0
"""Truth that is none, covers little or determines nothing is not taken for more than it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import command_line
import cv2
import datasets
import numpy as np
import pytest
from bags import BAG_KINDS, SECOND, BagKind
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from present import present, true_depth, true_intrinsics, true_pose, truth_of
from recordings import MemorySource, tiny_request
from recordings import truth as true_of
from selection import examples
from truth_bags import CAMERA, STAMPS, Messages, compressed_depth, records, write

from xsvggt_ros.errors import ConfigurationError, FrameError, SourceError
from xsvggt_ros.evaluation import runner
from xsvggt_ros.evaluation.evaluation import Evaluation
from xsvggt_ros.evaluation.metric_registry import Threshold
from xsvggt_ros.evaluation.request import SourceOptions
from xsvggt_ros.evaluation.results import write_evaluation
from xsvggt_ros.evaluation.sources import open_source
from xsvggt_ros.evaluation.sources.bag import recorded_depth
from xsvggt_ros.evaluation.sources.base import EvaluationFrame
from xsvggt_ros.geometry.files import read_tum
from xsvggt_ros.geometry.rigid import is_pose, is_position, pose_from
from xsvggt_ros.metrics.trajectory import is_straight
from xsvggt_ros.stream.messages import COMPRESSED_IMAGE

TINY = ["--preset", "tiny", "--width", "28", "--device", "cpu"]
LOST = {
    "nan": np.full((4, 4), np.nan),
    "infinite": np.full((4, 4), -np.inf),
    "zeros": np.diag([0.0, 0.0, 0.0, 1.0]),
    "mirror": np.diag([1.0, 1.0, -1.0, 1.0]),
    "scaled": np.diag([2.0, 2.0, 2.0, 1.0]),
    "one number": np.eye(4) + np.diag([np.nan], 3),
}


def test_what_is_a_pose() -> None:
    assert all(is_pose(pose) for pose in datasets.poses())
    assert is_pose(np.round(datasets.poses()[0], 3))  # files round
    assert not any(is_pose(pose) for pose in LOST.values())
    assert is_position(pose_from(np.ones(3), np.zeros(4)))
    assert not is_position(LOST["nan"])


class Poses(MemorySource):
    """A source whose true poses are changed."""

    def __init__(
        self, count: int, change: Callable[[int, np.ndarray], np.ndarray | None], **options: Any
    ) -> None:
        super().__init__(count, **options)
        self._change = change

    def __iter__(self) -> Iterator[EvaluationFrame]:
        for index, each in enumerate(super().__iter__()):
            pose = self._change(index, present(true_of(index).camera_to_world))
            yield EvaluationFrame(each.frame, replace(true_of(index), camera_to_world=pose))


def evaluated(
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[int, np.ndarray], np.ndarray | None],
    count: int = 8,
    **options: Any,
) -> Evaluation:
    source = Poses(count, change)
    for name, value in options.items():
        setattr(source, name, value)
    monkeypatch.setattr(runner, "open_source", lambda path, chosen: source)
    return runner.evaluate(tiny_request())


@pytest.mark.parametrize("kind", LOST)
def test_one_lost_pose_costs_one_pose(
    monkeypatch: pytest.MonkeyPatch, kind: BagKind, tmp_path: Path
) -> None:
    whole = evaluated(monkeypatch, lambda index, pose: None if index == 3 else pose)
    run = evaluated(monkeypatch, lambda index, pose: LOST[kind] if index == 3 else pose)
    assert run.scores.trajectory["sim3"].ate.count == 7
    assert run.scores.trajectory["sim3"].ate.rmse == whole.scores.trajectory["sim3"].ate.rmse
    assert any("1 true poses are none" in each for each in run.warnings)
    write_evaluation(run, tmp_path)
    assert len(read_tum(tmp_path / "truth.tum")) == 7


LOADERS = {
    "tum": (datasets.tum, "groundtruth.txt"),
    "rgbd": (datasets.rgbd, "pose.txt"),
    "kitti": (datasets.kitti_odometry, "poses/04.txt"),
    "icl": (datasets.icl_nuim, "livingRoom2n.gt.freiburg"),
    "neural": (datasets.neural_rgbd, "poses.txt"),
    "7-scenes": (datasets.seven_scenes, "frame-000001.pose.txt"),
    "scannet": (datasets.scannet, "pose/1.txt"),
}


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("value", ["nan", "0", "-inf"])
def test_a_lost_pose_in_a_data_set_is_none_and_counted(
    tmp_path: Path, name: str, value: str
) -> None:
    write_set, file = LOADERS[name]
    directory = write_set(tmp_path / "data")
    plain = [truth_of(frame).camera_to_world for frame in open_source(directory)]
    path = directory / file
    rows = [line for line in path.read_text().splitlines() if line[0] != "#"]
    whole = name in ("7-scenes", "scannet")
    stamped = name in ("tum", "icl")
    first = {"tum": 4, "neural": 4}.get(name, 1)  # the row that belongs to the second frame
    for number in range(len(rows)):
        lost = whole or number == first or (name == "neural" and 4 <= number < 8)
        if lost:
            words = rows[number].split()
            kept = words[:1] if stamped else []
            rows[number] = " ".join([*kept, *[value] * (len(words) - len(kept))])
    path.write_text("\n".join(rows) + "\n")
    source = open_source(directory)
    found = [truth_of(frame).camera_to_world for frame in source]
    index = 2 if name == "icl" else 1
    assert found[index] is None
    for n, (pose, before) in enumerate(zip(found, plain, strict=True)):
        if n != index:
            np.testing.assert_array_equal(pose, before)
    assert any("are none (not finite, or no rotation)" in each for each in source.warnings)


def bag(
    tmp_path: Path,
    kind: BagKind,
    change: Callable[[int, Any], None],
    *,
    leave_out: Collection[str] = (),
    extra: Sequence[tuple[int, str, Any]] = (),
) -> Path:
    messages = Messages(kind)
    made = []
    for number, (stamp, topic, message) in enumerate(records(messages)):
        if topic == "/ground_truth/odometry":
            change(number // 4, message.pose.pose)
        if topic not in leave_out:
            made.append((stamp, topic, message))
    return write(tmp_path / "bag", messages, kind, [*made, *extra])


def zero(quaternion: object) -> None:
    for axis in "xyzw":
        object.__setattr__(quaternion, axis, 0.0)


@pytest.mark.parametrize("kind", BAG_KINDS)
def test_a_lost_pose_in_a_bag_is_left_out_and_counted(tmp_path: Path, kind: BagKind) -> None:
    def lose(index: int, pose: Any) -> None:
        if index == 1:
            object.__setattr__(pose.position, "x", float("nan"))
        if index == 3:
            zero(pose.orientation)

    source = open_source(bag(tmp_path, kind, lose))
    found = [truth_of(frame).camera_to_world for frame in source]
    assert [pose is None for pose in found] == [False, True, False, True, False]
    np.testing.assert_allclose(present(found[4]), datasets.poses()[4], atol=1e-9)
    assert any("2 of 5 poses of /ground_truth/odometry are none" in e for e in source.warnings)


@pytest.mark.parametrize("kind", BAG_KINDS)
def test_lost_transforms_are_left_out_and_counted(tmp_path: Path, kind: BagKind) -> None:
    messages = Messages(kind)
    poses = [pose.copy() for pose in datasets.poses()]
    transforms = [messages.tf(stamp, [("map", CAMERA, pose)]) for stamp, pose in
                  zip(STAMPS, poses, strict=True)]  # fmt: skip
    zero(transforms[2].transforms[0].transform.rotation)
    made = [*records(messages), *((stamp, "/tf", each) for stamp, each in
                                  zip(STAMPS, transforms, strict=True))]  # fmt: skip
    path = write(tmp_path / "bag", messages, kind, made)
    source = open_source(path, SourceOptions(truth=f"map->{CAMERA}"))
    found = [truth_of(frame).camera_to_world for frame in source]
    assert [pose is None for pose in found] == [False, False, True, False, False]
    assert any("1 transforms are none" in each for each in source.warnings)


def test_a_truth_of_positions_only_gives_ate_and_says_what_it_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    full = evaluated(monkeypatch, lambda index, pose: pose)
    run = evaluated(monkeypatch, lambda index, pose: pose_from(pose[:3, 3], np.zeros(4)))
    assert set(run.scores.trajectory) == {"se3", "se3_online", "sim3"}
    assert (run.scores.odometry.drift, run.scores.odometry.steps) == ({}, {})
    sim3 = run.scores.trajectory["sim3"]
    assert sim3.ate == full.scores.trajectory["sim3"].ate
    assert np.isnan(sim3.rpe_translation.rmse)
    assert any(each.startswith("trajectory, alignment origin:") for each in run.scores.missing)
    assert run.scores.cloud is None
    limits = (Threshold("ate_sim3", "max", 1e9), Threshold("rpe_rotation_deg", "max", 1e9))
    scored = write_evaluation(run, tmp_path, limits)
    assert [verdict.kept for verdict in scored.verdicts] == [True, False]
    assert "nan" not in (tmp_path / "summary.md").read_text()
    assert json.loads((tmp_path / "metrics.json").read_text())["trajectory"]["sim3"][
        "rpe_rotation_deg"]["rmse"] is None  # fmt: skip
    quaternions = read_tum(tmp_path / "truth.tum").quaternions
    np.testing.assert_array_equal(quaternions, np.zeros((8, 4)))


@pytest.mark.parametrize("columns", [4, 8])
def test_a_file_of_positions_is_read_as_such(tmp_path: Path, columns: int) -> None:
    rows = [f"{stamp / SECOND:.3f} {datasets.row(pose[:3, 3])}{' 0 0 0 0' if columns == 8 else ''}"
            for stamp, pose in zip(STAMPS, datasets.poses(), strict=True)]  # fmt: skip
    (tmp_path / "leica.txt").write_text("\n".join(rows) + "\n")
    path = bag(tmp_path, "mcap", lambda index, pose: None)
    source = open_source(path, SourceOptions(truth=str(tmp_path / "leica.txt")))
    for frame, pose in zip(source, datasets.poses(), strict=True):
        np.testing.assert_allclose(true_pose(frame)[:3, 3], pose[:3, 3], atol=1e-8)
        assert np.isnan(true_pose(frame)[:3, :3]).all()
    assert any("positions only" in each for each in source.warnings)


def test_one_score_that_fails_takes_no_other_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr("xsvggt_ros.evaluation.evaluator.score_trajectory", fail)
    monkeypatch.setattr("xsvggt_ros.evaluation.evaluator.score_cloud", fail)
    monkeypatch.setattr("xsvggt_ros.evaluation.odometry.score_drift", fail)
    run = evaluated(monkeypatch, lambda index, pose: pose)
    assert run.scores.trajectory == {}
    assert run.scores.cloud is None
    assert set(run.scores.depth) == {"raw", "median", "l1", "l1_shift"}
    failed = [each for each in run.scores.missing if not each.startswith("steps")]
    assert failed == [
        f"{score}: unexpected LinAlgError: SVD did not converge"
        for score in (
            "trajectory", "cloud", "drift, alignment sim3", "drift, alignment se3_online",
        )
    ]  # fmt: skip
    write_evaluation(run, tmp_path)
    assert (tmp_path / "report.html").is_file()


# Truth that matches little, or has no shape


def test_how_much_has_a_truth_is_always_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    truth = SECOND, SECOND + SECOND // 5
    run = evaluated(
        monkeypatch, lambda index, pose: pose if index < 3 else None, 10, truth_stamps=truth
    )
    words = (
        "3 of 10 frames have a true pose, 10 true depth; images were taken from 1.000 to "
        "1.900 s, true poses from 1.000 to 1.200 s"
    )
    assert run.association.words == words
    assert words in run.warnings
    write_evaluation(run, tmp_path)
    assert words in (tmp_path / "summary.md").read_text()
    assert words in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "metrics.json").read_text())["association"] == {
        "frames": 10, "with_pose": 3, "with_depth": 10, "images_s": [1.0, 1.9],
        "truth_s": [1.0, 1.2],
    }  # fmt: skip
    whole = evaluated(monkeypatch, lambda index, pose: pose, 10, truth_stamps=truth)
    assert "10 of 10 frames have a true pose" in whole.association.words
    assert whole.association.words not in whole.warnings


def test_truth_of_another_hour_is_said_with_both_ranges(tmp_path: Path) -> None:
    directory = datasets.tum(tmp_path / "data")
    rows = [line.split() for line in (directory / "groundtruth.txt").read_text().splitlines()
            if line[0] != "#"]  # fmt: skip
    late = [" ".join([f"{float(row[0]) + 3600:.4f}", *row[1:]]) for row in rows]
    (directory / "groundtruth.txt").write_text("\n".join(late) + "\n")
    result = command_line.run(
        "evaluate", directory, "-o", tmp_path / "out", "--max", "ate_sim3=1e9", *TINY
    )
    assert result.exit_code == 3
    output = " ".join(result.output.split())
    assert "0 of 5 frames have a true pose" in output
    assert "images were taken from 100.000 to 100.400 s, true poses from 3700.000 to" in output
    assert "the truth begins 3600.000 s after the images" in output
    assert "ATE, Sim(3) was not measured" in output


def tum_file(path: Path, offset: float) -> Path:
    rows = [f"{stamp / SECOND + offset:.3f} {datasets.tum_row(pose)}" for stamp, pose in
            zip(STAMPS, datasets.poses(), strict=True)]  # fmt: skip
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("offset", [3600.0, -3600.0])
def test_an_explicit_truth_of_another_hour_is_an_error_before_the_run(
    tmp_path: Path, offset: float
) -> None:
    path = bag(tmp_path, "mcap", lambda index, pose: None)
    truth = tum_file(tmp_path / "truth.txt", offset)
    side = "after" if offset > 0 else "before"
    with pytest.raises(SourceError, match=rf"belongs to no image.*3600.000 s {side} them"):
        open_source(path, SourceOptions(truth=str(truth)))
    result = command_line.run("evaluate", path, "-o", tmp_path / "out", "--truth", truth, *TINY)
    assert result.exit_code == 1
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_an_explicit_truth_that_fits_no_image_is_an_error(tmp_path: Path) -> None:
    path = bag(tmp_path, "mcap", lambda index, pose: None)
    truth = tum_file(tmp_path / "truth.txt", 0.05)  # between the images
    rows = truth.read_text().splitlines()
    truth.write_text(rows[-1] + "\n")
    arguments = ["--truth", truth, "--tolerance", 0.02, *TINY]
    result = command_line.run("evaluate", path, "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 1
    assert "belongs to no frame" in " ".join(result.output.split())
    assert "--tolerance (now 0.02 s)" in " ".join(result.output.split())


def test_a_standing_truth_tells_no_scale(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stand(index: int, pose: np.ndarray) -> np.ndarray:
        pose[:3, 3] = 1e-4 * index
        return pose

    run = evaluated(monkeypatch, stand)
    assert set(run.scores.trajectory) == {"origin", "se3", "se3_online"}
    assert any("stays within 1.2 mm, so that it tells no scale" in e for e in run.scores.missing)
    scored = write_evaluation(run, tmp_path, (Threshold("ate_sim3", "max", 1e9),))
    assert not scored.verdicts[0].kept
    assert "was not measured" in scored.verdicts[0].words


@pytest.mark.parametrize("count", [1, 2])
def test_two_poses_always_fit_and_tell_nothing(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    run = evaluated(monkeypatch, lambda index, pose: pose if index < count else None)
    assert "sim3" not in run.scores.trajectory
    assert any(f"{count} matched poses" in each for each in run.scores.missing)


def test_a_straight_path_leaves_turns_about_itself_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def straight(index: int, pose: np.ndarray) -> np.ndarray:
        pose[:3, 3] = 0.3 * index, 0.1 * index, 0.0
        return pose

    run = evaluated(monkeypatch, straight)
    assert any("the true path is a straight line" in each for each in run.warnings)
    assert "sim3" in run.scores.trajectory
    bent = evaluated(monkeypatch, lambda index, pose: pose)
    assert not any("straight line" in each for each in bent.warnings)
    assert not is_straight(datasets.poses())


# Depth and images of another size than the camera


def camera_of(frames: list[EvaluationFrame]) -> np.ndarray:
    camera = true_intrinsics(frames[0])
    return np.array([camera.fx, camera.fy, camera.cx, camera.cy, camera.width, camera.height])


@pytest.mark.parametrize("name", ["tum", "rgbd", "7-scenes", "neural"])
def test_half_size_depth_has_half_the_camera(tmp_path: Path, name: str) -> None:
    write_set, _ = LOADERS[name]
    directory = write_set(tmp_path / "data")
    (tmp_path / "data" / "calibration.txt").write_text("10 11 4 3\n")
    plain = camera_of(list(open_source(directory)))
    for path in directory.rglob("*.png"):
        if "depth" in path.as_posix().removeprefix(tmp_path.as_posix()):
            depth = present(cv2.imread(str(path), -1))
            assert cv2.imwrite(str(path), np.ascontiguousarray(depth[::2, ::2]))
    source = open_source(directory)
    np.testing.assert_allclose(camera_of(list(source)), plain / 2)
    assert any("depth is 4x3 and its camera 8x6" in each for each in source.warnings)


def test_depth_of_another_shape_is_warned_of(tmp_path: Path) -> None:
    directory = datasets.rgbd(tmp_path / "data")
    (directory / "calibration.txt").write_text("10 11 4 3\n")
    for path in (directory / "depth").iterdir():
        datasets.write_png(path, np.full((6, 20), 1000, np.uint16))
    source = open_source(directory)
    list(source)
    assert any("depth is 20x6 and its camera 8x6, in another shape" in e for e in source.warnings)


def test_a_published_camera_is_scaled_to_the_images_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = open_source(datasets.seven_scenes(tmp_path / "chess"))
    np.testing.assert_allclose(camera_of(list(source)), [525 / 80, 525 / 80, 4, 3, 8, 6])
    assert "images are 8x6, and the camera's numbers are for 640x480: they are scaled" in (
        caplog.text
    )


def test_a_published_camera_on_images_that_were_cut_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = datasets.seven_scenes(tmp_path / "chess")
    for path in directory.rglob("*.color.png"):
        datasets.write_png(path, np.zeros((60, 40, 3), np.uint8))
    open_source(directory)
    assert "though the images have another shape" in caplog.text


def test_a_given_camera_far_from_the_middle_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = datasets.rgbd(tmp_path / "data")
    (directory / "calibration.txt").write_text("525 525 320 240\n")
    open_source(directory)
    assert "the principal point (320, 240) is far from the middle of images of 8x6" in caplog.text


class Fifth(MemorySource):
    """Depth that was read at a fifth of its scale."""

    factor: float

    def __iter__(self) -> Iterator[EvaluationFrame]:
        for index, each in enumerate(super().__iter__()):
            known = true_of(index)
            yield EvaluationFrame(
                each.frame, replace(known, depth=present(known.depth) / self.factor)
            )


@pytest.mark.parametrize("factor", [5.0, 0.2, 1.0])
def test_depth_at_another_scale_than_the_path_is_noticed(
    monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    """The estimate is made equal to the truth, so that its scale is 1 by the path."""
    from xsvggt_ros.evaluation import evaluator

    source = Fifth(8)
    source.factor = factor
    monkeypatch.setattr(runner, "open_source", lambda path, chosen: source)
    monkeypatch.setattr(evaluator, "depth_at_truth", lambda result, truth: truth * factor)
    plain = evaluator.SessionEvaluator.matched
    monkeypatch.setattr(evaluator.SessionEvaluator, "matched", lambda self: (plain(self)[1],) * 2)
    run = runner.evaluate(tiny_request())
    said = [each for each in run.warnings if "than the true path says" in each]
    assert len(said) == (factor != 1.0)
    if said:
        assert f"5.0 times {'smaller' if factor > 1 else 'larger'}" in said[0]
        assert "--depth-scale" in said[0]


# One file of a data set costs itself


@pytest.mark.parametrize("name", ["tum", "rgbd", "kitti", "icl", "neural", "7-scenes", "scannet"])
@pytest.mark.parametrize("damage", ["gone", "empty", "noise"])
def test_a_first_image_that_is_lost_costs_one_frame(tmp_path: Path, name: str, damage: str) -> None:
    directory = LOADERS[name][0](tmp_path / "data")
    colors = sorted(
        path for path in directory.rglob("*") if path.suffix in (".png", ".jpg")
        and "depth" not in path.as_posix().removeprefix(str(tmp_path))
    )  # fmt: skip
    if damage == "gone" and name != "tum":
        return  # where no list names it, nobody misses it
    if damage == "gone":
        colors[0].unlink()
    else:
        colors[0].write_bytes(b"" if damage == "empty" else b"\x89PNG\r\n\x1a\n" + bytes(40))
    lost = 0
    for each in open_source(directory):
        try:
            each.frame.decode()
        except FrameError:
            lost += 1
    assert lost == 1


@pytest.mark.parametrize("name", ["7-scenes", "scannet"])
@pytest.mark.parametrize("content", ["", "1 2 3\n", "1 0 0 x\n", "\0\0"])
def test_a_damaged_file_with_a_pose_costs_one_pose(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, content: str
) -> None:
    write_set, file = LOADERS[name]
    directory = write_set(tmp_path / "data")
    whole = sum(truth_of(given).camera_to_world is not None for given in open_source(directory))
    (directory / file.replace("000001", "000000").replace("pose/1", "pose/0")).write_text(content)
    found = [truth_of(given).camera_to_world for given in open_source(directory)]
    assert sum(pose is not None for pose in found) == whole - 1
    assert "1 of 5 files with poses are damaged and left out" in caplog.text


def test_images_of_7_scenes_may_be_jpeg_as_those_of_bundlefusion_are(tmp_path: Path) -> None:
    directory = datasets.seven_scenes(tmp_path / "data")
    for path in directory.glob("*.color.png"):
        path.rename(path.with_suffix(".jpg"))  # OpenCV looks at the content
    frames = list(open_source(directory))
    assert len(frames) == 5
    assert all(truth_of(given).depth is not None for given in frames)
    np.testing.assert_allclose([true_pose(given) for given in frames],
                               datasets.poses(), atol=1e-8)  # fmt: skip


@pytest.mark.parametrize("name", ["depth_{}", "{}_depth", "{:06d}", "depth{:06d}"])
def test_depth_is_found_by_its_number_where_it_has_a_name_of_its_own(
    tmp_path: Path, name: str
) -> None:
    directory = datasets.rgbd(tmp_path / "data")
    for path in sorted((directory / "depth").iterdir()):
        path.rename(path.with_name(name.format(int(path.stem)) + path.suffix))
    found = [true_depth(given) for given in open_source(directory)]
    np.testing.assert_allclose(found, datasets.depths(), atol=1e-3)


def test_a_list_of_windows_is_read(tmp_path: Path) -> None:
    directory = datasets.tum(tmp_path / "data")
    for name in ("rgb.txt", "depth.txt"):
        path = directory / name
        path.write_text(path.read_text().replace("/", "\\"))
    frames = list(open_source(directory))
    np.testing.assert_array_equal([given.frame.decode() for given in frames], datasets.colors())


@pytest.mark.parametrize("numbers", ["nan nan 4 3", "0 0 4 3", "-500 500 4 3", "500 inf 4 3"])
def test_numbers_of_no_camera_are_refused(tmp_path: Path, numbers: str) -> None:
    directory = datasets.rgbd(tmp_path / "data")
    (directory / "intrinsics.txt").write_text(f"{numbers}\n")
    with pytest.raises(SourceError, match="cannot be fx"):
        open_source(directory)
    (directory / "intrinsics.txt").unlink()
    fx, fy, cx, cy = map(float, numbers.split())
    with pytest.raises(ConfigurationError, match="are those of no camera"):
        open_source(directory, SourceOptions(intrinsics=(fx, fy, cx, cy)))


@pytest.mark.parametrize("numbers", ["0 " * 12, "nan " * 12, "7 0 4 0 0 7 3 0 0 0 0 0"])
def test_a_projection_of_no_camera_is_refused(tmp_path: Path, numbers: str) -> None:
    directory = datasets.kitti_odometry(tmp_path / "data")
    (directory / "sequences" / "04" / "calib.txt").write_text(f"P2: {numbers}\n")
    with pytest.raises(SourceError, match=r"cannot be fx|line 1 of .*Singular"):
        open_source(directory)


@pytest.mark.parametrize("kind", BAG_KINDS)
def test_a_camera_of_16_bits_is_no_depth(tmp_path: Path, kind: BagKind) -> None:
    messages = Messages(kind)
    made = records(messages)
    thermal = [
        (stamp, topic, messages.image(stamp, np.arange(48, dtype=np.uint16).reshape(6, 8), "mono16")
         if "image" in topic and "depth" not in topic else message)
        for stamp, topic, message in made
    ]  # fmt: skip
    source = open_source(write(tmp_path / "run", messages, kind, thermal))
    assert source.frame_count == len(STAMPS)


@pytest.mark.parametrize("kind", BAG_KINDS)
@pytest.mark.parametrize("way", ["topic", "tf"])
def test_a_truth_without_stamps_has_those_of_the_recording(
    tmp_path: Path, kind: BagKind, way: str
) -> None:
    messages, poses = Messages(kind), datasets.poses()
    made = [each for each in records(messages) if "odometry" not in each[1]]
    for stamp, pose in zip(STAMPS, poses, strict=True):
        if way == "topic":
            made.append((stamp, "/ground_truth/odometry", messages.odometry(0, pose)))
        else:
            made.append((stamp, "/tf", messages.tf(0, [("map", CAMERA, pose)])))
    options = SourceOptions(truth=None if way == "topic" else f"map->{CAMERA}")
    source = open_source(write(tmp_path / "run", messages, kind, sorted(made, key=first)), options)
    np.testing.assert_allclose([true_pose(given) for given in source], poses, atol=1e-9)


def first(record: tuple[int, str, Any]) -> int:
    return record[0]


# Whatever a recording holds, it is read or left out

FLOATS = st.floats(width=64)
SLOW = settings(max_examples=examples(60), deadline=None,
                suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip


@given(st.sampled_from(["16UC1; compressedDepth", "32FC1; compressedDepth png", "", "x rvl"]),
       st.binary(max_size=80), st.booleans())  # fmt: skip
def test_any_compressed_depth_is_read_or_refused(text: str, data: bytes, real: bool) -> None:
    if real:  # a whole image behind any header
        data = data[:12].ljust(12, b"\0") + compressed_depth(datasets.depths()[0], "16UC1")[12:]
    message = SimpleNamespace(format=text, data=np.frombuffer(data, np.uint8))
    try:
        depth = recorded_depth(message, COMPRESSED_IMAGE)
    except FrameError:
        return
    known = depth[np.isfinite(depth)]
    assert depth.dtype == np.float32
    assert (known > 0).all()


@given(st.lists(st.tuples(*[FLOATS] * 7, st.integers(-5, 5)), min_size=1, max_size=6),
       st.sampled_from(["", "/", CAMERA, f"/{CAMERA}", "base"]), st.booleans())  # fmt: skip
@SLOW
def test_any_pose_of_a_bag_is_a_pose_or_none(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]], child: str, moving: bool
) -> None:
    messages = Messages("mcap")
    made = [each for each in records(messages) if "odometry" not in each[1]]
    for (x, y, z, a, b, c, d, off), stamp in zip(rows, STAMPS, strict=False):
        odometry = messages.odometry(max(0, stamp + off), np.eye(4), child)
        pose = odometry.pose.pose
        pose.position.x, pose.position.y, pose.position.z = x, y, z
        turn = pose.orientation
        turn.x, turn.y, turn.z, turn.w = a, b, c, d
        made.append((stamp, "/gt/odometry", odometry))
        if moving:
            made.append((stamp, "/tf", messages.tf(stamp, [("map", child, np.eye(4))])))
    path = write(tmp_path_factory.mktemp("bag") / "run", messages, "mcap", sorted(made, key=first))
    for truth in (None, "map->base", "none"):
        try:
            found = [truth_of(given).camera_to_world for given in
                     open_source(path, SourceOptions(truth=truth))]  # fmt: skip
        except SourceError:
            continue
        assert all(pose is None or np.isfinite(pose[:3, 3]).all() for pose in found)
