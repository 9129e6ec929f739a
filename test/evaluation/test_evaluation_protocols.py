# SPDX-License-Identifier: Apache-2.0
"""Protocols take the images, sizes, masks and alignments of the reference, and skip nothing."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Literal

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from present import present, true_depth
from scipy.spatial.transform import Rotation

from xsvggt_ros.errors import ConfigurationError, EvaluationError
from xsvggt_ros.evaluation.protocols import mv_recon as recon
from xsvggt_ros.evaluation.protocols.base import ProtocolRow, mean_row
from xsvggt_ros.evaluation.protocols.mv_recon import cropped
from xsvggt_ros.evaluation.protocols.relpose import (
    auc,
    camera_to_world_of,
    co3d,
    pair_errors,
    relpose,
)
from xsvggt_ros.evaluation.protocols.video_depth import (
    long_side,
    mono_depth,
    open_sequence,
    sequence_names,
    video_depth,
)
from xsvggt_ros.evaluation.sources.tum import open_prepared
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.model.checkpoint import load_network
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings

WIDTH = 56


@pytest.fixture(scope="module")
def engine() -> Reconstructor:
    torch.manual_seed(0)
    return Reconstructor(
        load_network("", preset="tiny"), ReconstructorSettings(WIDTH, point_head=True)
    )


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("Sintel", (1024, 436), (518, 210)),
        ("Bonn", (640, 480), (518, 378)),
        ("KITTI", (1216, 352), (518, 140)),
    ],
)
def test_images_get_the_published_sizes(
    name: str, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    found = long_side(image)
    assert found.shape == (expected[1], expected[0], 3), name
    first = Image.fromarray(image).resize(
        (518, round(size[1] * 518 / size[0])), Image.Resampling.LANCZOS
    )
    np.testing.assert_array_equal(found, np.array(first.resize(expected, Image.Resampling.LANCZOS)))


def test_an_image_with_depth_is_cropped_around_its_middle() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    depth = np.tile(np.arange(640, dtype=np.float32), (480, 1))
    camera = Intrinsics(525.0, 525.0, 320.0, 240.0, 640, 480)
    shown, seen, moved = cropped(image, depth, camera, 518, 392)
    assert shown.shape == (392, 518, 3)
    assert seen.shape == (392, 518)
    assert moved.fx == pytest.approx(525 * 392 / 480, rel=1e-6)
    # Depth names its own column: where it is seen now is where the new camera projects it.
    for column in (0, 100, 517):
        ray = (seen[0, column] - camera.cx) / camera.fx
        assert ray * moved.fx + moved.cx == pytest.approx(column, abs=1.0)


def test_video_depth_of_sintel_is_aligned_at_once_and_weighted_by_pixels(
    engine: Reconstructor, tmp_path: Path
) -> None:
    root = datasets.sintel(datasets.sintel(tmp_path / "sintel"), "ambush_2")
    rows = list(video_depth(engine, "sintel", root))
    assert [row.sequence for row in rows] == ["alley_1", "ambush_2"]
    pixels = datasets.COUNT * (datasets.WIDTH * datasets.HEIGHT - 1)
    assert [(row.frames, row.weight, row.error) for row in rows] == [(5, pixels, None)] * 2
    assert set(rows[0].metrics) >= {"abs_rel_l1", "delta_1_l1", "depth_log_rmse_l1"}
    # The same images are the same stream again, whatever came before.
    assert rows[0].metrics == pytest.approx(rows[1].metrics, rel=1e-5)
    assert mean_row(rows).metrics == pytest.approx(rows[0].metrics, rel=1e-5)


def test_monocular_depth_knows_no_stream(engine: Reconstructor, tmp_path: Path) -> None:
    root = datasets.kitti_gathered(tmp_path / "val_selection_cropped")
    (row,) = mono_depth(engine, "kitti", root)
    assert (row.frames, row.error) == (5, None)
    assert 0 < row.metrics["abs_rel_median_per_image"] < 10
    (stream,) = video_depth(engine, "kitti", root)
    assert not set(stream.metrics) & set(row.metrics)


def test_the_fourteen_sequences_of_sintel_are_chosen_by_name(tmp_path: Path) -> None:
    root = datasets.sintel(datasets.sintel(tmp_path / "sintel"), "alley_2")
    assert sequence_names("sintel14", root) == ["alley_2"]
    with pytest.raises(EvaluationError, match="no sequence of bonn"):
        sequence_names("bonn", root)
    with pytest.raises(ConfigurationError, match="'nyu' is unknown"):
        sequence_names("nyu", root)


def test_bonn_is_taken_as_it_was_prepared(tmp_path: Path) -> None:
    directory = tmp_path / "rgbd_bonn_balloon2"
    for index in range(35):
        datasets.write_png(directory / "rgb" / f"{index:03d}.png", datasets.colors()[index % 5])
        datasets.write_depth(
            directory / "depth" / f"{index:03d}.png", datasets.depths()[index % 5], 5000
        )
    frames = list(open_prepared(directory))
    assert len(frames) == 5
    np.testing.assert_array_equal(frames[1].frame.decode(), datasets.colors()[1])
    np.testing.assert_allclose(true_depth(frames[1]), datasets.depths()[1], atol=1e-4)
    assert sequence_names("bonn", tmp_path) == ["rgbd_bonn_balloon2"]
    assert open_sequence("bonn", tmp_path, "rgbd_bonn_balloon2", None).frame_count == 5


def test_a_sequence_that_fails_is_a_row_that_says_so(engine: Reconstructor, tmp_path: Path) -> None:
    root = datasets.sintel(datasets.sintel(tmp_path / "sintel"), "ambush_2")
    (root / "training" / "final" / "alley_1" / "frame_0003.png").write_bytes(b"damaged")
    broken, good = video_depth(engine, "sintel", root)
    assert "frame_0003.png" in present(broken.error)
    assert good.error is None
    mean = mean_row([broken, good])
    assert mean.metrics == good.metrics
    assert mean.error == "1 of 2 sequences failed and are not in the mean"
    with pytest.raises(EvaluationError, match="none of 1 sequences"):
        mean_row([broken])


def test_the_mean_weighs_rows() -> None:
    rows = [ProtocolRow("a", 1, {"x": 1.0}, 3.0), ProtocolRow("b", 1, {"x": 5.0}, 1.0)]
    assert mean_row(rows).metrics == {"x": 2.0}


@pytest.mark.parametrize("prediction", ["points", "projection"])
def test_reconstruction_of_neural_rgbd(
    engine: Reconstructor, tmp_path: Path, prediction: Literal["points", "projection"]
) -> None:
    datasets.neural_rgbd(tmp_path / "kitchen")
    (row,) = recon.mv_recon(engine, "neural_rgbd", tmp_path, prediction=prediction)
    assert row.error is None
    # Five images: each second one, 0, 2 and 4; all of them have poses.
    assert row.frames == 3
    assert 0 <= row.metrics["nc"] <= 1
    assert row.metrics["nc"] == pytest.approx((row.metrics["nc1"] + row.metrics["nc2"]) / 2)
    (long,) = recon.mv_recon(
        engine, "neural_rgbd", tmp_path, prediction=prediction, sampling=recon.Sampling(5)
    )
    assert long.frames == 4  # the lost one is left out


def test_reconstruction_of_7_scenes_takes_the_test_split(
    engine: Reconstructor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "HEIGHT", 480)
    monkeypatch.setattr(datasets, "WIDTH", 640)
    for sequence in ("seq-01", "seq-03"):
        datasets.seven_scenes(tmp_path / "chess", sequence)
    (tmp_path / "chess" / "TestSplit.txt").write_text("sequence3\n")
    assert recon.sequence_names("seven_scenes", tmp_path) == ["chess/seq-03"]
    (row,) = recon.mv_recon(engine, "seven_scenes", tmp_path)
    assert (row.frames, row.sequence) == (1, "chess/seq-03")


def test_reconstruction_by_points_needs_the_point_head(tmp_path: Path) -> None:
    datasets.neural_rgbd(tmp_path / "kitchen")
    plain = Reconstructor(load_network("", preset="tiny"), ReconstructorSettings(WIDTH))
    with pytest.raises(ConfigurationError, match="point_head=True"):
        recon.mv_recon(plain, "neural_rgbd", tmp_path)


def test_a_right_shape_in_another_size_and_depth_is_perfect() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=(20, 20, 3))
    view = recon._View((true - [0, 0, 7]) * 0.3, true)
    predicted, expected = recon._normalized([view], "points")
    np.testing.assert_allclose(predicted, expected, atol=1e-12)
    turned = Rotation.from_rotvec([0.3, 0.1, 0.2]).apply(true.reshape(-1, 3)).reshape(true.shape)
    predicted, expected = recon._normalized([recon._View(2 * turned + 5, true)], "projection")
    np.testing.assert_allclose(predicted, expected, atol=1e-12)


def test_the_path_of_a_tum_sequence_is_judged_after_sim3(
    engine: Reconstructor, tmp_path: Path
) -> None:
    datasets.tum(tmp_path / "rgbd_dataset_freiburg3_sitting")
    (row,) = relpose(engine, "tum", tmp_path, stride=1)
    assert (row.frames, row.error) == (5, None)
    assert set(row.metrics) == {
        "ate_sim3",
        "rpe_translation_sim3",
        "rpe_rotation_deg",
        "scale_sim3",
    }
    (sparse,) = relpose(engine, "tum", tmp_path, frames=2, stride=3)
    assert sparse.frames == 2


def test_errors_of_pairs_done_by_hand() -> None:
    true = np.tile(np.eye(4), (3, 1, 1))
    true[1, :3, 3] = [1, 0, 0]
    true[2, :3, 3] = [0, 1, 0]
    estimated = true.copy()
    estimated[1, :3, 3] = [-5, 0, 0]
    estimated[2, :3, 3] = 0
    estimated[2, :3, :3] = Rotation.from_euler("z", 20, degrees=True).as_matrix()
    rotation, direction = pair_errors(estimated, true)
    np.testing.assert_allclose(rotation, [0, 20, 20], atol=1e-9)
    # Pair 1-2: truly (-1, 1, 0), estimated (5, 0, 0).
    np.testing.assert_allclose(direction, [0, 90, 45], atol=1e-9)


def test_the_area_under_the_curve_is_the_mean_of_the_histogram() -> None:
    assert auc(np.array([0.5, 1.5, 100.0, 2.5]), 3) == pytest.approx((0.25 + 0.5 + 0.75) / 3)


def test_annotations_of_pytorch3d_become_optical_poses() -> None:
    view = {"R": np.diag([-1.0, -1.0, 1.0]).tolist(), "T": [-1.0, -2.0, 3.0]}
    np.testing.assert_allclose(camera_to_world_of(view)[:3], [[1, 0, 0, -1], [0, 1, 0, -2],
                                                              [0, 0, 1, -3]])  # fmt: skip


def test_co3d_draws_ten_images_of_each_long_sequence(engine: Reconstructor, tmp_path: Path) -> None:
    views = []
    for index, pose in enumerate(datasets.poses(50)):
        path = f"apple/1/images/frame{index}.png"
        datasets.write_png(tmp_path / path, datasets.colors()[index % 5])
        world_to_camera = np.linalg.inv(pose)
        views.append({"filepath": path, "R": world_to_camera[:3, :3].tolist(),
                      "T": world_to_camera[:3, 3].tolist()})  # fmt: skip
    for category, annotation in {"apple": {"1": views, "2": views[:49]}, "ball": {}}.items():
        with gzip.open(tmp_path / f"{category}_test.jgz", "wt") as stream:
            json.dump(annotation, stream)
    apple, ball = co3d(engine, tmp_path, tmp_path)
    assert (apple.frames, apple.error) == (10, None)
    assert set(apple.metrics) == {"auc_30", "auc_15", "auc_5", "auc_3"}
    assert "no sequence of 50" in present(ball.error)


def test_the_point_head_runs_only_where_it_is_asked_for(engine: Reconstructor) -> None:
    image = np.random.default_rng(0).integers(0, 256, (42, WIDTH, 3), dtype=np.uint8)
    engine.reset()
    asked = engine.step(image)
    plain = Reconstructor(load_network("", preset="tiny"), ReconstructorSettings(WIDTH))
    assert present(asked.points).shape == (42, WIDTH, 3)
    assert plain.step(image).points is None
