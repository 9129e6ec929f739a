# SPDX-License-Identifier: Apache-2.0
"""How far a pose is off that is the sum of steps, each with a covariance.

Covariances are float64 [6, 6] of ``(rho, theta)``, a disturbance of the pose on the right
(``rigid.py``): translation in the unit of the pose, rotation in radians, both in the child frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.rigid import Matrix, adjoint, invert

Array = NDArray[np.float64]

LASTING = 0.4
"""Share of the variance of a step's error that lasts."""
PERSISTENCE = 0.9
"""Correlation of the lasting error of a step with that of the step before. It fades from image
to image rather than with time: with each, the network says again how deep the scene is."""

_TINY = 1e-300


def compose_covariance(before: Array, step: Matrix, of_step: Array) -> Array:
    """Return the covariance [6, 6] of a pose after a step.

    Args:
        before: of the pose before it, [6, 6].
        step: [4, 4], the later frame in the earlier one.
        of_step: of the step, [6, 6], independent of ``before``.

    """
    carried = adjoint(invert(step))
    return np.asarray(carried @ before @ carried.T + of_step, np.float64)


class AccumulatedError:
    """The covariance of a pose that is the sum of steps whose errors last.

    Neighbouring steps share what makes them wrong: the depth map between them, and whatever is
    wrong with the depth of the scene in view. So part of each step's error is taken to be a
    first-order Gauss-Markov process, which fades from step to step; the rest is white. The
    lasting part becomes a part of the state: its covariance with the pose is carried along (Y.
    Bar-Shalom, X. R. Li, T. Kirubarajan, "Estimation with Applications to Tracking and
    Navigation", 2001, chapter 8, on noise that is correlated in time). In units of its standard
    deviation, the lasting error always has the identity as its own covariance.

    Attributes:
        covariance: float64 [6, 6] of the pose, a disturbance on the right; exactly symmetric.

    """

    def __init__(self) -> None:
        """Begin with a pose that is exact."""
        self.begin(np.zeros((6, 6)))

    def begin(self, covariance: Array) -> None:
        """Begin with a pose of a covariance [6, 6], whose error no step shares."""
        self.covariance = covariance
        self._with_lasting = np.zeros((6, 6))

    def add(self, covariance: Array) -> None:
        """Add a disturbance of a covariance [6, 6] that no step shares."""
        self.covariance = self.covariance + covariance

    def step(self, step: Matrix, of_step: Array) -> None:
        """Go on by a step [4, 4], the later frame in the earlier one, of a covariance [6, 6]."""
        lasting = np.sqrt(LASTING) * _root(of_step)
        carried = adjoint(invert(step))
        with_lasting = PERSISTENCE * carried @ self._with_lasting
        shared = with_lasting @ lasting.T
        covariance = compose_covariance(self.covariance, step, of_step) + shared + shared.T
        self.covariance = (covariance + covariance.T) / 2
        self._with_lasting = with_lasting + lasting


def _root(covariance: Array) -> Array:
    """Return a matrix L with L L' = a covariance [6, 6], alike in all units.

    Whatever is not positive about it, as by rounding, counts as zero.
    """
    sizes = np.sqrt(np.maximum(np.diag(covariance), _TINY))
    correlation = covariance / np.outer(sizes, sizes)
    try:
        root = np.linalg.cholesky(correlation)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(correlation)
        root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return np.asarray(sizes[:, None] * root, np.float64)
