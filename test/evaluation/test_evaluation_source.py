# SPDX-License-Identifier: Apache-2.0
"""What a path is, and which frames are taken of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from present import true_depth, true_intrinsics, true_pose

from xsvggt_ros.errors import ConfigurationError, SourceError
from xsvggt_ros.evaluation.request import SourceOptions
from xsvggt_ros.evaluation.sources import open_source
from xsvggt_ros.synthetic.sequence import DEFAULT_ROOM, Sequence, held_out

SMALL: dict[str, Any] = {"width": 56, "height": 42}


def test_a_synthetic_sequence_comes_with_its_truth() -> None:
    source = open_source("synthetic:short_walk", SourceOptions(**SMALL))
    frames = list(source)
    assert source.frame_count == len(frames) == 10
    expected = Sequence(held_out("short_walk", **SMALL)).frame(3)
    third = frames[3]
    assert third.stamp == expected.stamp
    np.testing.assert_array_equal(third.frame.decode(), expected.color)
    np.testing.assert_array_equal(true_depth(third), expected.depth)
    np.testing.assert_array_equal(true_pose(third), expected.camera_to_world)
    assert true_intrinsics(third) == expected.intrinsics
    assert source.warnings == []
    assert json.loads(json.dumps(source.describe()))["room"] == DEFAULT_ROOM


@pytest.mark.parametrize("room", ["calm", "rich"])
def test_every_kind_of_room_can_be_looked_at(room: str) -> None:
    source = open_source(f"synthetic:short_drift@{room}", SourceOptions(**SMALL, limit=1))
    frame = next(iter(source))
    assert np.isfinite(true_depth(frame)).all()
    assert frame.frame.decode().shape == (42, 56, 3)


def test_rooms_are_chosen_in_the_name_or_by_option() -> None:
    named = open_source("synthetic:short_walk@rich", SourceOptions(**SMALL, limit=1))
    option = open_source("synthetic:short_walk", SourceOptions(**SMALL, limit=1, room="rich"))
    first, second = next(iter(named)), next(iter(option))
    np.testing.assert_array_equal(first.frame.decode(), second.frame.decode())
    assert named.name == option.name == "synthetic:short_walk@rich"


def test_start_stride_and_limit_choose_frames() -> None:
    whole = open_source("synthetic:short_walk", SourceOptions(**SMALL))
    part = open_source("synthetic:short_walk", SourceOptions(**SMALL, start=1, stride=3, limit=2))
    stamps = [each.stamp for each in whole]
    assert part.frame_count == 2
    assert [each.stamp for each in part] == [stamps[1], stamps[4]]


@pytest.mark.parametrize(
    ("path", "options", "error", "message"),
    [
        ("synthetic:nowhere", {}, ConfigurationError, "choose one of short_drift"),
        ("synthetic:short_walk", {"room": "attic"}, ConfigurationError, "calm"),
        ("synthetic:short_walk", {"topic": "/a"}, ConfigurationError, "no option topic"),
        ("synthetic:short_walk", {"start": 10}, SourceError, "start earlier"),
        ("nowhere", {}, SourceError, "nowhere"),
    ],
)
def test_what_cannot_be_opened_is_refused(
    path: str,
    options: dict[str, Any],
    error: type[ConfigurationError] | type[SourceError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        open_source(path, SourceOptions(**options))


@pytest.mark.parametrize("wrong", [{"stride": 0}, {"limit": 0}, {"start": -1}, {"tolerance": 0}])
def test_impossible_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="must be|impossible"):
        SourceOptions(**wrong)


def test_a_stream_of_a_suite_comes_with_its_truth() -> None:
    source = open_source("synthetic:landmarks_100_lap50#3", SourceOptions(**SMALL, limit=3))
    frames = list(source)
    assert len(frames) == source.frame_count == 3
    assert frames[0].frame.decode().shape == (42, 56, 3)
    assert true_pose(frames[0]).shape == (4, 4)
    sky = np.isnan(true_depth(frames[0]))
    assert 0.05 < sky.mean() < 0.95
    part = list(
        open_source("synthetic:landmarks_100_lap50#3", SourceOptions(**SMALL, start=2, limit=1))
    )
    assert np.array_equal(part[0].frame.decode(), frames[2].frame.decode())
    other = next(iter(open_source("synthetic:landmarks_100_lap50#4", SourceOptions(**SMALL))))
    assert not np.array_equal(other.frame.decode(), frames[0].frame.decode())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("landmarks_100_lap50#99", "1 to 64"),
        ("landmarks_100_lap50#x", "names no stream"),
        ("cellar#1", "'cellar' is unknown"),
    ],
)
def test_a_stream_that_there_is_not_is_named(name: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        open_source(f"synthetic:{name}")
