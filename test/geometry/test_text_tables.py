# SPDX-License-Identifier: Apache-2.0
"""Text files of the field: read as they are, by one reader, or refused in one sentence."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from present import present, truth_of
from scipy.spatial.transform import Rotation
from selection import examples

from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation.sources import open_source
from xsvggt_ros.evaluation.sources.files import focal_numbers, matrix, numbers
from xsvggt_ros.evaluation.sources.truth_files import read_truth
from xsvggt_ros.geometry.files import read_tum
from xsvggt_ros.geometry.rigid import pose_from
from xsvggt_ros.geometry.text_tables import read_rows, read_table

FIRST = 1_403_715_273_262_142_976
"""Nanoseconds; a stamp of EuRoC, which a double cannot hold."""

STAMPS = [FIRST + index * 50_000_000 for index in range(4)]
POSES = datasets.poses(4)


def columns(pose: np.ndarray, *, w_first: bool = False) -> list[str]:
    x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat()
    turn = (w, x, y, z) if w_first else (x, y, z, w)
    return [f"{value:.12f}" for value in (*pose[:3, 3], *turn)]


def lines(
    stamp: Callable[[int], str] = lambda ns: f"{ns // 10**9}.{ns % 10**9:09d}",
    *,
    between: str = " ",
    w_first: bool = False,
) -> list[str]:
    return [
        between.join([stamp(ns), *columns(pose, w_first=w_first)])
        for ns, pose in zip(STAMPS, POSES, strict=True)
    ]


def assert_read(path: Path, count: int = 4, kind: str = "tum") -> None:
    found = read_truth(path)
    assert found.kind == kind
    assert found.stamps == STAMPS[:count]
    np.testing.assert_allclose(found.poses, POSES[:count], atol=1e-11)


UNITS: dict[str, Callable[[int], str]] = {
    "seconds": lambda ns: f"{ns // 10**9}.{ns % 10**9:09d}",
    "milliseconds": lambda ns: f"{ns // 10**6}.{ns % 10**6:06d}",
    "microseconds": lambda ns: f"{ns // 10**3}.{ns % 10**3:03d}",
    "nanoseconds": str,
}


@pytest.mark.parametrize("unit", UNITS)
def test_the_unit_of_times_is_told_by_their_size_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, unit: str
) -> None:
    path = tmp_path / "truth.txt"
    path.write_text("\n".join(lines(UNITS[unit])) + "\n")
    assert_read(path)
    assert read_tum(path).stamps.tolist() == STAMPS
    assert (f"its times are taken for {unit}" in caplog.text) == (unit != "seconds")


@pytest.mark.parametrize("unit", ["seconds", "nanoseconds"])
def test_a_csv_of_euroc_may_have_seconds(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, unit: str
) -> None:
    path = tmp_path / "data.csv"
    path.write_text("\n".join(lines(UNITS[unit], between=",", w_first=True)) + "\n")
    assert_read(path, kind="euroc")
    assert ("its times are taken for seconds" in caplog.text) == (unit == "seconds")


def test_times_of_a_simulation_are_nanoseconds_in_a_csv_and_seconds_elsewhere(
    tmp_path: Path,
) -> None:
    row = ",".join(columns(POSES[0]))
    for name, stamp in (("a.csv", 50_000_000), ("a.txt", 50_000_000 * 10**9)):
        (tmp_path / name).write_text(f"50000000,{row}\n")
        assert read_truth(tmp_path / name).stamps == [stamp]
    (tmp_path / "b.txt").write_text(f"5000000000 {row}\n")  # 158 years
    assert read_truth(tmp_path / "b.txt").stamps == [5_000_000_000]


LAYOUTS = {
    "byte order mark": ("﻿# a remark\n{}\n", "utf-8"),
    "byte order mark before numbers": ("﻿{}\n", "utf-8"),
    "UTF-16": ("# a remark\n{}\n", "utf-16"),
    "Latin-1 remark": ("# Größe in Metern, Höhe 5°\n{}\n", "latin-1"),
    "remark within": ("{}\n# the end\n", "utf-8"),
    "remarks of other kinds": ("% matlab\n// c\n; ini\n{}\n", "utf-8"),
    "remark behind": ("{}  # lost here\n", "utf-8"),
    "header": ("timestamp tx ty tz qx qy qz qw\n{}\n", "utf-8"),
    "two headers": ("my truth\ntimestamp tx ty tz qx qy qz qw\n{}\n", "utf-8"),
    "no newline at the end": ("{}", "utf-8"),
    "blank lines": ("\n\n{}\n\n  \n", "utf-8"),
    "indented": ("   {}   \n", "utf-8"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("between", [" ", ",", ", ", ";", "\t", "   "])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_every_layout_is_read_alike_by_every_reader(
    tmp_path: Path, layout: str, between: str, newline: str
) -> None:
    text, encoding = LAYOUTS[layout]
    path = tmp_path / "truth.txt"
    content = text.format("\n".join(lines(between=between))).replace("\n", newline)
    path.write_bytes(content.encode(encoding))
    assert_read(path)
    assert read_tum(path).stamps.tolist() == STAMPS
    assert numbers(path).shape == (4, 8)
    assert len(read_table(path, (8,)).rows) == 4


@pytest.mark.parametrize("part", [1, 3, 7])
def test_a_last_line_that_was_cut_off_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, part: int
) -> None:
    path = tmp_path / "truth.txt"
    rows = lines()
    path.write_text("\n".join([*rows[:3], " ".join(rows[3].split()[:part])]))
    assert_read(path, 3)
    assert "its last line is cut off and left out" in caplog.text


def test_a_last_line_that_ends_within_a_number_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "truth.txt"
    rows = lines()
    path.write_text("\n".join([*rows[:3], " ".join([*rows[3].split()[:7], "-"])]))
    assert_read(path, 3)


@pytest.mark.parametrize(
    ("header", "w_first"),
    [("timestamp,tx,ty,tz,qx,qy,qz,qw", False), ("#timestamp,x,y,z,qw,qx,qy,qz", True),
     ("# timestamp [ns], p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], "
      "q_RS_y [], q_RS_z []", True)],
)  # fmt: skip
def test_a_header_says_where_w_stands(tmp_path: Path, header: str, w_first: bool) -> None:
    path = tmp_path / "data.csv"
    path.write_text("\n".join([header, *lines(between=",", w_first=w_first)]) + "\n")
    found = read_truth(path)
    assert found.kind == ("euroc" if w_first else "tum")
    np.testing.assert_allclose(found.poses, POSES, atol=1e-11)


def test_a_text_file_whose_header_has_w_first_is_read_so(tmp_path: Path) -> None:
    path = tmp_path / "truth.txt"
    path.write_text("\n".join(["# t x y z qw qx qy qz", *lines(w_first=True)]) + "\n")
    assert_read(path)


@pytest.mark.parametrize(
    ("header", "order"),
    [
        ("num,t,x,y,z,qx,qy,qz,qw", "n t x y z qx qy qz qw"),
        ("num t x y z qx qy qz qw", "n t x y z qx qy qz qw"),
        ("#qw qx qy qz tx ty tz time", "qw qx qy qz x y z t"),
        (
            "timestamp [ns],p_RS_R_x [m],p_RS_R_y [m],p_RS_R_z [m],q_RS_w [],q_RS_x [],q_RS_y [],"
            "q_RS_z [],v_RS_R_x [m s^-1],b_w_RS_S_x [rad s^-1]",
            "t x y z qw qx qy qz n n",
        ),
        ("stamp,pos_x,pos_y,pos_z,rot_x,rot_y,rot_z,rot_w,cov", "t x y z qx qy qz qw n"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".txt"])
def test_a_header_that_names_the_columns_decides(
    tmp_path: Path, header: str, order: str, suffix: str
) -> None:
    path = tmp_path / f"truth{suffix}"
    rows = []
    for ns, pose in zip(STAMPS, POSES, strict=True):
        x, y, z, qx, qy, qz, qw = columns(pose)
        known = {"t": str(ns), "x": x, "y": y, "z": z, "qx": qx, "qy": qy, "qz": qz, "qw": qw,
                 "n": "7"}  # fmt: skip
        rows.append(",".join(known[name] for name in order.split()))
    path.write_text("\n".join([header, *rows]) + "\n")
    found = read_truth(path)
    assert found.stamps == STAMPS
    np.testing.assert_allclose(found.poses, POSES, atol=1e-11)


def test_named_positions_are_enough(tmp_path: Path) -> None:
    path = tmp_path / "leica.csv"
    rows = [",".join([str(ns), *columns(pose)[:3], "0.1"]) for ns, pose in
            zip(STAMPS, POSES, strict=True)]  # fmt: skip
    path.write_text("\n".join(["#timestamp [ns],x,y,z,sigma", *rows]) + "\n")
    found = read_truth(path)
    assert (found.kind, found.stamps) == ("positions", STAMPS)
    np.testing.assert_allclose(np.array(found.poses)[:, :3, 3], POSES[:, :3, 3], atol=1e-11)
    assert np.isnan(np.array(found.poses)[:, :3, :3]).all()


@pytest.mark.parametrize("between", [" ", ","])
def test_velocities_and_biases_may_follow_in_a_csv(tmp_path: Path, between: str) -> None:
    path = tmp_path / "data.csv"
    rows = [f"{row}{between}{between.join(['0.5'] * 9)}" for row in lines(str, between=between,
                                                                         w_first=True)]  # fmt: skip
    path.write_text("\n".join(rows) + "\n")
    assert_read(path, kind="euroc")


def test_layouts_of_kitti(tmp_path: Path) -> None:
    rows = [datasets.row(pose[:3]) for pose in POSES]
    whole = [datasets.row(pose) for pose in POSES]
    numbered = [f"{2 * index} {row}" for index, row in enumerate(rows)]
    timed = [f"{ns / 1e9:.3f} {row}" for ns, row in zip(STAMPS, rows, strict=True)]
    for name, content in (("a", rows), ("b", whole), ("c", numbered), ("d", timed)):
        (tmp_path / name).write_text("\n".join(content) + "\n")
    for name in "ab":
        found = read_truth(tmp_path / name)
        assert found.stamps is None
        np.testing.assert_allclose(found.poses, POSES, atol=1e-8)
    found = read_truth(tmp_path / "c")
    assert found.stamps is None
    np.testing.assert_allclose(found.poses[::2], POSES, atol=1e-8)
    assert np.isnan(found.poses[1]).all()
    found = read_truth(tmp_path / "d")
    assert found.stamps == [round(ns / 1e6) * 10**6 for ns in STAMPS]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 2 3 4 5 6 7 8\n1 2 3 4 5 6 7 eight\n", "line 2 of .*'eight', which is no number"),
        ("# a\n1 2 3 4 5 6 7 8\n1 2 3 4 5 6 7 8\n1 2 3\n", "line 4 of .* has 3 columns"),
        ("1 2 3 4 5\n", "has 5 columns of numbers: a trajectory of TUM has 8"),
        ("", "has no columns of numbers"),
        ("nan 0 0 0 0 0 0 1\n", "line 1 of .*'nan' is no time"),
        ("0 0 0 0 0 0 0 1\n1e400 0 0 0 0 0 0 1\n", "line 2 of .*'1e400' is no time"),
        ("-inf 0 0 0 0 0 0 1\n", "line 1 of .*'-inf' is no time"),
        ("9e18 0 0 0 0 0 0 1\n" * 2 + "0.5 0 0 0 0 0 0 1\n", "line 1 of .*'9e18' is no time"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "truth.txt"
    path.write_text(content)
    with pytest.raises(SourceError, match=message):
        read_truth(path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "truth.txt"
    path.write_bytes(b"\x00\x01\x02")
    with pytest.raises(SourceError, match="is no text"):
        read_truth(path)
    with pytest.raises(SourceError, match="cannot read"):
        read_truth(tmp_path / "nowhere.txt")
    with pytest.raises(SourceError, match="cannot read"):
        read_truth(tmp_path)


def test_cameras_are_four_numbers_or_a_matrix(tmp_path: Path) -> None:
    for content in ("500 510 320 240", "500,510,320,240\n", "fx fy cx cy\n500 510 320 240\n",
                    "500 0 320\n0 510 240\n0 0 1\n", "500 0 320 0\n0 510 240 0\n0 0 1 0\n0 0 0 1\n",
                    "500 0 320 0 510 240 0 0 1", "500 510 320 240 0.1 0.2\n"):  # fmt: skip
        (tmp_path / "k.txt").write_text(content)
        assert focal_numbers(tmp_path / "k.txt") == (500, 510, 320, 240)
    for content in ("500 510\n", "", "1 2\n3 4\n5 6\n"):
        (tmp_path / "k.txt").write_text(content)
        with pytest.raises(SourceError, match="is needed"):
            focal_numbers(tmp_path / "k.txt")


def test_a_pose_of_its_own_may_lie_in_one_line_or_lack_the_last(tmp_path: Path) -> None:
    for content in (datasets.table(POSES[0]), datasets.row(POSES[0]), datasets.table(POSES[0][:3]),
                    datasets.row(POSES[0][:3])):  # fmt: skip
        (tmp_path / "p.txt").write_text(content)
        np.testing.assert_allclose(matrix(tmp_path / "p.txt"), POSES[0], atol=1e-8)
    (tmp_path / "p.txt").write_text("1 2 3\n")
    with pytest.raises(SourceError, match="a 4x4 matrix is needed"):
        matrix(tmp_path / "p.txt")


# The same in whole data sets


def odd(path: Path, *, header: str = "") -> None:
    """Write a text file again with a byte order mark, commas, and carriage returns."""
    rows = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    text = "﻿" + "\r\n".join([*([header] if header else []),
                                   *(",".join(row.split()) for row in rows)])  # fmt: skip
    path.write_bytes(text.encode("utf-8"))


@pytest.mark.parametrize(
    ("write", "files"),
    [
        (datasets.tum, ["rgb.txt", "depth.txt", "groundtruth.txt"]),
        (datasets.kitti_odometry, ["sequences/04/times.txt", "sequences/04/calib.txt",
                                   "poses/04.txt"]),
        (datasets.neural_rgbd, ["poses.txt"]),
        (datasets.rgbd, ["pose.txt"]),
        (datasets.icl_nuim, ["livingRoom2n.gt.freiburg"]),
        (datasets.scannet, ["pose/1.txt", "intrinsic/intrinsic_depth.txt"]),
    ],
)  # fmt: skip
def test_every_data_set_may_have_odd_files(
    tmp_path: Path, write: Callable[[Path], Path], files: list[str]
) -> None:
    write(tmp_path / "plain")
    write(tmp_path / "odd")
    for name in files:
        odd(tmp_path / "odd" / name)
    for one, other in zip(open_source(tmp_path / "plain"), open_source(tmp_path / "odd"),
                          strict=True):  # fmt: skip
        assert one.stamp == other.stamp
        assert truth_of(one).intrinsics == truth_of(other).intrinsics
        poses = truth_of(one).camera_to_world, truth_of(other).camera_to_world
        np.testing.assert_array_equal(*poses)


@pytest.mark.parametrize("factor", [10**9, 10**6, 10**3])
def test_a_list_of_tum_may_count_in_other_units(tmp_path: Path, factor: int) -> None:
    directory = datasets.tum(tmp_path / "data")
    for name in ("rgb.txt", "depth.txt", "groundtruth.txt"):
        rows = [
            line.split() for line in (directory / name).read_text().splitlines() if line[0] != "#"
        ]
        later = [f"{round((float(row[0]) + 1.7e9) * factor)} {' '.join(row[1:])}" for row in rows]
        (directory / name).write_text("time other\n" + "\n".join(later) + "\n")
    source = open_source(directory)
    frames = list(source)
    assert [frame.stamp for frame in frames] == [
        round((1.7e9 + 100 + index / 10) * factor) * (10**9 // factor) for index in range(5)
    ]
    assert all(present(frame.truth).camera_to_world is not None for frame in frames)


def test_a_name_without_a_number_is_named(tmp_path: Path) -> None:
    directory = datasets.icl_nuim(tmp_path / "data")
    for number, name in enumerate(("first", "middle", "last"), start=1):
        (directory / "rgb" / f"{number}.png").rename(directory / "rgb" / f"{name}.png")
    with pytest.raises(SourceError, match=r"first\.png has no number"):
        open_source(directory)


FUZZ = settings(
    max_examples=examples(200),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
CELL = st.one_of(
    st.floats().map(str), st.integers().map(str), st.text(max_size=4),
    st.sampled_from(["nan", "-inf", "1e400", "sNaN", "NaN123", "1_0", "٣", "0x1", "#", ",", ";"]),
)  # fmt: skip
LINES = st.lists(st.lists(CELL, max_size=14).map(" ".join), max_size=6).map("\n".join)


@given(data=st.one_of(st.binary(max_size=200), LINES.map(lambda text: text.encode("utf-8"))),
       suffix=st.sampled_from([".txt", ".csv"]))  # fmt: skip
@FUZZ
def test_no_text_brings_up_a_foreign_error(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"any{suffix}"
    path.write_bytes(data)
    for read in (read_truth, read_tum, numbers, matrix, focal_numbers, read_rows):
        with suppress(SourceError):
            read(path)


@pytest.mark.parametrize(
    ("write", "file"),
    [(datasets.tum, "rgb.txt"), (datasets.tum, "groundtruth.txt"), (datasets.tum, "depth.txt"),
     (datasets.kitti_odometry, "sequences/04/calib.txt"), (datasets.rgbd, "pose.txt"),
     (datasets.kitti_odometry, "poses/04.txt"), (datasets.icl_nuim, "livingRoom2n.gt.freiburg"),
     (datasets.neural_rgbd, "poses.txt"), (datasets.scannet, "pose/1.txt"),
     (datasets.seven_scenes, "frame-000001.pose.txt")],
)  # fmt: skip
@given(data=st.data())
@settings(max_examples=examples(25), deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
def test_no_damaged_data_set_brings_up_a_foreign_error(
    tmp_path_factory: pytest.TempPathFactory,
    write: Callable[[Path], Path],
    file: str,
    data: st.DataObject,
) -> None:
    directory = write(tmp_path_factory.mktemp("data"))
    content = bytearray((directory / file).read_bytes())
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)),
                                           max_size=8)):  # fmt: skip
        content[place % len(content)] = value
    (directory / file).write_bytes(content[: len(content) - data.draw(st.integers(0, 60))])
    try:
        source = open_source(directory)
        list(source)
        json.dumps(source.describe())
    except SourceError:
        pass


# What other programs write

QUATERNION = (0.0, 0.0, 0.38268343, 0.92387953)
ROWS = [(1_305_031_102_175_300_000 + index * 100_000_000, 1.0 + index / 10, 2.0, 3.0, *QUATERNION)
        for index in range(5)]  # fmt: skip


def written(
    between: str,
    *,
    point: str = ".",
    header: str = "",
    first: Callable[[int, int], list[str]] | None = None,
) -> str:
    """Write ROWS with their times in seconds; ``first`` gives what stands before a row."""
    lines = [header] if header else []
    for index, (stamp, *rest) in enumerate(ROWS):
        words = [f"{stamp // 10**9}.{stamp % 10**9:09d}", *(f"{each:.8f}" for each in rest)]
        words = [word.replace(".", point) for word in words]
        lines.append(between.join([*(first(index, stamp) if first else ()), *words]))
    return "\n".join(lines) + "\n"


PATHS = ("position{0}x position{0}y position{0}z orientation{0}x orientation{0}y orientation{0}z "
         "orientation{0}w")  # fmt: skip
POSE = PATHS.format(".").split()
NAMED = "x,y,z,qx,qy,qz,qw"
FOREIGN = {
    "decimal commas, semicolons": ("a.csv", written(";", point=",", header="t;" + NAMED.replace(
        ",", ";"))),
    "decimal commas, tabs": ("a.txt", written("\t", point=",")),
    "decimal commas, blanks": ("a.txt", written(" ", point=",")),
    "rostopic echo -p": ("a.csv", "%time,field.header.seq,field.header.stamp,"
        "field.header.frame_id," + ",".join(f"field.pose.{name}" for name in POSE) + "\n"
        + "".join(f"{stamp},{i},{stamp},world," + ",".join(map(str, rest)) + "\n"
                  for i, (stamp, *rest) in enumerate(ROWS))),
    "PlotJuggler": ("a.csv", written(",", header="__time," + ",".join(
        f"/gt/pose/{name}" for name in PATHS.format("/").split()))),
    "pandas": ("a.csv", written(",", header=f",timestamp,{NAMED}", first=lambda i, _: [str(i)])),
    "seconds and nanoseconds": ("a.csv", f"#sec,nsec,{NAMED}\n" + "".join(
        f"{stamp // 10**9},{stamp % 10**9}," + ",".join(map(str, rest)) + "\n"
        for stamp, *rest in ROWS)),
    "seconds and nanoseconds of a message": ("a.txt", "header.stamp.sec header.stamp.nanosec "
        + " ".join(f"pose.pose.{name}" for name in POSE) + "\n" + "".join(
        f"{stamp // 10**9} {stamp % 10**9} " + " ".join(map(str, rest)) + "\n"
        for stamp, *rest in ROWS)),
    "a last comma": ("a.txt", written(",").replace("\n", ",\n")),
    "nanoseconds with decimals": ("a.txt", "".join(
        f"{stamp}.000000 " + " ".join(map(str, rest)) + "\n" for stamp, *rest in ROWS)),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_other_programs_write_is_read(tmp_path: Path, kind: str) -> None:
    name, text = FOREIGN[kind]
    (tmp_path / name).write_text(text)
    found = read_truth(tmp_path / name)
    assert found.stamps == [row[0] for row in ROWS]
    for pose, row in zip(found.poses, ROWS, strict=True):
        np.testing.assert_allclose(pose, pose_from(np.array(row[1:4]), np.array(row[4:])),
                                   atol=1e-6)  # fmt: skip


NO_NUMBERS = ["nan", "-nan(ind)", "1.#QNAN", "-1.#IND", "None", "null", "N/A"]


@pytest.mark.parametrize("word", [*NO_NUMBERS, ""])
@pytest.mark.parametrize("with_time", [True, False])
def test_a_row_without_numbers_is_a_lost_pose(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, word: str, with_time: bool
) -> None:
    if not with_time and word not in ("nan", "None", "null", ""):
        return
    between = "," if not word else " "
    lost = between.join(["1305031103.5" if with_time else word, *[word] * 7])
    path = tmp_path / "truth.txt"
    rest = written(between).splitlines()
    path.write_text("\n".join([*rest[:2], lost, *rest[2:]]) + "\n")
    found = read_truth(path)
    lost_poses = [pose for pose in found.poses if not np.isfinite(pose).all()]
    assert (len(found.poses), len(lost_poses)) == ((6, 1) if with_time else (5, 0))
    said = "1 of 6 poses have no time and are left out" in caplog.text
    assert said == (bool(word) and not with_time)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", written(" ").replace("1305031102.", "1.305.031.102.", 1), "line 1 .*'1.305.031"),
        ("a.txt", written(" ").replace("1305031102.1753", "1.3D+09", 1), "line 1 .*'1.3D"),
        ("a.txt", written(" ").replace("2.0", "2_0", 1), "line 1 .*'2_0"),
        ("a.txt", "2011-05-10T12:38:22.17 1 2 3 0 0 0 1\n", "line 1 of .*'2011-05-10T12"),
        ("a.csv", "".join(f"{s // 10**9},{s % 10**9}," + ",".join(map(str, rest)) + "\n"
                          for s, *rest in ROWS), "columns 5 to 8 hold no quaternions: name"),
        ("a.csv", "".join(f"{i},{s / 1e9},{i},2,{i},0,0,0,1\n" for i, (s, *_) in enumerate(ROWS)),
         "columns 5 to 8 hold no quaternions: name the columns"),
        ("a.txt.gz", "\x1f", r"is packed \(gzip\): unpack it first"),
    ],
)  # fmt: skip
def test_what_would_be_read_wrongly_is_refused(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"1") if text == "\x1f" else text.encode())
    with pytest.raises(SourceError, match=message):
        read_truth(path)


def test_matrices_may_lie_one_below_the_other(tmp_path: Path) -> None:
    path = tmp_path / "poses.txt"
    path.write_text("".join(datasets.table(pose) for pose in datasets.poses())
                    + "nan nan nan nan\n" * 4)  # fmt: skip
    found = read_truth(path)
    assert (found.kind, found.stamps, len(found.poses)) == ("kitti", None, 6)
    np.testing.assert_allclose(found.poses[:5], datasets.poses(), atol=1e-8)
    assert not np.isfinite(found.poses[5])[:3].any()
