# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bags import BAG_KINDS, SECOND, BagKind, Info, Shot, encode, images, write_bag, write_directory
from hypothesis import example, given, settings
from hypothesis import strategies as st
from selection import examples

from xsvggt_ros.errors import FrameError, SourceError
from xsvggt_ros.geometry.cameras import Calibration
from xsvggt_ros.stream.frame import ImageArray
from xsvggt_ros.stream.messages import camera_info_topics
from xsvggt_ros.stream.sources import Source, open_source

RATE = 4.0
PERIOD = SECOND // 4

kinds = pytest.mark.parametrize("kind", BAG_KINDS)


def _calibration(focal: float) -> Calibration:
    return Calibration(
        width=32,
        height=24,
        distortion_model="plumb_bob",
        d=(0.1, -0.2, 0.0, 0.0, 0.05),
        k=(focal, 0.0, 16.0, 0.0, focal, 12.0, 0.0, 0.0, 1.0),
        r=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        p=(focal, 0.0, 16.0, 0.0, 0.0, focal, 12.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        frame_id="lens",
    )


def _decoded(source: Source) -> list[tuple[int, ImageArray]]:
    return [(frame.stamp, frame.decode()) for frame in source]


def _assert_same(source: Source, stamps: list[int], expected: list[ImageArray]) -> None:
    got = _decoded(source)
    assert [stamp for stamp, _ in got] == stamps
    for (_, image), want in zip(got, expected, strict=True):
        np.testing.assert_array_equal(image, want)


def _write_video(
    path: Path, frames: list[ImageArray], codec: str = "mp4v", rate: float = 5.0
) -> Path:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


@kinds
def test_raw_bag_equals_png_directory(tmp_path: Path, kind: BagKind) -> None:
    shots = images(5)
    directory = open_source(write_directory(tmp_path / "directory", shots), rate=RATE)
    stamps = [frame.stamp for frame in directory]
    assert stamps == [index * PERIOD for index in range(1, 6)]
    recorded = [Shot(stamp, shot) for stamp, shot in zip(stamps, shots, strict=True)]
    bag = open_source(write_bag(tmp_path / "bag", recorded, kind))
    _assert_same(directory, stamps, shots)
    _assert_same(bag, stamps, shots)
    assert bag.frame_count == directory.frame_count == 5
    assert bag.rate == pytest.approx(RATE)


@kinds
def test_compressed_bag_equals_jpeg_directory(tmp_path: Path, kind: BagKind) -> None:
    files = [encode(image, ".jpg") for image in images(4)]
    directory = open_source(write_directory(tmp_path / "directory", files, ".jpg"), rate=RATE)
    recorded = [Shot(index * PERIOD, data) for index, data in enumerate(files, 1)]
    bag = open_source(write_bag(tmp_path / "bag", recorded, kind))
    expected = _decoded(directory)
    _assert_same(bag, [stamp for stamp, _ in expected], [image for _, image in expected])
    for source in (bag, directory):
        encoded = [frame.encoded for frame in source]
        assert [(each.data, each.format) for each in encoded if each] == [
            (data, "jpeg") for data in files
        ]


@kinds
def test_each_iteration_starts_again(tmp_path: Path, kind: BagKind) -> None:
    shots = [Shot(index + 1, image) for index, image in enumerate(images(3))]
    with open_source(write_bag(tmp_path / "bag", shots, kind)) as source:
        interrupted = iter(source)
        assert next(interrupted).stamp == 1
        assert [frame.stamp for frame in source] == [1, 2, 3]
        assert next(interrupted).stamp == 2


@pytest.mark.parametrize("kind", ["sqlite3", "mcap"])
def test_a_storage_file_alone_is_a_bag(tmp_path: Path, kind: BagKind) -> None:
    bag = write_bag(tmp_path / "bag", [Shot(7, images(1)[0])], kind)
    (file,) = (each for each in bag.iterdir() if each.suffix != ".yaml")
    assert [frame.stamp for frame in open_source(file)] == [7]


@kinds
def test_headers_name_the_frame_and_the_stamp(tmp_path: Path, kind: BagKind) -> None:
    (image,) = images(1)
    path = write_bag(
        tmp_path / "bag",
        [
            Shot(5 * SECOND + 6, image, received=9 * SECOND),
            Shot(0, image, frame_id="", received=10 * SECOND),
        ],
        kind,
    )
    named = [(frame.stamp, frame.frame_id) for frame in open_source(path)]
    assert named == [(5 * SECOND + 6, "lens"), (10 * SECOND, "camera_optical_frame")]
    assert {frame.frame_id for frame in open_source(path, frame_id="left")} == {"left"}


@kinds
def test_the_latest_calibration_goes_with_an_image(tmp_path: Path, kind: BagKind) -> None:
    (image,) = images(1)
    near, far = _calibration(20.0), _calibration(50.0)
    records: list[Shot | Info] = [
        Shot(1, image),
        Info(2, near),
        Shot(3, image),
        Info(4, far),
        Shot(5, image),
    ]
    source = open_source(write_bag(tmp_path / "bag", records, kind))
    for _ in range(2):
        assert [frame.calibration for frame in source] == [near, near, far]


def test_a_calibration_of_another_camera_is_said_and_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shots = [Shot(2 + i, image) for i, image in enumerate(images(2))]
    records: list[Shot | Info] = [Info(1, _calibration(9.0), frame_id="other"), *shots]
    frames = list(open_source(write_bag(tmp_path / "bag", records)))
    assert [frame.calibration for frame in frames] == [None, None]
    assert caplog.text.count("speaks of frame 'other', the images are of 'lens'") == 1


def test_a_rectified_topic_has_a_calibration_that_says_so(tmp_path: Path) -> None:
    (image,) = images(1)
    topic = "/camera/image_rect"
    path = write_bag(tmp_path / "bag", [Info(1, _calibration(9.0)), Shot(2, image, topic=topic)])
    (frame,) = open_source(path)
    assert frame.calibration == replace(_calibration(9.0), rectified=True)


def test_a_compressed_topic_has_the_calibration_of_its_raw_one(tmp_path: Path) -> None:
    data = encode(images(1)[0], ".jpg")
    topic = "/camera/image_raw/compressed"
    records: list[Shot | Info] = [Info(1, _calibration(9.0)), Shot(2, data, topic=topic)]
    (frame,) = open_source(write_bag(tmp_path / "bag", records))
    assert frame.calibration == _calibration(9.0)


@pytest.mark.parametrize(
    ("image", "infos"),
    [
        ("/a/b/image_raw", ("/a/b/camera_info",)),
        ("/image", ("/camera_info",)),
        ("image", ("camera_info",)),
        ("/a/image/compressed", ("/a/camera_info", "/a/image/camera_info")),
        ("image/compressed", ("camera_info", "image/camera_info")),
    ],
)
def test_camera_info_lies_beside_the_images(image: str, infos: tuple[str, ...]) -> None:
    assert camera_info_topics(image) == infos


@kinds
def test_several_image_topics_need_a_choice(tmp_path: Path, kind: BagKind) -> None:
    (image,) = images(1)
    data = encode(image, ".jpg")
    records = [Shot(1, image, "/left"), Shot(2, data, "/right"), Shot(3, data, "/right")]
    path = write_bag(tmp_path / "bag", records, kind)
    with pytest.raises(SourceError) as caught:
        open_source(path)
    for words in (
        "2 image topics",
        "--topic",
        "/left (sensor_msgs/msg/Image, 1 messages)",
        "/right (sensor_msgs/msg/CompressedImage, 2 messages)",
    ):
        assert words in str(caught.value)
    assert [frame.stamp for frame in open_source(path, topic="/right")] == [2, 3]
    assert [frame.stamp for frame in open_source(path, topic="left")] == [1]
    with pytest.raises(SourceError, match="no images on '/up'.* /left"):
        open_source(path, topic="/up")


def test_a_bag_without_images_says_what_it_holds(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "bag", [Info(1, _calibration(1.0))])
    with pytest.raises(SourceError, match=r"no image.*/camera/camera_info \(sensor_msgs/msg/"):
        open_source(path)


def test_a_bad_image_is_a_frame_that_refuses(tmp_path: Path) -> None:
    (image,) = images(1)
    jpeg = encode(image, ".jpg")
    raw = write_bag(
        tmp_path / "raw",
        [Shot(1, image, fields={"step": 5}), Shot(2, image, fields={"encoding": "what"})],
    )
    for frame, words in zip(open_source(raw), ["step is 5", "'what'"], strict=True):
        with pytest.raises(FrameError, match=words):
            frame.decode()
    directory = write_directory(tmp_path / "directory", [jpeg, jpeg[:200], b"", jpeg], ".jpg")
    good, cut, empty, last = open_source(directory)
    assert good.decode().shape == last.decode().shape
    with pytest.raises(FrameError, match=r"1\.jpg.*truncated"):
        cut.decode()
    with pytest.raises(FrameError, match=r"2\.jpg.*empty"):
        empty.decode()


@pytest.fixture(scope="module", params=BAG_KINDS)
def bag_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    shots = [Shot(index + 1, image) for index, image in enumerate(images(2))]
    bag = write_bag(tmp_path_factory.mktemp("whole") / "bag", shots, request.param)
    return bag if bag.is_file() else next(bag.glob("*.[dm]*[3p]"))


@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(0, 255))
@example(place=0.8861594594771888, flip=1)
@settings(deadline=None, max_examples=examples(60))
def test_a_damaged_bag_gives_frames_or_a_source_error(
    bag_file: Path, place: float, flip: int
) -> None:
    content = bytearray(bag_file.read_bytes())
    index = int(place * len(content))
    content[index:] = bytes([content[index] ^ flip]) + content[index + 1 :] if flip else b""
    damaged = bag_file.with_stem("damaged")
    damaged.write_bytes(content)
    with suppress(SourceError):
        for frame in open_source(damaged):
            with suppress(FrameError):
                assert frame.decode().dtype == np.uint8


def test_a_directory_is_in_natural_order(tmp_path: Path) -> None:
    names = ["b1.png", "a10.png", "a2.png", "A3.PNG", "a02.png"]
    for value, name in enumerate(names):
        (tmp_path / name).write_bytes(encode(np.full((8, 8, 3), value, np.uint8)))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_text("no image")
    values = [int(frame.decode()[0, 0, 0]) for frame in open_source(tmp_path)]
    assert [names[value] for value in values] == [
        "a02.png",
        "a2.png",
        "A3.PNG",
        "a10.png",
        "b1.png",
    ]


def test_a_directory_counts_at_ten_hertz(tmp_path: Path) -> None:
    source = open_source(write_directory(tmp_path / "directory", images(3)))
    assert source.rate == 10.0
    assert [frame.stamp for frame in source] == [SECOND // 10, SECOND // 5, 3 * SECOND // 10]


def test_an_image_is_a_directory_of_one(tmp_path: Path) -> None:
    directory = write_directory(tmp_path / "directory", images(2))
    _assert_same(open_source(directory / "1.png"), [SECOND // 10], images(2)[1:])


def test_a_directory_beside_a_bag_is_a_directory(tmp_path: Path) -> None:
    directory = write_directory(tmp_path / "directory", images(1))
    (directory / "metadata.yaml").write_text("weather: fine")
    (directory / "drive.bag").write_bytes(b"")
    assert open_source(directory).frame_count == 1


def test_a_vanished_image_refuses(tmp_path: Path) -> None:
    directory = write_directory(tmp_path / "directory", images(2))
    source = open_source(directory)
    (directory / "0.png").unlink()
    gone, there = source
    with pytest.raises(FrameError, match=r"Cannot read .*0\.png"):
        gone.decode()
    assert there.decode().shape == (24, 32, 3)


@pytest.mark.parametrize("codec", ["mp4v", "MJPG"])
def test_a_video_keeps_its_images_and_times(tmp_path: Path, codec: str) -> None:
    frames = images(6, height=48, width=64)
    path = _write_video(tmp_path / ("a.mp4" if codec == "mp4v" else "a.avi"), frames, codec)
    source = open_source(path)
    assert source.rate == pytest.approx(5.0)
    assert source.frame_count == 6
    for _ in range(2):
        got = _decoded(source)
        assert [stamp for stamp, _ in got] == [index * SECOND // 5 for index in range(1, 7)]
        for (_, image), want in zip(got, frames, strict=True):
            assert np.abs(image.astype(int) - want).mean() < 8


def test_a_rate_replaces_the_times_of_a_video(tmp_path: Path) -> None:
    path = _write_video(tmp_path / "a.mp4", images(3, height=48, width=64))
    source = open_source(path, rate=2.0, frame_id="phone")
    assert source.rate == 2.0
    assert [frame.stamp for frame in source] == [SECOND // 2, SECOND, 3 * SECOND // 2]
    assert {frame.frame_id for frame in source} == {"phone"}


def test_a_truncated_video_ends_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = _write_video(tmp_path / "a.avi", images(20, height=48, width=64), "MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(path)
    with caplog.at_level(logging.WARNING):
        count = len(list(source))
    assert 0 < count < 20
    assert f"ended after {count} frames, its container announces 20" in caplog.text


def test_a_video_that_ends_as_announced_warns_of_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(list(open_source(_write_video(tmp_path / "a.mp4", images(3))))) == 3
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("nothing", None, {}, "does not exist"),
        ("notes.txt", b"no video", {}, "no video that OpenCV can read"),
        ("cut.mp4", b"\x00\x00\x00\x18ftypmp42" + bytes(90), {}, "no video that OpenCV can read"),
        ("empty.bag", b"", {}, "Cannot open the bag .*empty"),
        ("odd.bag", b"#ROSBAG V1.1\n", {}, "Cannot open the bag .*not supported"),
        ("odd.mcap", b"nothing of the kind", {}, "Cannot open the bag"),
        ("odd.db3", b"nothing of the kind", {}, "Cannot open the bag"),
        ("one.png", b"\x89PNG", {"topic": "/image"}, "is no bag, so it has no topic '/image'"),
        ("one.png", b"\x89PNG", {"rate": 0.0}, "rate of 0.0 Hz is impossible"),
        ("one.png", b"\x89PNG", {"rate": float("nan")}, "rate of nan Hz is impossible"),
        ("one.png", b"\x89PNG", {"rate": 1e-12}, "rate of 1e-12 Hz is impossible"),
        ("one.bag", b"", {"rate": 3.0}, "have stamps of their own: leave the rate of 3.0 Hz out"),
    ],
)
def test_what_cannot_be_opened_says_why(
    tmp_path: Path, name: str, content: bytes | None, options: dict[str, Any], message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / name, **options)


@pytest.mark.parametrize("found", [[], ["a.txt"], ["b.mcap"]])
def test_a_directory_without_images_says_what_it_looked_for(
    tmp_path: Path, found: list[str]
) -> None:
    for name in found:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(SourceError, match=rf"\.jpg, \.jpeg, .*{found[0] if found else 'nothing'}"):
        open_source(tmp_path)


@kinds
def test_what_a_compressed_message_says_of_its_pixels_is_kept_and_minded(
    tmp_path: Path, kind: BagKind
) -> None:
    mosaic = np.zeros((24, 32), np.uint8)
    mosaic[0::2, 0::2], mosaic[1::2, 1::2] = 200, 90
    mosaic[0::2, 1::2] = mosaic[1::2, 0::2] = 40
    data = cv2.imencode(".png", mosaic)[1].tobytes()
    fields = {"format": "bayer_rggb8; png compressed "}
    bag = write_bag(tmp_path / "bag", [Shot(SECOND, data, fields=fields)], kind)
    with open_source(bag) as source:
        (frame,) = source
    assert (frame.decode() == (200, 40, 90)).all()
    assert frame.encoded is not None
    assert (frame.encoded.data, frame.encoded.format) == (data, fields["format"])


def test_ten_bits_in_a_directory_use_the_whole_range(tmp_path: Path) -> None:
    deep = np.linspace(0, 1023, 24 * 32).astype(np.uint16).reshape(24, 32)
    directory = write_directory(tmp_path / "deep", [cv2.imencode(".png", deep)[1].tobytes()])
    with open_source(directory) as source:
        ((_, image),) = _decoded(source)
    assert len(np.unique(image)) == 256


@kinds
def test_the_slash_of_ros_1_is_left_out_of_frames_of_a_bag(tmp_path: Path, kind: BagKind) -> None:
    info = Info(SECOND, _calibration(30.0), frame_id="lens")
    shot = Shot(SECOND, images(1)[0], frame_id="/lens")
    with open_source(write_bag(tmp_path / "bag", [info, shot], kind)) as source:
        (frame,) = source
    assert frame.frame_id == "lens"
    assert frame.calibration is not None
