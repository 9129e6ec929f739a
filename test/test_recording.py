# SPDX-License-Identifier: Apache-2.0
"""What is kept of a run stays bounded, and nothing is invented."""

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.stream.depth_files import MOST_STEPS, depth_steps
from xsvggt_ros.stream.overview import OVERVIEW_SIZE
from xsvggt_ros.stream.recording import (
    CloudSample,
    EvenSample,
    LongestSession,
    RecordedFrame,
    Recording,
)
from xsvggt_ros.stream.results import title, write_results


def frame(stamp: int = 0, size: tuple[int, int] = (6, 8), index: int = 0) -> RecordedFrame:
    random = np.random.default_rng(stamp)
    pose = np.eye(4)
    pose[:3, 3] = (stamp, 0, 0)
    return RecordedFrame(
        index=index,
        stamp=stamp,
        camera_to_map=pose,
        points=random.random((*size, 3), np.float32),
        depth=random.random(size, np.float32),
        confidence=np.arange(np.prod(size), dtype=np.float32).reshape(size),
        color=random.integers(0, 256, (*size, 3), np.uint8),
    )


@given(st.integers(1, 200), st.lists(st.integers(0, 100), max_size=30))
def test_a_cloud_sample_never_exceeds_its_limit_and_keeps_points_with_their_colours(limit, sizes):
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


def test_a_full_cloud_sample_favours_no_frame():
    sample = CloudSample(2000)
    for number in range(100):
        sample.add(np.full((1000, 3), number, np.float32), np.zeros((1000, 3), np.uint8))
    points, _ = sample.arrays()
    first, second = (points[:, 0] < 50).sum(), (points[:, 0] >= 50).sum()
    assert 1000 <= len(points) <= 2000
    assert abs(first - second) < 0.2 * len(points)


@given(st.integers(2, 8), st.integers(0, 500))
def test_an_even_sample_is_bounded_even_and_starts_at_the_start(limit, count):
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


def test_only_the_confident_known_points_are_kept_in_the_map_frame():
    given_frame = frame(stamp=7)
    given_frame.points[5, 7] = np.nan
    recording = Recording(confident_share=0.5)
    recording.add(given_frame)
    points, colors = recording.cloud.arrays()
    chosen = given_frame.confidence.ravel() >= np.median(given_frame.confidence.ravel()[:-1])
    chosen[-1] = False
    expected = given_frame.points.reshape(-1, 3)[chosen] + np.float32([7, 0, 0])
    np.testing.assert_allclose(points, expected, rtol=1e-6)
    np.testing.assert_array_equal(colors, given_frame.color.reshape(-1, 3)[chosen])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_of_several_sessions_the_longest_is_kept_whole_and_alone(lengths):
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


def test_the_title_shows_the_end_of_long_paths():
    whole = CacheSettings("none", key_bits=16, value_bits=16)
    heading = title("/a/long/way/to/drive.mcap", "/my/weights/x.pth", whole, 9)
    kept = "everything kept, 16/16 bits"
    assert heading == f"to/drive.mcap  ·  weights/x.pth  ·  {kept}  ·  9 frames"
    heading = title("drive.mcap", "owner/name", CacheSettings(budget_tokens=7), 9)
    kept = "xstreamvggt, 7 tokens, 4/4 bits"
    assert heading == f"drive.mcap  ·  owner/name  ·  {kept}  ·  9 frames"
    assert "xstreamvggt, 2.5 MiB, 2/4 bits" in title(
        "a", "b", CacheSettings(budget_mib=2.5, key_bits=2), 1
    )


def test_the_three_files_are_written_even_of_nothing(tmp_path):
    for count in (0, 1, 9):
        recording = Recording()
        for stamp in range(count):
            recording.add(frame(stamp))
        paths = write_results(recording, tmp_path / str(count), "a heading with $ and _")
        assert [path.name for path in paths] == ["cloud.ply", "trajectory.tum", "overview.png"]
        picture = cv2.imread(str(paths[2]))
        assert picture.shape[1::-1] == OVERVIEW_SIZE
        assert len(recording.trajectory()) == count


def test_the_overview_of_unknown_depth_is_drawn(tmp_path):
    unknown = frame()
    unknown.depth[:] = np.nan
    unknown.points[:] = np.nan
    recording = Recording()
    recording.add(unknown)
    assert len(recording.cloud) == 0
    write_results(recording, tmp_path, "nothing known")
    assert cv2.imread(str(tmp_path / "overview.png")) is not None


def test_depth_in_steps_is_zero_where_it_cannot_be_told():
    depth = np.float32([[1.2344, 0.0, np.nan, np.inf, -np.inf, -2.0, 65.535, 65.6]])
    assert depth_steps(depth).tolist() == [[1234, 0, 0, 0, 0, 0, MOST_STEPS, 0]]
