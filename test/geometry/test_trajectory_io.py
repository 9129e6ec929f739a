# SPDX-License-Identifier: Apache-2.0
"""Trajectories in the TUM format keep nanoseconds and nine decimals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from motions import motion
from numpy.typing import NDArray

from xsvggt_ros.errors import SourceError
from xsvggt_ros.geometry.files import Trajectory, read_tum, seconds_text, write_tum
from xsvggt_ros.geometry.rigid import matrix_from_quaternion

HALF_A_DECIMAL = 0.51e-9


def trajectories() -> st.SearchStrategy[list[tuple[int, NDArray[np.float64], NDArray[np.float64]]]]:
    number = st.floats(-1, 1, allow_subnormal=False)
    turns = hnp.arrays(np.float64, 4, elements=number).filter(lambda q: np.linalg.norm(q) > 0.1)
    places = hnp.arrays(np.float64, 3, elements=st.floats(-1e5, 1e5))
    stamps = st.integers(0, 2**62)
    return st.lists(st.tuples(stamps, turns, places), max_size=8)


@given(trajectories())
def test_stamps_come_back_exactly_and_poses_to_nine_decimals(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, NDArray[np.float64], NDArray[np.float64]]],
) -> None:
    poses = [motion(place, turn) for _, turn, place in rows]
    written = Trajectory.from_poses([stamp for stamp, _, _ in rows], poses)
    path = tmp_path_factory.mktemp("tum") / "trajectory.tum"
    write_tum(path, written)
    read = read_tum(path)
    assert read.stamps.tolist() == [stamp for stamp, _, _ in rows]
    np.testing.assert_allclose(read.positions, written.positions, rtol=1e-15, atol=HALF_A_DECIMAL)
    np.testing.assert_allclose(read.quaternions, written.quaternions, rtol=0, atol=HALF_A_DECIMAL)
    for pose, turn in zip(poses, read.quaternions, strict=True):
        np.testing.assert_allclose(matrix_from_quaternion(turn), pose[:3, :3], atol=1e-8)


def test_a_line_looks_as_other_programs_expect_it(tmp_path: Path) -> None:
    path = tmp_path / "trajectory.tum"
    write_tum(path, Trajectory.from_poses([1_700_000_000_000_000_001], [rigid_identity()]))
    assert path.read_text().splitlines() == [
        "# timestamp tx ty tz qx qy qz qw",
        "1700000000.000000001 1.500000000 0.000000000 0.000000000 "
        "0.000000000 0.000000000 0.000000000 1.000000000",
    ]


def rigid_identity() -> np.ndarray:
    return motion((1.5, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))


@pytest.mark.parametrize(
    ("stamp", "text"),
    [(0, "0.000000000"), (999_999_999, "0.999999999"), (-1, "-0.000000001")],
)
def test_nanoseconds_are_written_without_rounding(stamp: int, text: str) -> None:
    assert seconds_text(stamp) == text


@pytest.mark.parametrize("line", ["1 2 3", "1 2 3 4 5 6 7 x", "nan 0 0 0 0 0 0 1"])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "trajectory.tum"
    path.write_text(f"# remark\n\n0 0 0 0 0 0 0 1\n{line}\n")
    with pytest.raises(SourceError, match=r"line 4 of .*trajectory\.tum"):
        read_tum(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere\.tum"):
        read_tum(tmp_path / "nowhere.tum")
