# SPDX-License-Identifier: Apache-2.0
"""What recorders leave is read whole, whatever lies beside it, and what is missing is said."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bags import BAG_KINDS, SECOND, BagKind, Info, Shot, images, write_bag
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap_files import Topic, record, text, write_mcap
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore
from selection import examples

from xsvggt_ros.errors import FrameError, SourceError
from xsvggt_ros.geometry.cameras import Calibration
from xsvggt_ros.stream.sources import is_bag, open_source
from xsvggt_ros.stream.sources.bag_reader import BagReader
from xsvggt_ros.stream.sources.storage import bag_files
from xsvggt_ros.stream.sources.storage.base import zstd

IMAGE = "sensor_msgs/msg/Image"
COUNT = 20
STAMPS = [(index + 1) * SECOND for index in range(COUNT)]
IMAGES = images(COUNT)
PLANT = pytest.mark.parametrize("kind", ["sqlite3", "mcap"])


def shots(count: int = COUNT) -> list[Shot]:
    return [Shot(stamp, each) for stamp, each in zip(STAMPS[:count], IMAGES, strict=False)]


def image(store: Typestore, index: int, *, ros1: bool) -> bytes:
    types = store.types
    header = types["std_msgs/msg/Header"](
        **({"seq": 0} if ros1 else {}),
        stamp=types["builtin_interfaces/msg/Time"](index + 1, 0), frame_id="lens",
    )  # fmt: skip
    pixels = IMAGES[index]
    message = types[IMAGE](header=header, height=24, width=32, encoding="rgb8", is_bigendian=0,
                           step=96, data=pixels.ravel())  # fmt: skip
    return bytes(store.serialize_ros1(message, IMAGE) if ros1 else store.serialize_cdr(
        message, IMAGE))  # fmt: skip


ROS2 = get_typestore(Stores.LATEST)
ROS1 = get_typestore(Stores.ROS1_NOETIC)
CAMERA = Topic("/cam", IMAGE, [(stamp, image(ROS2, n, ros1=False)) for n, stamp in
                               enumerate(STAMPS)])  # fmt: skip
SRV = Topic(
    "/plan/_service_event", "demo/srv/Plan_Event", [(SECOND, bytes(20))], "cdr", "ros2msg",
    b"int64 a\n---\nint64 b\n",
)  # fmt: skip
NEIGHBOURS = {
    "service events": SRV,
    "an unknown schema": Topic("/x", "demo/msg/X", [(1, b"x")], "cdr", "cap'n proto", b"\xff\0"),
    "a broken definition": Topic("/x", "demo/msg/X", [(1, b"x")], "cdr", "ros2msg", b"int64 ]["),
    "a type without definition": Topic("/x", "demo/msg/X", [(1, b"x")], "cdr", "ros2msg", b""),
    "json": Topic("/log", "Log", [(5, b'{"a": 1}')], "json", "jsonschema", b'{"type": "object"}'),
    "protobuf": Topic("/tf", "foxglove.FrameTransform", [(5, b"\x08\1")], "protobuf", "protobuf",
                      bytes(range(256))),
    "no schema": Topic("/raw", "", [(5, b"abc")], "", ""),
    "flatbuffer": Topic("/f", "F", [(5, b"abc")], "flatbuffer", "flatbuffer", b"\0\1"),
    "several": SRV,
}  # fmt: skip


def assert_whole(path: Path, count: int = COUNT, **options: Any) -> None:
    source = open_source(path, **options)
    assert source.frame_count == count
    frames = list(source)
    assert [frame.stamp for frame in frames] == STAMPS[:count]
    for frame, want in zip(frames, IMAGES, strict=False):
        np.testing.assert_array_equal(frame.decode(), want)


# An unreadable neighbour


@pytest.mark.parametrize("neighbour", NEIGHBOURS)
@pytest.mark.parametrize("summary", [True, False])
@pytest.mark.parametrize("chunks", [0, 1, 3])
def test_a_neighbour_does_not_take_the_images_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, neighbour: str, summary: bool, chunks: int
) -> None:
    others = [*NEIGHBOURS.values()] if neighbour == "several" else [NEIGHBOURS[neighbour]]
    path = write_mcap(tmp_path / "run.mcap", [others[0], CAMERA, *others[1:]],
                      chunks=chunks, summary=summary)  # fmt: skip
    assert_whole(path, topic=None)
    foreign = [each for each in others if each.encoding not in ("cdr", "ros1")]
    said = [line for line in caplog.messages if "no ROS messages and are left out" in line]
    assert len(said) == bool(foreign)
    if foreign:
        assert f"{len(foreign)} channels" in said[0]
        assert f"{foreign[0].name} ({foreign[0].encoding or 'unknown'})" in said[0]


@pytest.mark.parametrize("profile", ["", "ros2", "ros1", "x" * 40])
@pytest.mark.parametrize("library", ["", "libmcap 1.4"])
@pytest.mark.parametrize("compression", ["", "lz4", "zstd"])
def test_the_profile_of_an_mcap_decides_nothing(
    tmp_path: Path, profile: str, library: str, compression: str
) -> None:
    path = write_mcap(tmp_path / "run.mcap", [CAMERA], profile=profile, library=library,
                      compression=compression)  # fmt: skip
    assert_whole(path)


@pytest.mark.parametrize("encoding", ["ros1", "cdr"])
def test_ros_1_messages_in_an_mcap_are_read(tmp_path: Path, encoding: str) -> None:
    definition = ROS1.generate_msgdef(IMAGE)[0].encode()
    topic = Topic("/cam", "sensor_msgs/Image", [(stamp, image(ROS1, n, ros1=True)) for n, stamp in
                  enumerate(STAMPS)], encoding, "ros1msg", definition)  # fmt: skip
    assert_whole(write_mcap(tmp_path / "converted.mcap", [topic], profile="ros1"))


@pytest.mark.parametrize("definition", [b"", b"\xff", b"string only"])
def test_a_definition_that_cannot_be_read_is_that_of_ros(tmp_path: Path, definition: bytes) -> None:
    topic = Topic("/cam", IMAGE, CAMERA.messages, definition=definition)
    path = write_mcap(tmp_path / "run.mcap", [topic])
    if definition == b"string only":  # It can be read, and says something else.
        with pytest.raises(FrameError, match="damaged|Cannot read"):
            next(iter(open_source(path))).decode()
    else:
        assert_whole(path)


def test_images_that_are_no_ros_messages_are_named_with_the_remedy(tmp_path: Path) -> None:
    camera = Topic("/cam", "foxglove.CompressedImage", [(1, b"\x08")], "protobuf", "protobuf", b"x")
    path = write_mcap(tmp_path / "run.mcap", [camera])
    with pytest.raises(
        SourceError, match=r"/cam \(foxglove.CompressedImage in protobuf, 1 messa"
    ) as e:
        open_source(path)
    assert "Convert what is not in ROS messages to ROS 2" in str(e.value)


def test_a_topic_in_two_encodings_is_read_as_far_as_it_is_ros(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Topic("/cam", "foxglove.RawImage", [(7, b"\x08")], "protobuf", "protobuf", b"x")
    assert_whole(write_mcap(tmp_path / "run.mcap", [other, CAMERA]))
    assert "/cam (protobuf)" in caplog.text


@PLANT
def test_a_metadata_with_another_serialization_changes_nothing(
    tmp_path: Path, kind: BagKind
) -> None:
    bag = write_bag(tmp_path / "bag", shots(), kind)
    edit_metadata(bag, lambda told: told["topics_with_message_count"].append(
        {"topic_metadata": {"name": "/x", "type": "X", "serialization_format": "json",
                            "offered_qos_profiles": []}, "message_count": 0}))  # fmt: skip
    assert_whole(bag)


def test_messages_of_overlapping_chunks_come_in_the_order_of_time(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "run.mcap", [CAMERA], chunks=7)
    with closing(BagReader(path)) as reader:
        (topic,) = reader.topics()
        assert [each.received for each in reader.messages(topic)] == STAMPS
        assert reader.duration == STAMPS[-1] - STAMPS[0]
        assert topic.count == COUNT


# Less than was recorded


def write_ahead(tmp_path: Path, *, checkpointed: int = 8) -> Path:
    """Leave an SQLite bag as a killed recorder of rosbag2's resilient preset does."""
    bag = write_bag(tmp_path / "whole", shots(), "sqlite3")
    (file,) = bag_files(bag)
    goal = tmp_path / "killed" / "killed_0.db3"
    goal.parent.mkdir()
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(goal)) as target:
        target.execute("PRAGMA journal_mode=WAL")
        target.execute("PRAGMA wal_autocheckpoint=0")
        for (statement,) in source.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL"):
            target.execute(statement)
        for table in ("schema", "topics", "message_definitions", "messages"):
            rows = source.execute(f"SELECT * FROM {table}").fetchall()
            for number, row in enumerate(rows):
                if table == "messages" and number == checkpointed:
                    target.commit()
                    target.execute("PRAGMA wal_checkpoint(FULL)")
                target.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        target.commit()
        copy = tmp_path / "copy"
        copy.mkdir()
        for name in ("killed_0.db3", "killed_0.db3-wal"):
            shutil.copy(goal.parent / name, copy / name)
    return copy


def content(directory: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in directory.iterdir()}


def test_the_log_of_a_killed_recorder_is_read_and_left_alone(tmp_path: Path) -> None:
    bag = write_ahead(tmp_path)
    before = content(bag)
    assert_whole(bag)
    assert_whole(bag / "killed_0.db3")
    assert content(bag) == before


def test_the_log_of_a_recording_that_may_not_be_written_to_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = write_ahead(tmp_path)
    before = content(bag)
    monkeypatch.setattr("os.access", lambda *_: False)  # as root, rights do not hinder
    assert_whole(bag)
    assert content(bag) == before


def test_a_recorder_that_was_killed_before_its_first_checkpoint(tmp_path: Path) -> None:
    bag = write_ahead(tmp_path, checkpointed=10_000)
    assert_whole(bag)


@PLANT
@pytest.mark.parametrize("name", ["run #3", "50%25", "what?", "a&b=c", "großer Lauf", "it's"])
def test_any_name_of_a_directory_will_do(tmp_path: Path, kind: BagKind, name: str) -> None:
    bag = write_bag(tmp_path / "bag", shots(3), kind)
    goal = tmp_path / name
    bag.rename(goal)
    assert_whole(goal, 3)
    (file,) = bag_files(goal)
    file.rename(goal / f"{name}{file.suffix}")
    assert_whole(goal / f"{name}{file.suffix}", 3)


@PLANT
@pytest.mark.parametrize("metadata", [True, False])
def test_compressed_files_are_read(tmp_path: Path, kind: BagKind, metadata: bool) -> None:
    bag = write_bag(tmp_path / "bag", shots(), kind)
    (file,) = bag_files(bag)
    (bag / f"{file.name}.zstd").write_bytes(zstd.compress(file.read_bytes()))
    file.unlink()
    edit_metadata(bag, lambda told: told.update(
        relative_file_paths=[f"{file.name}.zstd"], compression_format="zstd",
        compression_mode="FILE"))  # fmt: skip
    if not metadata:
        (bag / "metadata.yaml").unlink()
    assert is_bag(bag)
    assert_whole(bag)
    assert_whole(bag / f"{file.name}.zstd")


@PLANT
def test_a_file_beside_its_compressed_copy_counts_once(tmp_path: Path, kind: BagKind) -> None:
    bag = write_bag(tmp_path / "bag", shots(), kind)
    (file,) = bag_files(bag)
    (bag / f"{file.name}.zstd").write_bytes(zstd.compress(file.read_bytes())[:100])
    assert_whole(bag)


@pytest.mark.parametrize("share", [0.9, 0.5])
def test_a_compressed_file_that_is_cut_off_is_read_as_far_as_it_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, share: float
) -> None:
    random = np.random.default_rng(0)
    pad = Topic("/pad", "x", [(stamp + 1, random.bytes(200_000)) for stamp in STAMPS],
                definition=b"")  # fmt: skip
    path = write_mcap(tmp_path / "run.mcap", [CAMERA, pad], chunks=0, compression="")
    packed = zstd.compress(path.read_bytes())
    goal = tmp_path / "cut.mcap.zstd"
    goal.write_bytes(packed[: int(len(packed) * share)])
    frames = list(open_source(goal))
    assert COUNT * share - 3 <= len(frames) <= COUNT * share + 1
    assert [each.stamp for each in frames] == STAMPS[: len(frames)]
    assert "is not whole" in caplog.text


@PLANT
def test_compressed_messages_are_read(tmp_path: Path, kind: BagKind) -> None:
    messages = [(time, zstd.compress(data)) for time, data in CAMERA.messages]
    if kind == "mcap":
        path = write_mcap(tmp_path / "bag" / "bag.mcap", [Topic("/cam", IMAGE, messages)])
    else:
        bag = write_bag(tmp_path / "bag", shots(), "sqlite3")
        (path,) = bag_files(bag)
        with closing(sqlite3.connect(path)) as file:
            rows = file.execute("SELECT id, data FROM messages").fetchall()
            file.executemany("UPDATE messages SET data = ? WHERE id = ?",
                             [(zstd.compress(data), row) for row, data in rows])  # fmt: skip
            file.commit()
    assert_whole(path.parent)


def edit_metadata(bag: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bag / "metadata.yaml"
    told = yaml.safe_load(path.read_text())
    change(told["rosbag2_bagfile_information"])
    path.write_text(yaml.safe_dump(told))


def set_count(told: dict[str, Any], count: int) -> None:
    told["message_count"] = count
    for each in told["topics_with_message_count"]:
        each["message_count"] = count


@PLANT
def test_a_metadata_that_counts_nothing_is_not_believed(
    tmp_path: Path, kind: BagKind, caplog: pytest.LogCaptureFixture
) -> None:
    bag = write_bag(tmp_path / "bag", shots(), kind)
    edit_metadata(bag, lambda told: set_count(told, 0))
    assert_whole(bag)
    assert not caplog.messages


@PLANT
@pytest.mark.parametrize("text_of", [b"", b"rosbag2_bagfile_information", b"\xff\xfe: [",
                                     b"rosbag2_bagfile_information: {version: 99}"])  # fmt: skip
def test_a_metadata_that_says_nonsense_is_not_believed(
    tmp_path: Path, kind: BagKind, text_of: bytes
) -> None:
    bag = write_bag(tmp_path / "bag", shots(), kind)
    (bag / "metadata.yaml").write_bytes(text_of)
    assert_whole(bag)


@PLANT
def test_a_renamed_file_is_whole(
    tmp_path: Path, kind: BagKind, caplog: pytest.LogCaptureFixture
) -> None:
    bag = write_bag(tmp_path / "bag", shots(), kind)
    (file,) = bag_files(bag)
    file.rename(bag / f"walk{file.suffix}")
    assert_whole(bag)
    assert not caplog.messages


@PLANT
def test_fewer_messages_than_announced_are_said(
    tmp_path: Path, kind: BagKind, caplog: pytest.LogCaptureFixture
) -> None:
    bag = write_bag(tmp_path / "bag", shots(), kind)
    edit_metadata(bag, lambda told: set_count(told, 25))
    assert_whole(bag)
    assert "20 of 25 on /camera/image_raw" in caplog.text


@PLANT
def test_a_missing_part_is_said_and_the_others_are_read(
    tmp_path: Path, kind: BagKind, caplog: pytest.LogCaptureFixture
) -> None:
    bag = write_bag(tmp_path / "bag", shots(), kind)

    def announce(told: dict[str, Any]) -> None:
        set_count(told, 2 * COUNT)
        told["relative_file_paths"].append("bag_1.mcap")

    edit_metadata(bag, announce)
    assert_whole(bag)
    assert "fewer messages than its metadata.yaml announces: 20 of 40" in caplog.text


@PLANT
def test_parts_are_read_in_the_order_of_time(tmp_path: Path, kind: BagKind) -> None:
    for part, chosen in enumerate((shots()[:10], shots()[10:])):
        bag = write_bag(tmp_path / f"part{part}", chosen, kind)
        (file,) = bag_files(bag)
        (tmp_path / "bag").mkdir(exist_ok=True)
        # Ten comes after nine; by the alphabet it does not.
        shutil.copy(file, tmp_path / "bag" / f"bag_{9 + part}{file.suffix}")
    assert_whole(tmp_path / "bag")


@PLANT
def test_an_unreadable_part_is_said_and_the_others_are_read(
    tmp_path: Path, kind: BagKind, caplog: pytest.LogCaptureFixture
) -> None:
    bag = write_bag(tmp_path / "bag", shots(), kind)
    (file,) = bag_files(bag)
    (bag / f"zz{file.suffix}").write_bytes(b"nothing of the kind")
    assert_whole(bag)
    assert f"A file is left out: Cannot open the bag {bag / f'zz{file.suffix}'}" in caplog.text


@PLANT
def test_the_metadata_of_a_bag_stands_for_it(tmp_path: Path, kind: BagKind) -> None:
    assert_whole(write_bag(tmp_path / "bag", shots(), kind) / "metadata.yaml")


def test_encodings_that_are_not_said_are_those_of_the_schema(tmp_path: Path) -> None:
    topic = Topic("/cam", IMAGE, CAMERA.messages, encoding="")
    assert_whole(write_mcap(tmp_path / "run.mcap", [topic]))


@pytest.mark.parametrize("beside", ["-journal", "-wal"])
def test_an_empty_log_changes_nothing(tmp_path: Path, beside: str) -> None:
    bag = write_bag(tmp_path / "bag", shots(), "sqlite3")
    (file,) = bag_files(bag)
    (bag / f"{file.name}{beside}").write_bytes(b"")
    assert_whole(bag)


@pytest.mark.parametrize("beside", ["-journal", "-wal"])
def test_a_log_that_is_none_takes_nothing_with_it(tmp_path: Path, beside: str) -> None:
    bag = write_bag(tmp_path / "bag", shots(), "sqlite3")
    (file,) = bag_files(bag)
    (bag / f"{file.name}{beside}").write_bytes(b"nothing of the kind" * 100)
    before = content(bag)
    assert_whole(bag)
    assert content(bag) == before


def test_fewer_messages_than_the_index_announces_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_mcap(tmp_path / "run.mcap", [CAMERA], compression="")
    data = path.read_bytes()
    told = data.rindex(text(b"".join([bytes([1, 0]), COUNT.to_bytes(8, "little")])))
    path.write_bytes(data[: told + 6] + (30).to_bytes(8, "little") + data[told + 14 :])
    source = open_source(path)
    assert source.frame_count == 30
    assert len(list(source)) == COUNT
    assert "ended after 20 images, and its index announces 30" in caplog.text


@PLANT
def test_a_directory_above_names_those_that_hold_something(tmp_path: Path, kind: BagKind) -> None:
    write_bag(tmp_path / "runs" / "monday", shots(3), kind)
    write_bag(tmp_path / "runs" / "2024" / "tuesday", shots(3), kind)
    with pytest.raises(SourceError, match="holds no image") as e:
        open_source(tmp_path / "runs")
    assert "its directories 2024/tuesday, monday do: name one" in str(e.value)


@pytest.mark.parametrize(
    ("kind", "remedy", "not_this"),
    [("ros1", "'rosbag reindex' of ROS 1", "ros2"), ("sqlite3", "'ros2 bag reindex'", "mcap"),
     ("mcap", "'mcap recover'", "reindex")],
)  # fmt: skip
def test_the_remedy_is_that_of_the_format(
    tmp_path: Path, kind: BagKind, remedy: str, not_this: str
) -> None:
    bag = write_bag(tmp_path / "bag", [Shot(1, np.random.default_rng(0).integers(
        0, 256, (300, 300, 3), np.uint8)) for _ in range(24)], kind)  # fmt: skip
    (file,) = bag_files(bag)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    with closing(BagReader(bag)) as reader:
        (remark, *_) = reader.remarks
    assert remedy in remark
    assert not_this not in remark


# No bytes bring up anything but our own errors


def read_all(path: Path) -> None:
    try:
        with closing(BagReader(path)) as reader:
            for message in reader.messages(*reader.topics()):
                try:
                    reader.deserialize(message)
                except FrameError:
                    continue
    except SourceError:
        pass


FUZZ = settings(
    max_examples=examples(80),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
EDITS = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=12)


@pytest.fixture(scope="module", params=["ros1", "sqlite3", "mcap", "mcap without index"])
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bag")
    if request.param == "mcap without index":
        return write_mcap(directory / "a.mcap", [CAMERA, *NEIGHBOURS.values()], chunks=0,
                          summary=False)  # fmt: skip
    info = Info(1, Calibration(32, 24))
    (file,) = bag_files(write_bag(directory / "bag", [info, *shots(3)], request.param))
    return file


@given(edits=EDITS, cut=st.integers(0, 1 << 16))
@FUZZ
def test_damaged_bags_bring_up_no_foreign_error(
    tmp_path: Path, recording: Path, edits: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(recording.read_bytes())
    for place, value in edits:
        data[place % len(data)] = value
    path = tmp_path / f"damaged{recording.suffix}"
    path.write_bytes(data[: len(data) - cut % len(data)])
    read_all(path)


@given(
    data=st.binary(max_size=300), suffix=st.sampled_from([".mcap", ".db3", ".bag", ".mcap.zstd"])
)
@FUZZ
def test_bytes_that_are_no_bag_bring_up_no_foreign_error(
    tmp_path: Path, data: bytes, suffix: str
) -> None:
    heads = {".mcap": b"\x89MCAP0\r\n" + record(1, text("ros2") + text("")), ".bag":
             b"#ROSBAG V2.0\n", ".db3": b"SQLite format 3\0"}  # fmt: skip
    path = tmp_path / f"odd{suffix}"
    path.write_bytes(heads.get(suffix, b"") + data)
    read_all(path)


@given(definition=st.binary(max_size=60), data=st.binary(max_size=60),
       encoding=st.sampled_from(["cdr", "ros1"]),
       language=st.sampled_from(["ros2msg", "ros2idl", "ros1msg", ""]))  # fmt: skip
@FUZZ
def test_odd_definitions_and_messages_bring_up_no_foreign_error(
    tmp_path: Path, definition: bytes, data: bytes, encoding: str, language: str
) -> None:
    topics = [Topic("/a", IMAGE, [(1, data)], encoding, language, definition),
              Topic("/b", IMAGE, [(2, data)], encoding, language)]  # fmt: skip
    read_all(write_mcap(tmp_path / "run.mcap", topics))


# What lies side by side


def recorded(path: Path, kind: BagKind, images: list[Shot] | None = None) -> Path:
    """Write a bag, and return its one file."""
    (file,) = bag_files(write_bag(path, shots() if images is None else images, kind))
    return file


@pytest.mark.parametrize("kind", ["sqlite3", "mcap"])
@pytest.mark.parametrize("other", ["sqlite3", "mcap"])
def test_a_copy_of_a_recording_beside_it_counts_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: BagKind, other: BagKind
) -> None:
    file = recorded(tmp_path / "run", kind)
    shutil.copy(again := recorded(tmp_path / "again" / "run", other),
                file.with_name(f"{file.stem}_copy{again.suffix}"))  # fmt: skip
    assert_whole(tmp_path / "run")
    assert "A file is left out: " in caplog.text
    assert "is a copy of" in caplog.text


@pytest.mark.parametrize("share", [0.4, 0.7, 0.95])
def test_a_recording_and_what_was_recovered_of_it_count_once(tmp_path: Path, share: float) -> None:
    file = write_mcap(tmp_path / "run" / "run_0.mcap", [CAMERA], chunks=4, compression="")
    shutil.copy(file, tmp_path / "run" / "recovered.mcap")
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    assert_whole(tmp_path / "run")


def test_parts_of_a_recording_are_no_copies(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        part = [Shot(stamp, each) for stamp, each in zip(STAMPS, IMAGES, strict=True)]
        shutil.copy(recorded(tmp_path / "made" / str(number), "mcap", part[number::2]),
                    (tmp_path / f"run_{number}.mcap"))  # fmt: skip
    shutil.rmtree(tmp_path / "made")
    assert_whole(tmp_path)
    assert not caplog.messages


def test_several_recordings_in_a_directory_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        later = [Shot(stamp + number * 500 * SECOND, each) for stamp, each in
                 zip(STAMPS, IMAGES, strict=True)]  # fmt: skip
        shutil.copy(recorded(tmp_path / "made" / str(number), "mcap", later),
                    (tmp_path / f"run_{number}.mcap"))  # fmt: skip
    shutil.rmtree(tmp_path / "made")
    assert open_source(tmp_path).frame_count == 2 * COUNT
    assert "seems to hold several recordings: run_1.mcap begins 481 s after run_0" in caplog.text


def test_the_log_beside_what_a_link_leads_to_is_read(tmp_path: Path) -> None:
    bag = write_ahead(tmp_path)
    links = tmp_path / "links"
    links.mkdir()
    (links / "a_0.db3").symlink_to(bag / "killed_0.db3")
    assert_whole(links / "a_0.db3")
    assert_whole(links)


def test_a_link_to_nothing_is_said_and_the_others_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorded(tmp_path / "run", "mcap")
    (tmp_path / "run" / "run_1.mcap").symlink_to(tmp_path / "gone.mcap")
    assert_whole(tmp_path / "run")
    assert "A file is left out: Cannot open the bag" in caplog.text
    assert "run_1.mcap: No such file" in caplog.text


# What a file is, its content says


@pytest.mark.parametrize("kind", BAG_KINDS)
@pytest.mark.parametrize("name", ["x.mcap", "x.db3", "x.bag", "x", "x.mcap.part", "x.bak", "x.png"])
def test_the_content_of_a_file_decides_and_not_its_name(
    tmp_path: Path, kind: BagKind, name: str
) -> None:
    path = tmp_path / name
    shutil.copy(recorded(tmp_path / "run", kind), path)
    assert_whole(path)


@pytest.mark.parametrize("name", ["x.mcap.zst", "x.mcap.zstd", "x.db3.zst"])
def test_a_compressed_file_may_be_called_as_zstd_calls_it(tmp_path: Path, name: str) -> None:
    kind: BagKind = "mcap" if "mcap" in name else "sqlite3"
    path = tmp_path / name
    path.write_bytes(zstd.compress(recorded(tmp_path / "run", kind).read_bytes()))
    assert_whole(path)


@pytest.mark.parametrize("name", ["rtabmap.db", "x.db3"])
def test_another_database_is_no_bag_and_nothing_to_be_mended(tmp_path: Path, name: str) -> None:
    with closing(sqlite3.connect(tmp_path / name)) as connection:
        connection.execute("CREATE TABLE Node(id INT)")
        connection.commit()
    with pytest.raises(SourceError, match="no table of topics") as caught:
        open_source(tmp_path / name)
    assert "mends" not in str(caught.value)


@pytest.mark.parametrize("kind", BAG_KINDS)
@pytest.mark.parametrize("each", [20, 5, 3])
def test_stamps_that_repeat_are_those_of_the_recording(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: BagKind, each: int
) -> None:
    times = [SECOND * (10 + index) for index in range(COUNT)]
    repeated = [Shot(SECOND * (5 + index // each), pixels, received=times[index]) for
                index, pixels in enumerate(IMAGES)]  # fmt: skip
    source = open_source(write_bag(tmp_path / "run", repeated, kind))
    assert [frame.stamp for frame in source] == times
    assert f"only {-(-COUNT // each)} of the first 20 stamps on /camera/image_raw" in caplog.text


def test_a_recording_without_times_keeps_its_stamps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    repeated = [Shot(stamp, pixels, received=7) for stamp, pixels in
                zip(STAMPS, IMAGES, strict=True)]  # fmt: skip
    source = open_source(write_bag(tmp_path / "run", repeated, "mcap"))
    assert [frame.stamp for frame in source] == STAMPS
    assert not caplog.messages


@pytest.mark.parametrize("content", [b"", b"\xff\xfe" * 50, b"#ROSBAG V1.2\n" + bytes(50)])
def test_what_is_no_bag_of_ros_1_is_said_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.bag").write_bytes(content)
    with pytest.raises(SourceError, match="it is empty|does not begin as a ROS 1|not supported"):
        open_source(tmp_path / "x.bag")


@pytest.mark.parametrize("kind", ["ffmpeg_image_transport_msgs/msg/FFMPEGPacket",
                                  "theora_image_transport/msg/Packet"])  # fmt: skip
def test_a_recorded_video_stream_is_named_with_the_remedy(tmp_path: Path, kind: BagKind) -> None:
    packets = Topic("/cam/ffmpeg", kind, [(5, b"abc")], "cdr", "ros2msg", b"uint8[] data\n")
    with pytest.raises(SourceError, match="/cam/ffmpeg are a video stream: decode it first"):
        open_source(write_mcap(tmp_path / "run.mcap", [packets]))
