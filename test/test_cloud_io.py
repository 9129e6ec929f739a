# SPDX-License-Identifier: Apache-2.0
"""PLY files, read back by a reader that shares nothing with the writer."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xsvggt_ros.geometry.cloud_io import write_ply

SIZES = {"float": ("f", 4), "uchar": ("B", 1)}


def read_ply(path: Path) -> tuple[np.ndarray, np.ndarray]:
    head, body = path.read_bytes().split(b"end_header\n", 1)
    lines = head.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    count = int(re.fullmatch(r"element vertex (\d+)", lines[2])[1])
    properties = [line.split()[1:] for line in lines[3:]]
    assert [name for _, name in properties] == ["x", "y", "z", "red", "green", "blue"]
    row = struct.Struct("<" + "".join(SIZES[kind][0] for kind, _ in properties))
    assert len(body) == count * row.size
    rows = np.array(list(row.iter_unpack(body))).reshape(count, 6)
    return rows[:, :3].astype(np.float32), rows[:, 3:].astype(np.uint8)


def clouds():
    finite = st.floats(-1e6, 1e6, width=32)
    return st.integers(0, 50).flatmap(
        lambda n: st.tuples(
            hnp.arrays(np.float32, (n, 3), elements=finite), hnp.arrays(np.uint8, (n, 3))
        )
    )


@given(clouds())
def test_every_cloud_comes_back_bit_for_bit(tmp_path_factory, cloud):
    path = tmp_path_factory.mktemp("ply") / "cloud.ply"
    write_ply(path, *cloud)
    points, colors = read_ply(path)
    np.testing.assert_array_equal(points, cloud[0])
    np.testing.assert_array_equal(colors, cloud[1])


def test_missing_folders_are_made_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a" / "b" / "cloud.ply"
    write_ply(path, np.zeros((1, 3), np.float32), np.zeros((1, 3), np.uint8))
    assert [each.name for each in path.parent.iterdir()] == ["cloud.ply"]


@pytest.mark.parametrize(
    ("points", "colors"), [((2, 3), (1, 3)), ((2, 4), (2, 4)), ((6,), (6,)), ((2, 2, 3), (2, 2, 3))]
)
def test_shapes_that_do_not_fit_are_refused_and_leave_the_old_file(tmp_path, points, colors):
    path = tmp_path / "cloud.ply"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=re.escape(str(points))):
        write_ply(path, np.zeros(points, np.float32), np.zeros(colors, np.uint8))
    assert path.read_bytes() == b"old"
