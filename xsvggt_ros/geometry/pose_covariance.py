# SPDX-License-Identifier: Apache-2.0
"""How far a pose may be off, alone, fused from several estimates, and as the sum of steps.

Covariances are float64 [6, 6] of ``(rho, theta)``, a disturbance of the pose on the right
(``rigid.py``): translation in the unit of the pose, rotation in radians, both in the child frame.

Residuals of a registration are not independent: what a network gets wrong at one patch it gets
wrong at the next one, too. Taken for independent, a thousand of them promise ten times the
precision that they have. So their correlation is measured: a spectrum over the image, pooled over
frames, from which the covariance follows by the sandwich formula.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.registration import LEAST_CONDITION, Registration
from xsvggt_ros.geometry.rigid import Matrix, adjoint, exp_se3, invert, log_se3

Array = NDArray[np.float64]

GATE = 22.46
"""Normalised innovation of six components beyond which two estimates contradict each other: once
in a thousand by chance."""

UNKNOWN_VARIANCE = 1e6
"""Stands for "not known" where a message has no word for it and takes zero for certainty."""

_QUANTILE = 0.9
_QUANTILE_OF_CHI2 = 6.251
"""Of three components."""
FACTOR_MEMORY = 300
LEAST_FACTOR_SAMPLES = 30
LEAST_FACTOR, MOST_FACTOR = 1e-2, 1e4

SHAPE_MEMORY = 50
"""Frames over which the shape of a spectrum is pooled."""
LEVEL_MEMORY = 10
"""Frames over which its height is pooled."""
_LENGTHS = (0.0, 0.5, 0.75, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0)
"""Correlation lengths in patches that are tried."""
_FLOORS = (0.003, 0.03, 0.3)
"""Uncorrelated share of the variance that is tried."""
_TINY = 1e-300
_FLOOR = 6.0
"""Share of the mean power below which modes tell nothing: edges of the image leak as much there."""
_LEAST_VISIBLE = 0.3
"""Share of a mode's power that the fit of a pose must leave for the mode to count."""


@dataclass(frozen=True, slots=True)
class PoseEstimate:
    """A pose and how precise it is.

    Attributes:
        pose: [4, 4].
        information: float64 [6, 6], inverse covariance; singular where the estimate says nothing
            of some direction.

    """

    pose: Matrix
    information: Array


@dataclass(frozen=True, slots=True)
class Persistence:
    """How long errors of steps last.

    They fade from image to image rather than with time: with each, the network says again how deep
    the scene is.

    Attributes:
        share: of the variance of a step's error that lasts, 0 to 1; the rest is white.
        correlation: of the lasting error of a step with that of the step before.

    """

    share: float
    correlation: float


USUAL_PERSISTENCE = Persistence(share=0.4, correlation=0.9)
"""Until it is known (`benchmarks/steps.py`)."""


class ErrorSpectrum:
    """Turns registrations of one stream into covariances, and learns how errors are correlated.

    Feed it the registrations of one kind, frame by frame. Another number of patches begins again.
    """

    def __init__(self) -> None:
        self._grid = (0, 0)
        self._frames = 0

    def _begin(self, grid: tuple[int, int]) -> None:
        self._grid = grid
        self._frames = 0
        self._shape = np.zeros(grid[0] * grid[1])
        # Of the first frame it is not known yet what its fit hides: what varies slowly.
        order = np.add.outer(np.arange(grid[0]), np.arange(grid[1]))
        self._visible = (order.ravel() > 2).astype(np.float64)
        self._level = 0.0

    def estimate(self, registration: Registration) -> PoseEstimate:
        """Take in a registration; return its pose with the information that it holds."""
        if registration.grid != self._grid:
            self._begin(registration.grid)
        free = list(registration.free)
        unit = np.array([registration.depth] * 3 + [1.0] * 3)
        jacobian = registration.jacobian * unit
        weights = registration.weights[:, None, None]
        normal = np.tensordot(jacobian * weights, jacobian, ((0, 1), (0, 1)))
        normal -= _flattened(registration, jacobian)
        own = normal[np.ix_(free, free)]
        inverse = np.linalg.pinv(own, rcond=LEAST_CONDITION, hermitian=True)
        fields = np.concatenate(
            [registration.residuals[..., None] * weights, jacobian[..., free],
             (jacobian * weights)[..., free] @ inverse], axis=2,
        )  # fmt: skip
        modes = self._modes(fields, registration.cells)
        used = int(np.count_nonzero(registration.weights))
        power = (modes[..., 0] ** 2).mean(axis=1) * (len(modes) / max(used, 1))
        slopes, gains = np.split(modes[..., 1:], 2, axis=2)
        meat = self._meat(power, slopes, gains)
        information = own @ np.linalg.pinv(meat, rcond=LEAST_CONDITION**2, hermitian=True) @ own
        rows = np.eye(6)[free]
        held = [axis for axis in range(6) if axis not in free]
        # An error of what was held has shifted what was estimated.
        rows[:, held] = inverse @ normal[np.ix_(free, held)]
        rows /= unit
        return PoseEstimate(registration.pose, rows.T @ information @ rows)

    def _meat(self, power: Array, slopes: Array, gains: Array) -> Array:
        """Return J^T C J for the covariance C of the errors, by all that was seen so far.

        Args:
            power: [k], of this frame's residuals by mode, mean over their components.
            slopes: [k, m, f], derivatives by mode.
            gains: [k, m, f], weighted derivatives by mode, times the inverse normal matrix.

        """
        self._frames += 1
        share = 1.0 / min(self._frames, SHAPE_MEMORY)
        self._shape += share * (power / max(float(power.mean()), _TINY) - self._shape)
        spectra = _spectra(*self._grid)
        spectrum = spectra[_likeliest(spectra, self._shape, self._visible)]
        visible, _ = _visible(spectrum, slopes, gains)
        self._visible += share * (visible - self._visible)
        spectrum = spectra[_likeliest(spectra, self._shape, self._visible)]
        visible, meat = _visible(spectrum, slopes, gains)
        seen = visible > _LEAST_VISIBLE
        weights = (spectrum / (spectrum + _FLOOR) ** 2)[seen]
        level = float(weights @ power[seen] / (weights @ (spectrum * visible)[seen]))
        self._level += (level - self._level) / min(self._frames, LEVEL_MEMORY)
        return np.asarray(self._level * meat, np.float64)

    def _modes(self, fields: Array, cells: NDArray[np.int64]) -> Array:
        """Return the cosine transform over the image of fields [n, m, f], as [k, m, f]."""
        rows, columns = self._grid
        whole = np.zeros((rows * columns, fields.shape[1] * fields.shape[2]))
        whole[cells] = fields.reshape(len(fields), -1)
        down = _cosines(rows) @ whole.reshape(rows, -1)
        both = _cosines(columns) @ down.reshape(rows, columns, -1)
        return both.reshape(len(whole), *fields.shape[1:])


def _flattened(registration: Registration, jacobian: Array) -> Array:
    """Return what the normal matrix loses where the loss is linear: there it has no curvature."""
    far = registration.weights < 1.0
    residuals = registration.residuals[far]
    directions = residuals / np.linalg.norm(residuals, axis=1, keepdims=True)
    slopes = np.einsum("nmi,nm->ni", jacobian[far], directions)
    return np.asarray((slopes * registration.weights[far, None]).T @ slopes, np.float64)


def _visible(spectrum: Array, slopes: Array, gains: Array) -> tuple[Array, Array]:
    """Return which share of each mode's power a fit leaves [k], and J^T C J [f, f]."""
    components = slopes.shape[1]
    meat = np.tensordot(slopes * spectrum[:, None, None], slopes, ((0, 1), (0, 1)))
    lost = np.einsum("kmf,kmf->k", slopes, gains) / components
    added = np.einsum("kmf,kmf->k", gains @ meat, gains) / components
    return np.maximum(1.0 - 2.0 * lost + added / spectrum, 0.0), meat


def _likeliest(spectra: Array, power: Array, visible: Array) -> int:
    """Return which of ``spectra`` [s, k] fits the power seen [k] best, whatever its level.

    Whittle's likelihood over the modes that are visible.
    """
    seen = visible > _LEAST_VISIBLE
    tried = spectra[:, seen] + _FLOOR
    ratios = (power[seen] / visible[seen] + _FLOOR) / tried
    return int((np.log(ratios.mean(axis=1) + _TINY) + np.log(tried).mean(axis=1)).argmin())


@lru_cache(maxsize=8)
def _cosines(count: int) -> Array:
    """Return the orthonormal cosine transform (DCT-II) of ``count`` numbers as a matrix."""
    places = (np.arange(count) + 0.5) * np.pi / count
    matrix = np.sqrt(2.0 / count) * np.cos(np.arange(count)[:, None] * places)
    matrix[0] /= np.sqrt(2.0)
    return np.asarray(matrix, np.float64)


@lru_cache(maxsize=4)
def _spectra(rows: int, columns: int) -> Array:
    """Return the spectra [s, rows * columns] that are tried, of mean 1.

    Correlation falls off like a Gaussian, or with longer tails; part of the variance is
    uncorrelated.
    """
    vertical, horizontal = (np.pi * np.arange(count) / count for count in (rows, columns))
    square = np.add.outer(vertical**2, horizontal**2).ravel()
    tried = []
    for length in _LENGTHS:
        reach = length * length * square
        for shape in (np.exp(-reach), (1.0 + reach) ** -2.0):
            smooth = shape / shape.mean()
            tried += [(1.0 - floor) * smooth + floor for floor in _FLOORS]
    return np.array(tried)


def fuse(first: PoseEstimate, *others: PoseEstimate) -> PoseEstimate:
    """Return what independent estimates of one pose say together, in information form.

    Where two contradict each other beyond chance (:data:`GATE`), nobody knows which is wrong: both
    count, and less is promised.

    Args:
        first: the estimate about which all is linear; its information must be regular.
        others: estimates of the same pose; of singular information where they are partial.

    """
    total, pull, doubt = first.information.copy(), np.zeros(6), 1.0
    for other in others:
        doubt = max(doubt, innovation(first, other) / GATE)
        total += other.information
        pull += other.information @ log_se3(invert(first.pose) @ other.pose)
    return PoseEstimate(first.pose @ exp_se3(np.linalg.solve(total, pull)), total / doubt)


def innovation(first: PoseEstimate, other: PoseEstimate) -> float:
    """Return the squared difference of two estimates in standard deviations, chi2 of 6 if right.

    Of a partial estimate, what it says nothing of does not count.
    """
    change = log_se3(invert(first.pose) @ other.pose)
    pull = other.information @ change
    return float(
        change @ pull - pull @ np.linalg.solve(first.information + other.information, pull)
    )


def in_parent_axes(covariance: Array, pose: Matrix) -> Array:
    """Return a covariance [6, 6] about axes parallel to the parent's, as ``nav_msgs/Odometry``."""
    turn = np.kron(np.eye(2), pose[:3, :3])
    return np.asarray(turn @ covariance @ turn.T, np.float64)


def in_other_child(covariance: Array, child_from_other: Matrix) -> Array:
    """Return the covariance of a frame's pose that is fixed to the child, such as a robot's base.

    Args:
        covariance: of the child's pose, [6, 6].
        child_from_other: [4, 4], where the other frame is fixed to the child.

    """
    carried = adjoint(invert(child_from_other))
    return np.asarray(carried @ covariance @ carried.T, np.float64)


def unknown_covariance() -> Array:
    """Return a covariance [6, 6] that says that nothing is known."""
    return UNKNOWN_VARIANCE * np.eye(6)


class VarianceFactors:
    """Learns by how much variances are too small or too large, from errors that became known.

    One factor for translation and one for rotation: such that the 90 % quantile of the normalised
    squared error is that of chi2 with three components. It is 1 until enough is known.
    """

    def __init__(self, translation: float = 1.0, rotation: float = 1.0) -> None:
        """Begin with factors that are known from elsewhere."""
        self._begun = translation, rotation
        self._squares: tuple[deque[float], deque[float]] = (
            deque(maxlen=FACTOR_MEMORY),
            deque(maxlen=FACTOR_MEMORY),
        )

    @property
    def factors(self) -> tuple[float, float]:
        """What variances of translation and of rotation are to be multiplied by."""
        found = []
        for begun, squares in zip(self._begun, self._squares, strict=True):
            if len(squares) < LEAST_FACTOR_SAMPLES:
                found.append(begun)
            else:
                factor = float(np.quantile(squares, _QUANTILE)) / _QUANTILE_OF_CHI2
                found.append(min(max(factor, LEAST_FACTOR), MOST_FACTOR))
        return found[0], found[1]

    def note(self, error: Array, covariance: Array) -> None:
        """Take in an error [6] that became known, and the covariance [6, 6] it was said to have.

        The covariance is the one before any factor.
        """
        for part, squares in zip((np.s_[:3], np.s_[3:]), self._squares, strict=True):
            own = covariance[part, part]
            squares.append(float(error[part] @ np.linalg.solve(own, error[part])))

    def applied(self, covariance: Array) -> Array:
        """Return the covariance [6, 6] times the factors."""
        translation, rotation = self.factors
        roots = np.sqrt([translation] * 3 + [rotation] * 3)
        return np.asarray(covariance * np.outer(roots, roots), np.float64)


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

    def step(
        self, step: Matrix, of_step: Array, persistence: Persistence = USUAL_PERSISTENCE
    ) -> None:
        """Go on by a step.

        Args:
            step: [4, 4], the later frame in the earlier one.
            of_step: its covariance [6, 6].
            persistence: how long its error lasts, and that of the steps before it.

        """
        lasting = np.sqrt(persistence.share) * _root(of_step)
        carried = adjoint(invert(step))
        with_lasting = persistence.correlation * carried @ self._with_lasting
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
