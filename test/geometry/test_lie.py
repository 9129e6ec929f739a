# SPDX-License-Identifier: Apache-2.0
"""Tangent vectors of rigid motions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motions import rigid

from xsvggt_ros.geometry.rigid import Matrix, adjoint, exp_se3, exp_so3, log_se3, log_so3

components = st.lists(st.floats(-1.5, 1.5), min_size=6, max_size=6)


@given(rigid())
def test_the_logarithm_leads_back(motion: Matrix) -> None:
    np.testing.assert_allclose(exp_se3(log_se3(motion)), motion, atol=1e-9)


@given(components)
def test_the_exponential_leads_back(xi: list[float]) -> None:
    np.testing.assert_allclose(log_se3(exp_se3(np.array(xi))), xi, atol=1e-9)


@given(rigid(), components)
def test_the_adjoint_carries_a_disturbance_to_the_other_side(
    motion: Matrix, xi: list[float]
) -> None:
    left = exp_se3(adjoint(motion) @ xi) @ motion
    np.testing.assert_allclose(left, motion @ exp_se3(np.array(xi)), atol=1e-9)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-5, 1e-4, 1e-3, 1.0, 3.14159, np.pi])
def test_every_angle_has_its_rotation(angle: float) -> None:
    axis = np.array([2.0, -1.0, 2.0]) / 3.0
    rotation = exp_so3(angle * axis)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(rotation @ axis, axis, atol=1e-12)
    assert np.trace(rotation) == pytest.approx(1 + 2 * np.cos(angle), abs=1e-12)
    assert np.linalg.norm(log_so3(rotation)) == pytest.approx(angle, rel=1e-6, abs=1e-15)


def test_a_turn_while_moving_is_an_arc() -> None:
    # A quarter turn to the left on a circle of radius 1: from the origin, ahead along x.
    arc = exp_se3(np.array([np.pi / 2, 0, 0, 0, 0, np.pi / 2]))
    np.testing.assert_allclose(arc[:3, 3], [1.0, 1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(arc[:3, 0], [0.0, 1.0, 0.0], atol=1e-12)
