# SPDX-License-Identifier: Apache-2.0
"""Each data set's own files give the images, metres and optical poses that they were made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
from present import true_depth, true_intrinsics, true_pose, truth_of

from xsvggt_ros.errors import ConfigurationError, FrameError, SourceError
from xsvggt_ros.evaluation.request import SourceOptions
from xsvggt_ros.evaluation.sources import open_source
from xsvggt_ros.synthetic.export import write_sequence
from xsvggt_ros.synthetic.sequence import Sequence, held_out

KINDS: dict[str, tuple[Callable[[Path], Path], str, float | None]] = {
    "tum": (datasets.tum, "tum", 5000),
    "seven_scenes": (datasets.seven_scenes, "seven_scenes", 1000),
    "neural_rgbd": (datasets.neural_rgbd, "neural_rgbd", 1000),
    "kitti_odometry": (datasets.kitti_odometry, "kitti_odometry", None),
    "kitti_gathered": (datasets.kitti_gathered, "kitti_depth", 256),
    "kitti_selection": (datasets.kitti_selection, "kitti_depth", 256),
    "sintel": (datasets.sintel, "sintel", 1e9),
    "scannet": (datasets.scannet, "scannet", 1000),
    "icl_nuim": (datasets.icl_nuim, "rgbd", 5000),
    "rgbd": (datasets.rgbd, "rgbd", 5000),
}
LOST = {"neural_rgbd": {3}, "scannet": {2}, "icl_nuim": {0}}
NO_POSES = {"kitti_gathered", "kitti_selection"}


@pytest.mark.parametrize("name", KINDS)
def test_images_depths_and_poses_are_those_that_were_written(tmp_path: Path, name: str) -> None:
    write, kind, per_metre = KINDS[name]
    source = open_source(write(tmp_path / "data"))
    frames = list(source)
    assert (source.kind, source.frame_count, len(frames)) == (kind, datasets.COUNT, datasets.COUNT)
    assert [each.stamp for each in frames] == sorted({each.stamp for each in frames})
    assert frames[0].stamp > 0
    truths = zip(frames, datasets.colors(), datasets.depths(), datasets.poses(), strict=True)
    for index, (frame, color, depth, pose) in enumerate(truths):
        image = frame.frame.decode()
        if name == "scannet":  # JPEG of twice the size
            assert image.shape == (2 * datasets.HEIGHT, 2 * datasets.WIDTH, 3)
        else:
            np.testing.assert_array_equal(image, color)
        if per_metre is None:
            assert truth_of(frame).depth is None
        else:
            assert true_depth(frame).dtype == np.float32
            np.testing.assert_allclose(true_depth(frame), depth, rtol=1e-6, atol=0.51 / per_metre)
        if name in NO_POSES or index in LOST.get(name, ()):
            assert truth_of(frame).camera_to_world is None
        else:
            np.testing.assert_allclose(true_pose(frame), pose, atol=1e-7)
    assert json.loads(json.dumps(source.describe()))["kind"] == kind


@pytest.mark.parametrize(
    ("name", "camera"),
    [
        # The images are 8x6; what is published is for 640x480, of Sintel for 1024x436.
        ("tum", (525.0 / 80, 525.0 / 80, 319.5 / 80, 239.5 / 80)),
        ("seven_scenes", (525.0 / 80, 525.0 / 80, 4.0, 3.0)),
        ("neural_rgbd", (554.2562584220408 / 80, 554.2562584220408 / 80, 4.0, 3.0)),
        ("kitti_odometry", (700.0, 700.0, 4.0, 3.0)),
        ("kitti_selection", (721.5, 722.5, 4.0, 3.0)),
        ("sintel", (1120.0 / 128, 1121.0 * 6 / 436, 511.5 / 128, 217.5 * 6 / 436)),
        ("scannet", (577.87, 578.73, 4.0, 3.0)),
        ("icl_nuim", (481.2 / 80, 480.0 / 80, 319.5 / 80, 239.5 / 80)),
    ],
)
def test_intrinsics_are_those_of_the_depth(
    tmp_path: Path, name: str, camera: tuple[float, float, float, float]
) -> None:
    write, _, _ = KINDS[name]
    k = true_intrinsics(next(iter(open_source(write(tmp_path / "data")))))
    assert (k.fx, k.fy, k.cx, k.cy) == pytest.approx(camera)
    assert (k.width, k.height) == (datasets.WIDTH, datasets.HEIGHT)


@pytest.mark.parametrize(
    ("name", "camera"),
    [
        ("rgbd_dataset_freiburg1_desk", 517.306408),
        ("rgbd_dataset_freiburg3_sitting", 535.433105),
        ("rgbd_bonn_balloon2", 542.822841),
    ],
)
def test_the_camera_of_a_tum_directory_is_known_by_its_name(
    tmp_path: Path, name: str, camera: float
) -> None:
    source = open_source(datasets.tum(tmp_path / name))
    assert true_intrinsics(next(iter(source))).fx == pytest.approx(camera / 80)
    assert source.kind == ("bonn" if "bonn" in name else "tum")
    assert any("distorts" in each for each in source.warnings) == ("freiburg1" in name)


def test_truth_further_away_than_the_tolerance_is_no_truth(tmp_path: Path) -> None:
    directory = datasets.tum(tmp_path / "data")
    source = open_source(directory, SourceOptions(tolerance=0.001))
    assert all(truth_of(each).depth is None for each in source)
    assert "5 of 5 frames have no true depth" in source.warnings


def test_depth_of_7_scenes_that_is_not_registered_is_warned_of(tmp_path: Path) -> None:
    source = open_source(datasets.seven_scenes(tmp_path / "chess", registered=False))
    assert any("not registered" in each for each in source.warnings)
    first = true_depth(next(iter(source)))
    assert np.isnan(first[0, 0])
    np.testing.assert_allclose(first[1], datasets.depths()[0, 1] + 1, atol=1e-6)


def test_several_sequences_are_listed_and_one_is_chosen_by_name(tmp_path: Path) -> None:
    for sequence in ("seq-01", "seq-03"):
        datasets.seven_scenes(tmp_path / "chess", sequence)
    with pytest.raises(SourceError, match=r"2 sequences.*seq-01, seq-03"):
        open_source(tmp_path / "chess")
    chosen = open_source(tmp_path / "chess", SourceOptions(sequence="seq-03"))
    assert chosen.name == "chess/seq-03"
    with pytest.raises(SourceError, match="no sequence 'seq-09'"):
        open_source(tmp_path / "chess", SourceOptions(sequence="seq-09"))


def test_a_directory_that_fits_two_kinds_is_not_guessed(tmp_path: Path) -> None:
    directory = datasets.rgbd(datasets.tum(tmp_path / "data"))
    with pytest.raises(SourceError, match="tum or rgbd"):
        open_source(directory)
    assert open_source(directory, SourceOptions(kind="rgbd")).kind == "rgbd"
    with pytest.raises(ConfigurationError, match="'lsd' is unknown"):
        open_source(directory, SourceOptions(kind="lsd"))


def test_intrinsics_that_nobody_knows_are_asked_for_and_may_be_given(tmp_path: Path) -> None:
    directory = datasets.rgbd(tmp_path / "data")
    assert any("intrinsics are unknown" in each for each in open_source(directory).warnings)
    given = open_source(directory, SourceOptions(intrinsics=(10.0, 11.0, 4.0, 3.0)))
    assert true_intrinsics(next(iter(given))).fy == 11
    assert given.warnings == []


def test_a_negative_fy_mirrors_the_world(tmp_path: Path) -> None:
    directory = datasets.rgbd(tmp_path / "data")
    frames = list(open_source(directory, SourceOptions(intrinsics=(10.0, -11.0, 4.0, 3.0))))
    mirror = np.diag([1.0, -1, 1, 1])
    assert true_intrinsics(frames[0]).fy == 11
    for frame, pose in zip(frames, datasets.poses(), strict=True):
        np.testing.assert_allclose(true_pose(frame), mirror @ pose @ mirror, atol=1e-7)


def test_damaged_files_are_reported_and_the_stream_goes_on(tmp_path: Path) -> None:
    directory = datasets.rgbd(tmp_path / "data")
    (directory / "depth" / "2.png").write_bytes(b"no image")
    (directory / "color" / "3.png").write_bytes(b"no image")
    source = open_source(directory)
    frames = list(source)
    assert truth_of(frames[1]).depth is None
    assert any("2.png: it is damaged" in each for each in source.warnings)
    with pytest.raises(FrameError, match=r"3\.png"):
        frames[2].frame.decode()
    assert len(frames) == datasets.COUNT


@pytest.mark.parametrize(
    ("write", "file", "content", "message"),
    [
        (datasets.rgbd, "pose.txt", "1 2 3\n", "7 columns"),
        (datasets.rgbd, "pose.txt", "0 0 0 0 0 0 1\n", "5 images and 1 lines"),
        (datasets.neural_rgbd, "poses.txt", "1 0 0 0\n" * 3, "each pose takes four"),
        (datasets.tum, "rgb.txt", "soon rgb/1.png\n", "'soon'"),
        (datasets.kitti_odometry, "sequences/04/calib.txt", "P9: 1\n", "no line 'P2: '"),
    ],
)
def test_damaged_tables_are_named(
    tmp_path: Path, write: Callable[[Path], Path], file: str, content: str, message: str
) -> None:
    directory = write(tmp_path / "data")
    (directory / file).write_text(content)
    with pytest.raises(SourceError, match=message):
        open_source(directory)


@pytest.mark.parametrize("kind", ["directory", "tum"])
def test_what_synthesize_wrote_is_read_back(tmp_path: Path, kind: str) -> None:
    sequence = Sequence(held_out("short_drift", width=56, height=42))
    write_sequence(sequence, tmp_path / "data", kind)
    source = open_source(tmp_path / "data", SourceOptions(limit=2))
    assert source.kind == kind
    for index, frame in enumerate(source):
        expected = sequence.frame(index)
        assert frame.stamp == expected.stamp
        np.testing.assert_array_equal(frame.frame.decode(), expected.color)
        np.testing.assert_allclose(true_depth(frame), expected.depth, atol=1.01e-4)
        np.testing.assert_allclose(true_pose(frame), expected.camera_to_world, atol=1e-8)
        assert true_intrinsics(frame).fx == pytest.approx(expected.intrinsics.fx, abs=1e-6)


def test_a_directory_of_nothing_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="looked for tum, seven_scenes"):
        open_source(tmp_path)
