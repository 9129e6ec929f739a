# SPDX-License-Identifier: Apache-2.0
"""PLY and PCD files, read back by a reader that shares nothing with the writer."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from present import present

from xsvggt_ros.errors import OutputError
from xsvggt_ros.geometry.files import cloud_writer, write_pcd, write_ply

SIZES = {"float": ("f", 4), "uchar": ("B", 1)}


def read_ply(path: Path) -> tuple[np.ndarray, np.ndarray]:
    head, body = path.read_bytes().split(b"end_header\n", 1)
    lines = head.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    count = int(present(re.fullmatch(r"element vertex (\d+)", lines[2]))[1])
    properties = [line.split()[1:] for line in lines[3:]]
    assert [name for _, name in properties] == ["x", "y", "z", "red", "green", "blue"]
    row = struct.Struct("<" + "".join(SIZES[kind][0] for kind, _ in properties))
    assert len(body) == count * row.size
    rows = np.array(list(row.iter_unpack(body))).reshape(count, len(properties))
    return rows[:, :3].astype(np.float32), rows[:, 3:].astype(np.uint8)


def clouds() -> st.SearchStrategy[tuple[NDArray[np.float32], NDArray[np.uint8]]]:
    finite = st.floats(-1e6, 1e6, width=32)
    return st.integers(0, 50).flatmap(
        lambda n: st.tuples(
            hnp.arrays(np.float32, (n, 3), elements=finite), hnp.arrays(np.uint8, (n, 3))
        )
    )


@given(clouds())
def test_every_cloud_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, cloud: tuple[NDArray[np.float32], NDArray[np.uint8]]
) -> None:
    path = tmp_path_factory.mktemp("ply") / "cloud.ply"
    write_ply(path, *cloud)
    points, colors = read_ply(path)
    np.testing.assert_array_equal(points, cloud[0])
    np.testing.assert_array_equal(colors, cloud[1])


@given(clouds())
def test_a_pcd_file_is_as_pcl_lays_it_out(
    tmp_path_factory: pytest.TempPathFactory, cloud: tuple[NDArray[np.float32], NDArray[np.uint8]]
) -> None:
    path = tmp_path_factory.mktemp("pcd") / "cloud.pcd"
    confidence = np.arange(len(cloud[0]), dtype=np.float32) + 1
    write_pcd(path, *cloud, confidence)
    head, body = path.read_bytes().split(b"DATA binary\n", 1)
    lines = [line.split() for line in head.decode("ascii").splitlines() if line[0] != "#"]
    entries = {key: values for key, *values in lines}
    assert entries["VERSION"] == ["0.7"]
    assert entries["FIELDS"] == ["x", "y", "z", "rgb", "confidence"]
    assert entries["SIZE"] == ["4"] * 5
    assert entries["TYPE"] == ["F"] * 5
    assert entries["COUNT"] == ["1"] * 5
    assert entries["WIDTH"] == entries["POINTS"] == [str(len(cloud[0]))]
    assert entries["HEIGHT"] == ["1"]
    rows = list(struct.iter_unpack("<3f4Bf", body))
    assert len(rows) == len(cloud[0])
    for row, point, color, value in zip(rows, *cloud, confidence, strict=True):
        assert row[:3] == tuple(point.tolist())
        assert row[3:7] == (color[2], color[1], color[0], 0)
        assert row[7] == value


def test_the_ending_chooses_the_format_and_ply_has_confidence(tmp_path: Path) -> None:
    points, colors = np.ones((2, 3), np.float32), np.full((2, 3), 9, np.uint8)
    confidence = np.array([1.5, 2.5], np.float32)
    for name, start in (("a.PLY", b"ply\n"), ("b.pcd", b"# .PCD v0.7")):
        cloud_writer(name)(tmp_path / name, points, colors, confidence)
        assert (tmp_path / name).read_bytes().startswith(start)
    content = (tmp_path / "a.PLY").read_bytes()
    assert b"property uchar blue\nproperty float confidence\nend_header\n" in content
    assert content.endswith(struct.pack("<3f3Bf", 1, 1, 1, 9, 9, 9, 2.5))


@pytest.mark.parametrize("name", ["map.obj", "map", ".ply"])
def test_other_endings_are_refused(tmp_path: Path, name: str) -> None:
    column = np.ones((1, 3), np.float32)
    with pytest.raises(OutputError, match=r"written to \.ply or \.pcd"):
        cloud_writer(name)(tmp_path / name, column, column.astype(np.uint8), column[:, 0])


def test_missing_directories_are_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "cloud.ply"
    write_ply(path, np.zeros((1, 3), np.float32), np.zeros((1, 3), np.uint8))
    assert [each.name for each in path.parent.iterdir()] == ["cloud.ply"]


@pytest.mark.parametrize(
    ("points", "colors"), [((2, 3), (1, 3)), ((2, 4), (2, 4)), ((6,), (6,)), ((2, 2, 3), (2, 2, 3))]
)
def test_shapes_that_do_not_fit_are_refused_and_leave_the_old_file(
    tmp_path: Path, points: tuple[int, ...], colors: tuple[int, ...]
) -> None:
    path = tmp_path / "cloud.ply"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=re.escape(str(points))):
        write_ply(path, np.zeros(points, np.float32), np.zeros(colors, np.uint8))
    assert path.read_bytes() == b"old"
