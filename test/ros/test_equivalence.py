# SPDX-License-Identifier: Apache-2.0
"""A directory, a bag and a topic give the same numbers, to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bags import BagKind, Shot, encode, images, write_bag, write_directory
from rich.console import Console

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.model.checkpoint import load_network
from xsvggt_ros.stream.frame import FrameResult
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings
from xsvggt_ros.stream.sources import open_source
from xsvggt_ros.stream.worker import reconstruct

WIDTH, BUDGET = 56, 40
IMAGES = images(5, height=48, width=64)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_directory(tmp_path / "directory", IMAGES)


def run(path: Path) -> list[FrameResult]:
    settings = ReconstructorSettings(WIDTH, CacheSettings(budget_tokens=BUDGET))
    engine = Reconstructor(load_network("", preset="tiny", device="cpu"), settings)
    refused = []
    with open_source(path) as source:
        results = list(reconstruct(source, engine, lambda frame, error: refused.append(error)))
    assert not refused
    return results


def stamps(directory: Path) -> list[int]:
    with open_source(directory) as source:
        return [frame.stamp for frame in source]


@pytest.mark.parametrize("kind", ["ros1", "sqlite3", "mcap"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_bag_gives_what_the_directory_gives(
    tmp_path: Path, directory: Path, kind: BagKind, compressed: bool
) -> None:
    shots = [encode(image) if compressed else image for image in IMAGES]
    recorded = [Shot(stamp, shot) for stamp, shot in zip(stamps(directory), shots, strict=True)]
    expected, actual = run(directory), run(write_bag(tmp_path / "bag", recorded, kind))
    assert len(actual) == len(IMAGES)
    for one, other in zip(expected, actual, strict=True):
        assert one.stamp == other.stamp
        assert np.array_equal(one.depth, other.depth)
        assert np.array_equal(one.confidence, other.confidence)
        assert np.array_equal(one.camera_to_world, other.camera_to_world)
        assert one.cache == other.cache


def test_a_topic_gives_what_the_directory_gives(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = "needs ROS 2 and this package's messages: run scripts/test, or source a ROS 2 workspace"
    pytest.importorskip("rclpy", reason=how)
    pytest.importorskip("xsvggt_ros.msg", reason=how)
    from xsvggt_ros.commands.terminal import frame_progress
    from xsvggt_ros.ros.demo import Demo, DemoOptions

    monkeypatch.delenv("ROS_DOMAIN_ID", raising=False)
    options = DemoOptions(
        source=directory,
        output=tmp_path / "out",
        preset="tiny",
        width=WIDTH,
        device="cpu",
        cache=CacheSettings(budget_tokens=BUDGET),
    )
    console = Console(quiet=True)
    demo = Demo(options, console, lambda total: frame_progress(console, total))
    demo.run()
    expected, over_dds = run(directory), demo.recorded.recording.images.pick()
    assert [frame.stamp for frame in over_dds] == [result.stamp for result in expected]
    for one, other in zip(expected, over_dds, strict=True):
        assert np.array_equal(one.depth, other.depth)
        assert np.array_equal(one.confidence, other.confidence)
        assert np.array_equal(one.color, other.color)
