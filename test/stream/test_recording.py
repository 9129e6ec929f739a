# SPDX-License-Identifier: Apache-2.0
"""What is kept of a run stays bounded, and nothing is invented."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from present import present

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import world_to_map
from xsvggt_ros.stream.drawing import Scene
from xsvggt_ros.stream.recording import (
    CacheBytes,
    CloudSample,
    EvenSample,
    GroundTruth,
    LongestSession,
    RecordedFrame,
    Recording,
    TopView,
    compare,
    mebibytes,
    summarize,
)
from xsvggt_ros.stream.results import MOST_STEPS, OVERVIEW_SIZE, depth_steps, title, write_results


def frame(stamp: int = 0, size: tuple[int, int] = (6, 8), index: int = 0) -> RecordedFrame:
    random = np.random.default_rng(stamp)
    pose = np.eye(4)
    pose[:3, 3] = (stamp, 0, 0)
    return RecordedFrame(
        index=index,
        stamp=stamp,
        camera_to_map=pose,
        intrinsics=Intrinsics(8.0, 8.0, size[1] / 2, size[0] / 2, size[1], size[0]),
        points=random.random((*size, 3), np.float32),
        depth=random.random(size, np.float32),
        confidence=np.arange(np.prod(size), dtype=np.float32).reshape(size),
        color=random.integers(0, 256, (*size, 3), np.uint8),
        cache=CacheBytes(1 << 20, 1 << 19, (stamp + 1) << 20),
    )


@given(st.integers(1, 200), st.lists(st.integers(0, 100), max_size=30))
def test_a_cloud_sample_never_exceeds_its_limit_and_keeps_points_with_their_colours(
    limit: int, sizes: list[int]
) -> None:
    sample = CloudSample(limit)
    for start, size in zip(np.cumsum([0, *sizes]), sizes, strict=False):
        numbers = np.arange(start, start + size)
        points = np.repeat(numbers[:, None], 3, axis=1).astype(np.float32)
        sample.add(points, (points % 256).astype(np.uint8))
        assert len(sample) <= limit
    points, colors = sample.arrays()
    np.testing.assert_array_equal(points % 256, colors)
    assert len(np.unique(points[:, 0])) == len(points)
    if sum(sizes) <= limit:
        assert len(points) == sum(sizes)


def test_a_held_pose_is_in_the_trajectory_and_not_in_the_cloud() -> None:
    recording = Recording(confident_share=1.0)
    recording.add(frame(0))
    points = len(recording.cloud)
    recording.add(replace(frame(1), pose_source="held"))
    assert len(recording.trajectory()) == 2
    assert len(recording.cloud) == points


def test_a_full_cloud_sample_favours_no_frame() -> None:
    sample = CloudSample(2000)
    for number in range(100):
        sample.add(np.full((1000, 3), number, np.float32), np.zeros((1000, 3), np.uint8))
    points, _ = sample.arrays()
    first, second = (points[:, 0] < 50).sum(), (points[:, 0] >= 50).sum()
    assert 1000 <= len(points) <= 2000
    assert abs(first - second) < 0.2 * len(points)


@given(st.integers(2, 8), st.integers(0, 500))
def test_an_even_sample_is_bounded_even_and_starts_at_the_start(limit: int, count: int) -> None:
    sample: EvenSample[int] = EvenSample(limit)
    for number in range(count):
        sample.add(number)
    picked = sample.pick()
    assert len(picked) == min(limit, count) or count > limit
    assert len(picked) <= limit
    assert picked == sorted(picked)
    assert picked[:1] == list(range(min(count, 1)))
    if count > 2 * limit:
        assert picked[-1] >= count // 2


def test_only_the_confident_known_points_are_kept_in_the_map_frame() -> None:
    given_frame = frame(stamp=7)
    given_frame.points[5, 7] = np.nan
    recording = Recording(confident_share=0.5)
    recording.add(given_frame)
    points, colors = recording.cloud.arrays()
    chosen = given_frame.confidence.ravel() >= np.median(given_frame.confidence.ravel()[:-1])
    chosen[-1] = False
    expected = given_frame.points.reshape(-1, 3)[chosen] + np.array([7, 0, 0], np.float32)
    np.testing.assert_allclose(points, expected, rtol=1e-6)
    np.testing.assert_array_equal(colors, given_frame.color.reshape(-1, 3)[chosen])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_of_several_sessions_the_longest_is_kept_whole_and_alone(lengths: list[int]) -> None:
    recorded = LongestSession()
    stamp = 0
    for length in lengths:
        for index in range(length):
            recorded.add(frame(stamp := stamp + 1, index=index))
    longest = lengths.index(max(lengths))
    first = sum(lengths[:longest]) + 1
    assert recorded.recording.stamps == list(range(first, first + lengths[longest]))
    assert (recorded.frames, recorded.sessions) == (sum(lengths), len(lengths))
    if len(lengths) == 1:
        assert recorded.left_out == ""
    else:
        assert f"{len(lengths)} sessions" in recorded.left_out
        assert f"{lengths[longest]} of {sum(lengths)} frames" in recorded.left_out


def test_the_title_shows_the_end_of_long_paths() -> None:
    whole = CacheSettings("none", key_bits=16, value_bits=16)
    heading = title("/a/long/way/to/drive.mcap", "/my/weights/x.pth", whole, 9)
    kept = "everything kept, 16/16 bits"
    assert heading == f"to/drive.mcap  ·  weights/x.pth  ·  {kept}  ·  9 frames"
    heading = title("drive.mcap", "owner/name", CacheSettings("xstreamvggt", budget_tokens=7), 9)
    kept = "xstreamvggt, 7 tokens, 4/4 bits"
    assert heading == f"drive.mcap  ·  owner/name  ·  {kept}  ·  9 frames"
    assert "xstreamvggt, 2.5 MiB, 2/4 bits" in title(
        "a", "b", CacheSettings("xstreamvggt", budget_mib=2.5, key_bits=2), 1
    )


def test_the_title_names_the_policy_in_force() -> None:
    recording = Recording()
    assert "policy auto" in title("a", "b", recording.in_force(CacheSettings()), 0)
    recording.add(replace(frame(), policy="xstreamvggt"))
    words = CacheSettings("xstreamvggt").words
    assert title("a", "b", recording.in_force(CacheSettings()), 1).split("  ·  ")[2] == words
    recording.add(replace(frame(), policy="sliding_window"))  # policies change live
    assert recording.in_force(CacheSettings()).policy == "sliding_window"


def test_the_three_files_are_written_even_of_nothing(tmp_path: Path) -> None:
    for count in (0, 1, 9):
        recording = Recording()
        for stamp in range(count):
            recording.add(frame(stamp))
        paths = write_results(recording, tmp_path / str(count), "a heading with $ and _")
        assert [path.name for path in paths] == ["cloud.ply", "trajectory.tum", "overview.png"]
        image = present(cv2.imread(str(paths[2])))
        assert image.shape[1::-1] == OVERVIEW_SIZE
        assert len(recording.trajectory()) == count


def test_the_overview_of_unknown_depth_is_drawn(tmp_path: Path) -> None:
    unknown = frame()
    unknown.depth[:] = np.nan
    unknown.points[:] = np.nan
    recording = Recording()
    recording.add(unknown)
    assert len(recording.cloud) == 0
    write_results(recording, tmp_path, "nothing known")
    assert present(cv2.imread(str(tmp_path / "overview.png"))) is not None


WHITE = np.full((4, 6, 3), 255, np.uint8)
METRES_PER_UNIT = 2.5


def walk(count: int) -> list[RecordedFrame]:
    """Return frames along a curve."""
    frames = []
    for index in range(count):
        each = frame(index + 1, index=index)
        each.camera_to_map[:3, 3] = (index, np.sin(index), 0.1 * index**2)
        frames.append(each)
    return frames


def recording_of(frames: list[RecordedFrame]) -> Recording:
    recording = Recording()
    for each in frames:
        recording.add(each)
    return recording


def truth_of(frames: list[RecordedFrame]) -> GroundTruth:
    """Return a truth that is the estimate in another world: turned, shifted, in metres."""
    world = world_to_map(np.eye(4))
    world[:3, 3] = (3, -2, 1)
    poses, depths = {}, {}
    for each in frames:
        scaled = each.camera_to_map.copy()
        scaled[:3, 3] *= METRES_PER_UNIT
        poses[each.stamp] = world @ scaled
        depths[each.stamp] = np.repeat(np.repeat(3 * each.depth, 2, axis=0), 2, axis=1)
    return GroundTruth(poses, depths.__getitem__, TopView(WHITE, (0.0, -4.0), (9.0, 2.0)))


def test_an_estimate_that_is_the_truth_in_another_world_has_no_error() -> None:
    frames = walk(20)
    compared = present(compare(recording_of(frames), truth_of(frames)))
    assert compared.ate_sim3 < 1e-9
    assert compared.transform.scale == pytest.approx(METRES_PER_UNIT)
    moved = compared.map_transform.rotation @ compared.transform.rotation.T
    np.testing.assert_allclose(moved, np.eye(3), atol=1e-9)
    assert compared.depth_scale == pytest.approx(3)
    assert compared.abs_rel_median < 1e-6
    assert len(compared.depths) == 8
    np.testing.assert_allclose(compared.positions, compared.true_positions, atol=1e-9)


def test_a_place_that_is_off_and_a_depth_that_is_off_are_told() -> None:
    frames = walk(20)
    truth = truth_of(frames)
    for each in frames:
        each.depth[:3] *= 1.2
    for stamp in list(truth.poses)[10:]:
        truth.poses[stamp][:3, 3] += (0.0, 0.0, 1.0)
    compared = present(compare(recording_of(frames), truth))
    assert 0.1 < compared.ate_sim3 < 0.5
    extent = np.linalg.norm(np.ptp(compared.true_positions, axis=0))
    assert compared.relative_ate_sim3 == pytest.approx(compared.ate_sim3 / extent)
    assert compared.abs_rel_median == pytest.approx(0.09, abs=0.02)


def test_a_straight_path_leaves_no_roll_of_the_map_open() -> None:
    frames = walk(20)
    for each in frames:
        each.camera_to_map[:3, 3] *= (1, 0, 0)
    truth = truth_of(frames)
    compared = present(compare(recording_of(frames), truth))
    first = frames[0]
    turn = truth.poses[first.stamp][:3, :3] @ first.camera_to_map[:3, :3].T
    np.testing.assert_allclose(compared.map_transform.rotation, turn, atol=1e-9)


def test_only_frames_with_a_truth_are_compared() -> None:
    frames = walk(12)
    compared = present(compare(recording_of(frames), truth_of(frames[4:])))
    assert len(compared.positions) == 8
    assert set(compared.depths) <= {each.stamp for each in frames[4:]}
    assert compare(recording_of(frames), truth_of([])) is None


@pytest.mark.parametrize("count", [1, 2, 30])
def test_the_overview_with_a_truth_is_drawn(tmp_path: Path, count: int) -> None:
    frames = walk(count)
    recording = recording_of(frames)
    compared = present(compare(recording, truth_of(frames)))
    write_results(recording, tmp_path, "with a truth", compared)
    image = present(cv2.imread(str(tmp_path / "overview.png")))
    assert image.shape[1::-1] == OVERVIEW_SIZE
    assert np.all(image == 255, axis=-1).sum() > 10_000, "the white place is not shown"


@pytest.mark.parametrize("size", [(6, 8), (4, 16), (16, 6)])
def test_images_of_any_shape_find_room(tmp_path: Path, size: tuple[int, int]) -> None:
    recording = recording_of([frame(stamp, size, stamp) for stamp in range(9)])
    write_results(recording, tmp_path, "shapes")
    assert present(cv2.imread(str(tmp_path / "overview.png"))).shape[1::-1] == OVERVIEW_SIZE


def test_the_ceiling_is_left_out_of_the_view_from_above_and_a_low_camera_hides_nothing() -> None:
    heights = np.array([0.0] * 50 + [1.0] * 50 + [2.4] * 100)
    points = np.stack([np.zeros_like(heights), np.zeros_like(heights), heights], axis=-1)
    colors = np.zeros((200, 3), np.uint8)
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, 2, 3] = 1.5
    assert Scene(points, colors, poses).below_ceiling().points[:, 2].max() == 1.0
    poses[:, 2, 3] = -3.0
    assert len(Scene(points, colors, poses).below_ceiling().points) == 200


def test_the_summary_names_errors_and_bytes() -> None:
    frames = walk(20)
    recording = recording_of(frames)
    whole = summarize(recording, compare(recording, truth_of(frames)))
    assert [each.value for each in whole] == ["0.0 %", "0.000", "1.50 MiB", "21.0 MiB"]
    assert "14.0 times as much" in whole[-1].meaning
    assert summarize(recording, None) == whole[2:]
    assert summarize(Recording(), None) == []


@given(st.integers(0, 1 << 40))
def test_mebibytes_keep_three_digits(count: int) -> None:
    number = float(mebibytes(count).split()[0])
    assert number == pytest.approx(count / (1 << 20), rel=0.006, abs=0.006)


def test_listeners_hear_every_frame_of_every_session() -> None:
    heard: list[int] = []
    recorded = LongestSession(lambda each: heard.append(each.stamp))
    for stamp, index in ((1, 0), (2, 1), (3, 0)):
        recorded.add(frame(stamp, index=index))
    assert heard == [1, 2, 3]


def test_depth_in_steps_is_zero_where_it_cannot_be_told() -> None:
    depth = np.array([[1.2344, 0.0, np.nan, np.inf, -np.inf, -2.0, 65.535, 65.6]], np.float32)
    assert depth_steps(depth).tolist() == [[1234, 0, 0, 0, 0, 0, MOST_STEPS, 0]]
