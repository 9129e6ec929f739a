# SPDX-License-Identifier: Apache-2.0
"""Bags that broke off are read as far as they are whole, and said to be broken."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from bags import BAG_KINDS, SECOND, BagKind, Shot, write_bag
from recordings import tiny_request
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_typestore

from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation.request import SourceOptions
from xsvggt_ros.evaluation.runner import evaluate
from xsvggt_ros.evaluation.sources import open_source
from xsvggt_ros.stream.sources import is_bag
from xsvggt_ros.stream.sources.bag import BagSource
from xsvggt_ros.stream.sources.bag_reader import BagReader
from xsvggt_ros.stream.sources.storage import bag_files

COUNT = 24


def noise(index: int) -> np.ndarray:
    """Draw an image of 270 kB that no compression makes small, so that bags get many chunks."""
    return np.random.default_rng(index).integers(0, 256, (300, 300, 3), dtype=np.uint8)


def written(path: Path, kind: BagKind) -> Path:
    shots = [Shot((index + 1) * SECOND, noise(index)) for index in range(COUNT)]
    return write_bag(path, shots, kind)


def cut(bag: Path, share: float) -> Path:
    """Cut the bag's file and take its metadata away, as a killed recorder leaves it."""
    (file,) = bag_files(bag)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    if bag.is_dir():
        (bag / "metadata.yaml").unlink()
    return bag


@pytest.mark.parametrize(
    ("kind", "share"),
    # SQLite keeps the root of its tree of messages where the first leaves moved to: a file that
    # is cut before that place has lost the way to its messages.
    [(kind, share) for kind in BAG_KINDS for share in (0.99, 0.7, 0.35)
     if (kind, share) != ("sqlite3", 0.35)],
)  # fmt: skip
def test_what_is_whole_is_read_and_the_rest_is_reported(
    tmp_path: Path, kind: BagKind, share: float
) -> None:
    bag = cut(written(tmp_path / "bag", kind), share)
    assert is_bag(bag)
    source = open_source(bag)
    frames = list(source)
    # A chunk holds about four of these images; what its end lacks goes with it.
    assert share * COUNT - 6 <= len(frames) <= share * COUNT + 1
    for index, frame in enumerate(frames):
        assert frame.stamp == (index + 1) * SECOND
        np.testing.assert_array_equal(frame.frame.decode(), noise(index))
    if share < 0.9:
        assert any("is not whole" in each for each in source.warnings)


@pytest.mark.parametrize("kind", BAG_KINDS)
def test_a_bag_that_is_whole_is_not_called_damaged(tmp_path: Path, kind: BagKind) -> None:
    with closing(BagReader(written(tmp_path / "bag", kind))) as reader:
        assert not reader.remarks


@pytest.mark.parametrize("compression", list(Ros1Writer.CompressionFormat))
def test_chunks_of_a_cut_ros_1_bag_may_be_compressed(
    tmp_path: Path, compression: Ros1Writer.CompressionFormat
) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    path = tmp_path / "packed.bag"
    writer = Ros1Writer(path)
    writer.set_compression(compression)
    text = store.types["std_msgs/msg/String"]
    with writer:
        topics = [writer.add_connection(name, text.__msgtype__, typestore=store)
                  for name in ("/a", "/b")]  # fmt: skip
        for stamp in range(1, 41):
            letters = np.random.default_rng(stamp).integers(32, 127, 100_000, dtype=np.uint8)
            message = text(data=f"{stamp} {letters.tobytes().decode()}")
            data = store.serialize_ros1(message, text.__msgtype__)
            writer.write(topics[stamp % 2], stamp * SECOND, data)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.8)])
    with closing(BagReader(path)) as reader:
        assert "is not whole" in reader.remarks[0]
        stamps = [int(reader.deserialize(each).data.split()[0])
                  for each in reader.messages(*reader.topics())]  # fmt: skip
    assert stamps == list(range(1, len(stamps) + 1))
    assert 15 <= len(stamps) <= 33
    assert all(second - first == 1 for first, second in pairwise(stamps))


@pytest.mark.parametrize("kind", BAG_KINDS)
def test_a_bag_with_nothing_whole_in_it_is_refused(tmp_path: Path, kind: BagKind) -> None:
    bag = cut(written(tmp_path / "bag", kind), 0.001)
    with pytest.raises(SourceError, match="Cannot open the bag"):
        open_source(bag)


def test_an_evaluation_says_it_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bag = cut(written(tmp_path / "bag", "mcap"), 0.6)
    request = tiny_request(options=SourceOptions(limit=2))
    run = evaluate(replace(request, source=str(bag)))
    said = [each for each in run.warnings if "is not whole" in each]
    assert len(said) == 1
    assert "times in all" not in said[0]
    assert caplog.text.count("is not whole") == 1


def test_every_command_reads_what_is_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bag = cut(written(tmp_path / "bag", "mcap"), 0.6)
    source = BagSource(bag)
    assert 8 <= len(list(source)) == source.frame_count <= 15
    assert "is not whole" in caplog.text


def test_what_a_killed_recorder_of_ros_1_leaves_is_a_bag(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bag = cut(written(tmp_path / "bag", "ros1"), 0.6)
    path = bag.rename(tmp_path / "drive.bag.active")
    assert is_bag(path)
    frames = list(BagSource(path))
    assert 8 <= len(frames) <= 15
    np.testing.assert_array_equal(frames[3].decode(), noise(3))
    assert "'rosbag reindex' of ROS 1" in caplog.text


def test_what_was_copied_is_removed(tmp_path: Path) -> None:
    reader = BagReader(cut(written(tmp_path / "bag", "sqlite3"), 0.6))
    scratch = reader._scratch.name
    reader.close()
    with pytest.raises(FileNotFoundError):
        next(iter(Path(scratch).iterdir()))


def test_more_of_a_file_is_never_less_of_the_stream(tmp_path: Path) -> None:
    (whole,) = bag_files(written(tmp_path / "bag", "mcap"))
    data = whole.read_bytes()
    counts = []
    for share in (0.3, 0.45, 0.6, 0.75, 0.9, 1.0):
        path = tmp_path / "cut.mcap"
        path.write_bytes(data[: round(share * len(data))])
        counts.append(len(list(BagSource(path))))
        assert path.stat().st_size == round(share * len(data))
    assert counts == sorted(counts)
    assert counts[-1] == COUNT


def test_a_directory_with_metadata_and_a_cut_file_is_mended_too(tmp_path: Path) -> None:
    bag = written(tmp_path / "bag", "mcap")
    (file,) = bag_files(bag)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert 6 <= len(list(BagSource(bag))) <= 13
