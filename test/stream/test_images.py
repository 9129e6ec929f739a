# SPDX-License-Identifier: Apache-2.0
"""What is taken for an image of the camera, how it is turned, and what is said to be left out."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import command_line
import cv2
import datasets
import numpy as np
import pytest
from bags import SECOND, encode, images, write_directory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from present import true_depth, truth_of
from selection import examples

from xsvggt_ros.errors import FrameError, SourceError
from xsvggt_ros.evaluation.sources import open_source as open_evaluation
from xsvggt_ros.evaluation.sources.files import steps
from xsvggt_ros.stream.processing import plan
from xsvggt_ros.stream.sources import open_source
from xsvggt_ros.stream.sources.images import list_images, orientation, turned

TINY = ["--preset", "tiny", "--width", "28", "--device", "cpu"]
IMAGES = images(4)


def names(directory: Path) -> list[str]:
    return [each.name for each in list_images(directory).files]


def made(directory: Path, *files: str) -> Path:
    directory.mkdir(exist_ok=True)
    for name in files:
        (directory / name).write_bytes(encode(IMAGES[0], Path(name).suffix.lower() or ".png"))
    return directory


def grid(template: str, numbers: range = range(3)) -> list[str]:
    return [template.format(number) for number in numbers]


OTHERS = {
    "7-Scenes": (grid("frame-{:06d}.color.png"),
                 [*grid("frame-{:06d}.depth.png"), *grid("frame-{:06d}.depth.proj.png")],
                 "6 depth maps (frame-000000.depth.png, ...)"),
    "masks behind": (grid("{:04d}.png"), grid("{:04d}_mask.png"), "3 masks and labels"),
    "masks before": (grid("img_{}.jpg"), grid("mask_{}.png"), "3 masks and labels"),
    "masks of COLMAP": (grid("IMG_{}.jpg"), grid("IMG_{}.jpg.png"), "3 masks and labels"),
    "other digits": (grid("frame{:05d}.png"), grid("depth_{:03d}.png"), "3 depth maps"),
    "semantics": (grid("rgb_{}.png"), [*grid("semantic_{}.png"), *grid("instance_{}.png")],
                  "6 masks and labels"),
    "normals": (grid("{}_rgb.png"), grid("{}_normal.png"), "3 other maps"),
    "disparity": (grid("left{}.png"), grid("left{}_disp.png"), "3 depth maps"),
    "words": (["kitchen.png", "hall.png"], ["kitchen_depth.png"], "1 depth map"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_what_belongs_to_an_image_is_none_and_said_in_one_sentence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    image_names, others, sentence = OTHERS[kind]
    directory = made(tmp_path / "run", *image_names, *others)
    source = open_source(directory)
    assert source.frame_count == len(image_names)
    assert sorted(names(directory)) == sorted(image_names)
    assert len([line for line in caplog.messages if "left out" in line]) == 1
    assert sentence in caplog.text


STRAYS = {
    "its own overview": (grid("{}.png", range(4)), ["overview.png"]),
    "a render": (grid("frame_{:05d}.jpg", range(4)), ["textured_output.jpg", "cover.png"]),
    "a download": ([*grid("image({}).png", range(1, 4)), "image.png"], []),
    "words": (["kitchen.png", "hall.png", "room_1.png"], []),
    "two of three": (["1.png", "2.png", "cover.png"], []),
}


@pytest.mark.parametrize("kind", STRAYS)
def test_an_image_beside_a_numbered_series_is_none_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    series, strays = STRAYS[kind]
    directory = made(tmp_path / "run", *series, *strays)
    assert sorted(names(directory)) == sorted(series)
    assert sum("beside the series" in line for line in caplog.messages) <= bool(strays)
    assert not strays or all(word in str(list_images(directory).remarks) for word in
                             (str(len(strays)), min(strays)))  # fmt: skip


@pytest.mark.parametrize("suffix", [".HEIC", ".ARW"])
def test_a_copy_in_a_foreign_format_is_not_missed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    directory = made(tmp_path / "run", *grid("IMG_{:04d}.jpg"))
    for name in grid(f"IMG_{{:04d}}{suffix}"):
        (directory / name).write_bytes(b"x")
    assert open_source(directory).frame_count == 3
    assert not caplog.messages
    (directory / f"IMG_0009{suffix}").write_bytes(b"x")
    assert open_source(directory).frame_count == 3
    assert f"1 {suffix.lower()}, which this OpenCV does not read" in caplog.text


def test_two_cameras_with_times_of_their_own_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    times = (1710000000000.1 + 33.3 * index for index in range(6))
    made(tmp_path / "run", *(f"cap_Color_{next(times):.4f}.png" for _ in range(3)),
         *(f"cap_Infrared_{next(times):.4f}.png" for _ in range(3)))  # fmt: skip
    open_source(tmp_path / "run")
    assert "2 series of images (cap_color_#.#, cap_infrared_#.#)" in caplog.text


PACKED = {
    "gzip": lambda: gzip.compress(b"x" * 99),
    "bzip2": lambda: bz2.compress(b"x" * 99),
    "xz": lambda: lzma.compress(b"x" * 99),
    "zip": lambda: b"PK\3\4" + bytes(99),
    "7-Zip": lambda: b"7z\xbc\xaf\x27\x1c" + bytes(99),
    "tar": lambda: bytes(257) + b"ustar" + bytes(99),
}


@pytest.mark.parametrize("kind", PACKED)
def test_what_is_packed_is_to_be_unpacked(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run.bag.packed"
    path.write_bytes(PACKED[kind]())
    with pytest.raises(SourceError, match=rf"is packed \({kind}\): unpack it"):
        open_source(path)


@pytest.mark.parametrize("suffix", [".svo", ".SVO2", ".klg", ".oni"])
def test_the_format_of_a_camera_is_to_be_exported(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"run{suffix}"
    path.write_bytes(b"x" * 99)
    with pytest.raises(SourceError, match="export it as images or a video"):
        open_source(path)


def test_an_address_is_none_of_a_file() -> None:
    with pytest.raises(SourceError, match="rtsp://10.0.0.1/cam is an address"):
        open_source("rtsp://10.0.0.1/cam")


@pytest.mark.parametrize(
    "files",
    [grid("depth_{}.png"), grid("mask_of_zorro_{}.png"), grid("normal_street_{}.jpg"),
     [*grid("a_{}.png"), "depth_9.png"]],
)  # fmt: skip
def test_words_alone_make_no_map(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, files: list[str]
) -> None:
    directory = made(tmp_path / "run", *files)
    assert open_source(directory).frame_count == len(files)
    assert "left out" not in caplog.text


def test_files_of_macos_are_no_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = write_directory(tmp_path / "run", IMAGES)
    for path in list(directory.iterdir()):
        (directory / f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert open_source(directory).frame_count == 4
    assert not caplog.messages


LOADERS: dict[str, Callable[[Path], Path]] = {
    "tum": datasets.tum, "7-scenes": datasets.seven_scenes, "neural": datasets.neural_rgbd,
    "kitti": datasets.kitti_odometry, "gathered": datasets.kitti_gathered,
    "selection": datasets.kitti_selection, "sintel": datasets.sintel,
    "scannet": datasets.scannet, "icl": datasets.icl_nuim, "rgbd": datasets.rgbd,
}  # fmt: skip


@pytest.mark.parametrize("name", LOADERS)
def test_files_of_macos_break_no_data_set(tmp_path: Path, name: str) -> None:
    plain = LOADERS[name](tmp_path / "plain")
    strewn = LOADERS[name](tmp_path / "strewn")
    for path in sorted(strewn.rglob("*")):
        if not path.name.startswith("."):
            (path.parent / f"._{path.name}").write_bytes(b"\0\5\x16\7")
    for path in [strewn, *strewn.rglob("*")]:
        if path.is_dir():
            (path / ".DS_Store").write_bytes(b"\0")
    one, other = open_evaluation(plain), open_evaluation(strewn)
    assert one.frame_count == other.frame_count == 5
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.frame.decode(), b.frame.decode())
        before, after = truth_of(a), truth_of(b)
        assert (before.depth is None) == (after.depth is None)
        np.testing.assert_equal(before.camera_to_world, after.camera_to_world)
        np.testing.assert_equal(before.depth, after.depth)


@pytest.mark.parametrize("suffix", [".heic", ".HEIF", ".jxl", ".cr2", ".dng"])
def test_formats_that_are_not_read_are_named_with_the_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    directory = write_directory(tmp_path / "run", IMAGES)
    for name in ("a", "b"):
        (directory / f"{name}{suffix}").write_bytes(b"\0\0\0\x18ftypheic" + bytes(60))
    assert open_source(directory).frame_count == 4
    assert (
        f"2 {suffix.lower()}, which this OpenCV does not read (convert them to JPEG" in caplog.text
    )
    for path in list(directory.glob("*.png")):
        path.unlink()
    with pytest.raises(SourceError, match=r"holds no image.*convert them to JPEG or PNG"):
        open_source(directory)
    with pytest.raises(SourceError, match="is an image that this OpenCV does not read: convert"):
        open_source(directory / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".jp2", ".avif"])
def test_formats_that_some_opencv_read_are_read_by_those(tmp_path: Path, suffix: str) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    try:
        written = cv2.imwrite(str(directory / f"0{suffix}"), IMAGES[0][..., ::-1])
    except cv2.error:
        written = False
    if not written:
        pytest.skip("this OpenCV does not write it")
    assert open_source(directory).frame_count == 1
    (frame,) = open_source(directory / f"0{suffix}")
    assert frame.decode().shape == IMAGES[0].shape


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".jfif", ".jpe", ".PNG", ".bmp", ".webp",
                                    ".tif", ".TIFF", ".ppm"])  # fmt: skip
def test_usual_formats_are_read_whatever_their_ending(tmp_path: Path, suffix: str) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    plain = {".jfif": ".jpg", ".jpe": ".jpg"}.get(suffix.lower(), suffix.lower())
    (directory / f"0{suffix}").write_bytes(encode(IMAGES[0], plain))
    (frame,) = open_source(directory)
    assert np.abs(frame.decode().astype(int) - IMAGES[0]).mean() < 8


def several(path: Path, count: int = 3) -> Path:
    frames = [Image.fromarray(each) for each in IMAGES[:count]]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


@pytest.mark.parametrize("suffix", [".tif", ".webp", ".png"])
def test_further_images_in_a_file_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    directory = write_directory(tmp_path / "run", IMAGES[:1])
    several(directory / f"1{suffix}")
    assert open_source(directory).frame_count == 2
    assert f"1 files hold several images, of which the first is taken (1{suffix})" in caplog.text
    caplog.clear()
    assert open_source(directory / f"1{suffix}").frame_count == 1
    assert "holds 3 images: the first is taken" in caplog.text


def test_animations_in_a_directory_are_said_and_alone_are_videos(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = write_directory(tmp_path / "run", IMAGES[:2])
    several(directory / "walk.gif")
    assert open_source(directory).frame_count == 2
    assert "1 .gif (give one by itself, as a video)" in caplog.text
    assert len(list(open_source(directory / "walk.gif"))) == 3


def test_images_of_two_cameras_in_one_directory_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = made(tmp_path / "run", *grid("cam0_{:03d}.png"), *grid("cam1_{:03d}.png"))
    assert open_source(directory).frame_count == 6
    assert "seems to hold 2 series of images" not in caplog.text  # cam0 and cam1 count as numbers
    directory = made(tmp_path / "two", *grid("front_{:03d}.png"), *grid("rear_{:03d}.png"))
    open_source(directory)
    assert "seems to hold 2 series of images (front_#, rear_#)" in caplog.text


def test_directories_below_are_named(tmp_path: Path) -> None:
    write_directory(tmp_path / "data" / "rgb", IMAGES)
    write_directory(tmp_path / "data" / "sub" / "left", IMAGES)
    (tmp_path / "data" / "poses").mkdir()
    with pytest.raises(SourceError, match="its directories rgb, sub/left do: name one"):
        open_source(tmp_path / "data")


def test_bags_of_ros_1_in_a_directory_are_named(tmp_path: Path) -> None:
    for name in ("b.bag", "a.bag"):
        (tmp_path / name).write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(SourceError, match=r"It holds 2 ROS 1 bags \(a\.bag, b\.bag\): name one"):
        open_source(tmp_path)


# Names that are times

TIMES = {
    "seconds": (["1305031102.175304", "1305031102.2", "1305031103.1"],
                [1305031102175304000, 1305031102200000000, 1305031103100000000]),
    "nanoseconds": (["1403636579763555584", "1403636579813555456", "1403636580813555456"],
                    [1403636579763555584, 1403636579813555456, 1403636580813555456]),
    "microseconds": (["1403636579763555", "1403636579813555", "1403636580813555"],
                     [1403636579763555000, 1403636579813555000, 1403636580813555000]),
    "milliseconds": (["frame_1403636579763", "frame_1403636579813", "frame_1403636580813"],
                     [1403636579763000000, 1403636579813000000, 1403636580813000000]),
    "seconds of a simulation": (["0.033", "0.100", "12.500"],
                                [33000000, 100000000, 12500000000]),
}  # fmt: skip


@pytest.mark.parametrize("kind", TIMES)
def test_names_that_are_times_give_the_stamps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    files, stamps = TIMES[kind]
    directory = tmp_path / "run"
    directory.mkdir()
    for value, name in reversed(list(enumerate(files))):
        (directory / f"{name}.png").write_bytes(encode(np.full((8, 8, 3), value, np.uint8)))
    source = open_source(directory)
    assert [frame.stamp for frame in source] == stamps
    assert [int(frame.decode()[0, 0, 0]) for frame in source] == [0, 1, 2]
    assert source.rate == pytest.approx(2e9 / (stamps[2] - stamps[0]))
    assert f"taken for times in {kind.split()[0]}; a rate replaces them" in caplog.text
    caplog.clear()
    even = open_source(directory, rate=5.0)
    assert [frame.stamp for frame in even] == [SECOND // 5, 2 * SECOND // 5, 3 * SECOND // 5]
    assert "taken for times" not in caplog.text


@pytest.mark.parametrize(
    "files",
    [["1", "2", "10"], ["000001", "000002"], ["IMG_20240101_120000", "IMG_20240101_120001"],
     ["1.1", "1.2"], ["2024", "2025"],
     ["4000000000.000000", "4000000001.000000"], ["1403636579763555584", "b"], ["a", "b"],
     ["1305031102.175304", "1305031102.175304 copy"]],
)  # fmt: skip
def test_names_that_count_are_no_times(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, files: list[str]
) -> None:
    directory = made(tmp_path / "run", *(f"{name}.png" for name in files))
    assert [frame.stamp for frame in open_source(directory)] == [
        (index + 1) * SECOND // 10 for index in range(len(files))
    ]
    assert not caplog.messages


# One orientation


def oriented(value: int, suffix: str = ".jpg") -> bytes:
    """Store an image as a phone does: pixels as the sensor reads them, and how to turn them."""
    exif = Image.Exif()
    exif[0x0112] = value
    stream = io.BytesIO()
    kind = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF"}[suffix]
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    Image.fromarray(IMAGES[0]).save(stream, kind, exif=exif, **options)
    return stream.getvalue()


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_images_of_a_directory_are_turned_upright(tmp_path: Path, value: int, suffix: str) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    data = oriented(value, suffix)
    (directory / f"0{suffix}").write_bytes(data)
    with Image.open(io.BytesIO(data)) as image:
        from PIL import ImageOps

        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    (frame,) = open_source(directory)
    assert frame.decode().shape == expected.shape
    assert np.abs(frame.decode().astype(int) - expected).max() <= 3
    # Bytes that would be shown on their side are not passed on.
    assert (frame.encoded is None) == (value != 1 or suffix in (".webp", ".tif"))


def test_the_pixels_of_a_data_set_stay_where_its_calibration_says(tmp_path: Path) -> None:
    directory = datasets.rgbd(tmp_path / "data")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(datasets.colors()[0]).save(directory / "color" / "1.png", exif=exif)
    frame = next(iter(open_evaluation(directory)))
    np.testing.assert_array_equal(frame.frame.decode(), datasets.colors()[0])


@given(st.binary(max_size=300))
@settings(max_examples=examples(60), deadline=None)
def test_no_bytes_have_an_orientation_by_accident(data: bytes) -> None:
    assert 1 <= orientation(data) <= 8
    image = np.zeros((2, 3, 3), np.uint8)
    assert turned(image, orientation(data)).size == image.size


# What is cut off or out of proportion


@pytest.mark.parametrize(
    ("width", "height", "sentence"),
    [
        (1080, 1920, "images of 1080x1920 are higher than wide: the middle 1097 rows are used, "
                     "43 % is cut off"),
        (5000, 200, "images of 5000x200 are stretched 3.1 times in height"),
        (640, 480, ""),
        (1920, 1080, ""),
        (1000, 1000, ""),
    ],
)  # fmt: skip
def test_what_is_lost_of_an_image_is_said(width: int, height: int, sentence: str) -> None:
    remark = plan(width, height, 112, 14).remark
    assert remark.startswith(sentence)
    assert bool(remark) == bool(sentence)
    assert "44 % is cut off" in plan(1080, 1920, 518, 14).remark


def test_it_is_said_once_in_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tall = [cv2.resize(each, (40, 71)).astype(np.uint8) for each in IMAGES]
    source = write_directory(tmp_path / "images", tall)
    result = command_line.run("reconstruct", source, "-o", tmp_path / "out", *TINY)
    assert result.exit_code == 0
    assert caplog.text.count("is cut off") == 1


# Depth in other formats

METRES = np.array([[np.nan, 1.5, 2.25], [0.5, 4.0, 3.125]], np.float32)
DEPTH_FORMATS = [".png", ".pgm", ".tif", ".tiff", ".npy", ".pfm", "16.npy", "float.tif"]


def write_depth(path: Path, kind: str, per_metre: float) -> Path:
    """Write METRES; ``path`` is without suffix."""
    suffix = "." + kind.rpartition(".")[2]
    goal = path.with_name(path.name + suffix)
    raw = np.nan_to_num(METRES * per_metre).astype(np.uint16)
    if kind == ".npy":
        np.save(goal, METRES)
    elif kind == "16.npy":
        np.save(goal, raw)
    else:
        floats = kind in (".pfm", "float.tif")
        assert cv2.imwrite(str(goal), np.nan_to_num(METRES) if floats else raw)
    return goal


@pytest.mark.parametrize("kind", DEPTH_FORMATS)
def test_depth_is_read_in_any_format(tmp_path: Path, kind: str) -> None:
    path = write_depth(tmp_path / "depth", kind, 1000)
    np.testing.assert_array_equal(steps(1000.0)(path), METRES)


@pytest.mark.parametrize("kind", DEPTH_FORMATS)
@pytest.mark.parametrize("name", ["rgbd", "scannet", "7-scenes", "neural", "gathered"])
def test_depth_is_found_in_any_format(tmp_path: Path, name: str, kind: str) -> None:
    directory = LOADERS[name](tmp_path / "data")
    per_metre = {"rgbd": 5000, "gathered": 256}.get(name, 1000)
    for path in [
        each for each in directory.rglob("*.png") if "depth" in str(each.relative_to(directory))
    ]:
        path.unlink()
        write_depth(path.with_suffix(""), kind, per_metre)
    source = open_evaluation(directory)
    for frame in source:
        np.testing.assert_array_equal(true_depth(frame), METRES)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("a.png", np.zeros((4, 5), np.uint8), r"holds uint8 \(4, 5\): depth has one channel"),
        ("a.png", np.zeros((4, 5, 3), np.uint16), r"holds uint16 \(4, 5, 3\): depth has one"),
        ("a.npy", np.zeros((4, 5), np.int64), r"holds int64"),
        ("a.npy", np.zeros((4, 5, 2, 2), np.float32), r"holds float32"),
    ],
)
def test_what_is_no_depth_is_refused(
    tmp_path: Path, name: str, array: NDArray[Any], message: str
) -> None:
    path = tmp_path / name
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        assert cv2.imwrite(str(path), array)
    with pytest.raises(FrameError, match=message):
        steps(1000.0)(path)


def test_exr_is_read_or_the_remedy_named(tmp_path: Path) -> None:
    path = tmp_path / "a.exr"
    path.write_bytes(b"v/1\x01" + bytes(50))
    with pytest.raises(FrameError, match=r"cannot read the depth .*a\.exr"):
        steps(1000.0)(path)


@given(data=st.binary(max_size=200), suffix=st.sampled_from([".png", ".npy", ".pgm", ".tif", ".exr",
                                                             ".pfm"]))  # fmt: skip
@settings(max_examples=examples(120), deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
def test_no_bytes_bring_up_a_foreign_error(tmp_path: Path, data: bytes, suffix: str) -> None:
    heads = {".png": b"\x89PNG\r\n\x1a\n", ".npy": b"\x93NUMPY\x01\x00", ".pgm": b"P5\n",
             ".tif": b"II*\0", ".exr": b"v/1\x01", ".pfm": b"Pf\n"}  # fmt: skip
    for content in (data, heads[suffix] + data):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)
        with suppress(FrameError):
            steps(1000.0)(path)
        with suppress(FrameError, SourceError):
            for frame in open_source(path) if suffix in (".png", ".pgm", ".tif") else ():
                frame.decode()


@given(st.lists(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]),
                        min_size=1, max_size=12), max_size=6))  # fmt: skip
@settings(max_examples=examples(80), deadline=None)
def test_no_name_of_a_file_brings_up_a_foreign_error(
    tmp_path_factory: pytest.TempPathFactory, stems: list[str]
) -> None:
    directory = tmp_path_factory.mktemp("names")
    for stem in stems:
        try:
            (directory / f"{stem}.png").write_bytes(b"")
        except OSError:
            continue
    expected = [each for each in directory.iterdir() if not each.name.startswith(".")]
    listed = list_images(directory)
    assert len(listed.files) <= len(expected)
    if listed.stamps:
        assert listed.stamps == sorted(set(listed.stamps))
        assert all(0 < stamp < 2**63 for stamp in listed.stamps)


def test_ten_bits_in_a_data_set_use_the_whole_range(tmp_path: Path) -> None:
    directory = datasets.rgbd(tmp_path / "data")
    ramp = np.linspace(0, 1023, 48).reshape(6, 8).astype(np.uint16)
    for path in (directory / "color").iterdir():
        cv2.imwrite(str(path), ramp)
    shown = [given.frame.decode() for given in open_evaluation(directory)]
    assert all(int(each.min()) == 0 and int(each.max()) == 255 for each in shown)
