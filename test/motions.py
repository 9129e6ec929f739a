# SPDX-License-Identifier: Apache-2.0
"""Rigid motions for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from xsvggt_ros.geometry.rigid import Matrix, matrix_from_quaternion


def motion(
    place: Sequence[float] | NDArray[np.float64], turn: Sequence[float] | NDArray[np.float64]
) -> Matrix:
    """Return the motion to a place by a quaternion x, y, z, w."""
    pose = np.eye(4)
    pose[:3, :3] = matrix_from_quaternion(np.asarray(turn, np.float64))
    pose[:3, 3] = place
    return pose


@st.composite
def rigid(draw: st.DrawFn) -> Matrix:
    """Draw a motion by up to two in each direction and by less than a half turn."""
    x, y, z, w, *place = (draw(st.floats(-2.0, 2.0)) for _ in range(7))
    return motion(place, (x, y, z, w + 3.0))
