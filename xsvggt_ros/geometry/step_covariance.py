# SPDX-License-Identifier: Apache-2.0
"""How precise a step is that was measured on images (``image_alignment.py``).

Images are laid on each other by a depth that is somewhat wrong, and what is wrong with it moves the
step in proportion to its length. How wrong it is shows in the images, too: where they do not fit,
they would with another depth. The constants were fitted on steps of the demo network through
made-up rooms that it is not judged by (`benchmarks/steps.py`).
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.pose_covariance import USUAL_PERSISTENCE, Persistence, PoseEstimate
from xsvggt_ros.geometry.registration import LEAST_CONDITION, MEDIAN_OF_NORMAL, Registration
from xsvggt_ros.geometry.rigid import invert, log_se3

Array = NDArray[np.float64]

USUAL = 0.04
"""Depth error that shows in the images, as a share, until it has been seen."""
LEAST = 0.005
MEMORY = 50
"""Frames from which it is estimated."""
LEAST_SAMPLES = 100
"""Blocks from which on nothing is left of what is usual."""
UNUSUAL = 2.0
"""Times what is usual from which on the depth error of this very frame counts, beyond chance."""
LEAST_BLOCKS = 10
"""Blocks that tell it."""
SURE = 0.1
"""Standard deviation of the depth error of a block, by the noise of the image, up to which it
counts."""
SCALE_FACTOR = 1.5
"""Error of all depths of a frame together, over what shows: steps are as much too long or short."""
DEPTH_FACTOR = 1.8
"""Errors of the depth of small and of large blocks beside that, over what shows: a step hides
part of them."""
FOCAL_ERROR = 0.004
"""Of a focal length, as a share."""
BRIGHTNESS_FACTOR = 2.8
"""On the variance by differences of brightness: blocks next to each other are alike as well."""
BAND_FACTOR = 4.0
"""On the variance by bands of whole numbers: a band runs through several blocks."""
LEAST_ERROR = 6e-5
"""Of a step, in median depths and in radians."""
MOST_ERROR = 1.0
"""The same; beyond it nothing is known, and numbers lose their digits."""
BLOCKS = (8, 10)
"""Rows and columns of blocks within which errors are taken to be alike."""
LARGE_BLOCKS = (4, 5)
"""The same of blocks within which depth errors are alike as well. The wider an error reaches, the
more it looks like a step sideways with a turn, and errors of many sizes come together."""

LAGS = np.array([1, 2, 3, 5, 8, 12, 18, 26, 38])
"""Steps between which depth errors are compared."""
CORRELATIONS = np.array([0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.965, 0.98])
"""Correlations from step to step that are tried."""
FADING = 0.99
"""Weight of what was seen of them one frame before."""
ENOUGH_FRAMES = 100
"""Frames from which on nothing is left of what is usual: blocks next to each other are alike, so
each frame tells little."""
OUTLIER = 3.0
"""Standard deviations beyond which a depth error counts as one there."""
LEAST_OVER_NOISE = 0.3
"""Variance of depth errors over that of noise, below which the images do not tell their course."""

_TINY = 1e-30


class LearnedPersistence:
    """Learns how long errors of depth last, from what shows of them in blocks of the image.

    Their correlation over many steps is fitted by a share of their variance that fades from step
    to step. Steps err by depth, so it is taken for that of the errors of steps.

    Attributes:
        value: what is known of it now.

    """

    def __init__(self) -> None:
        self.value = USUAL_PERSISTENCE
        self._newest = np.full((LAGS[-1] + 1, BLOCKS[0] * BLOCKS[1]), np.nan)
        """Depth errors of the newest frames, newest first."""
        self._products, self._pairs = np.zeros((2, len(LAGS)))
        """Sums over blocks of the product of two errors that are a lag apart, and their number."""
        self._squares = self._noise = self._blocks = 0.0
        """Sums over blocks of squared errors, of their variance by noise, and their number."""
        self._frames = 0

    def begin_camera(self) -> None:
        """Go on after a gap: no error is compared with those before it."""
        self._newest[:] = np.nan

    def note_nothing(self) -> None:
        """Take note of a step of which no image tells."""
        self._newest = np.roll(self._newest, 1, axis=0)
        self._newest[0] = np.nan

    def note(self, errors: Array, noise: Array) -> None:
        """Take in depth errors of blocks [b], NaN where unknown, and their variance by noise."""
        self.note_nothing()
        known = np.isfinite(errors) & np.isfinite(noise)
        count = np.count_nonzero(known)
        if count < LEAST_BLOCKS:
            return
        most = OUTLIER * float(np.median(np.abs(errors[known]))) / MEDIAN_OF_NORMAL
        self._newest[0] = np.where(known, np.clip(errors, -most, most), np.nan)
        products = self._newest[0] * self._newest[LAGS]
        self._products = FADING * self._products + np.nansum(products, axis=1)
        self._pairs = FADING * self._pairs + np.isfinite(products).sum(axis=1)
        self._squares = FADING * self._squares + float((self._newest[0, known] ** 2).sum())
        self._noise = FADING * self._noise + float(noise[known].sum())
        self._blocks = FADING * self._blocks + count
        self._frames += 1
        self._fit()

    def _fit(self) -> None:
        """Find the share and the correlation that explain what was seen, by least squares."""
        variance = (self._squares - self._noise) / self._blocks
        least = max(LEAST**2, LEAST_OVER_NOISE * self._noise / self._blocks)
        if variance < least or not self._pairs.any():
            return
        seen = self._products / np.maximum(self._pairs, 1.0) / variance
        model = CORRELATIONS[:, None] ** LAGS
        shares = (self._pairs * model * seen).sum(axis=1) / (self._pairs * model**2).sum(axis=1)
        shares = np.clip(shares, 0.0, 1.0)
        misfits = (self._pairs * (seen - shares[:, None] * model) ** 2).sum(axis=1)
        best = int(np.argmin(misfits))
        trust, usual = min(1.0, self._frames / ENOUGH_FRAMES), USUAL_PERSISTENCE
        self.value = Persistence(
            share=float(trust * shares[best] + (1.0 - trust) * usual.share),
            correlation=float(trust * CORRELATIONS[best] + (1.0 - trust) * usual.correlation),
        )


class ImageErrors:
    """Turns registrations of one stream's images into estimates, and learns how wrong depth is.

    Attributes:
        persistence: how long errors of these steps last; told of steps that no image shows.

    """

    def __init__(self) -> None:
        self._samples: deque[Array] = deque(maxlen=MEMORY)
        self.persistence = LearnedPersistence()

    @property
    def depth_error(self) -> float:
        """Standard deviation of the depth error that shows, as a share."""
        errors, noise = np.concatenate([np.empty((2, 0)), *self._samples], axis=1)
        known = min(1.0, len(errors) / LEAST_SAMPLES)
        if not known:
            return USUAL
        return known * _deviation(errors, noise) + (1.0 - known) * USUAL

    def estimate(self, registration: Registration) -> PoseEstimate:
        """Take in a registration of images; return its step with the information that it holds.

        Errors are alike over blocks of the image, each of which counts as one observation (a
        cluster-robust covariance: A. C. Cameron, D. L. Miller, "A practitioner's guide to
        cluster-robust inference", Journal of Human Resources 50, 2015).
        """
        by_depth = registration.jacobian[:, :, :3] @ invert(registration.pose)[:3, 3]
        blocks = _blocks(registration)
        by_block = _depth_errors(registration, by_depth, blocks)
        self.persistence.note(*by_block)
        newest = by_block[:, np.isfinite(by_block[0])]
        self._samples.append(newest)
        shown = self.depth_error
        if newest.shape[1] >= LEAST_BLOCKS and _deviation(*newest) > UNUSUAL * shown:
            shown = _deviation(*newest)
        unit = np.array([registration.depth] * 3 + [1.0] * 3)
        jacobian = registration.jacobian * unit
        weighted = jacobian * registration.weights[:, None, None]
        normal = np.tensordot(weighted, jacobian, ((0, 1), (0, 1)))
        inverse = _inverse(normal - registration.noise * np.outer(unit, unit))
        differences = np.einsum("nmi,nm->ni", weighted, registration.residuals)
        depths = np.einsum("nmi,nm->ni", weighted, by_depth)
        parts = [
            np.sqrt(BRIGHTNESS_FACTOR) * _sums(differences, blocks),
            DEPTH_FACTOR * shown * _sums(depths, blocks),
            DEPTH_FACTOR * shown * _sums(depths, _blocks(registration, LARGE_BLOCKS)),
            *_by_bands(registration, weighted, blocks),
        ]
        errors = np.concatenate(parts) @ inverse
        step = log_se3(registration.pose) / unit
        whole = np.zeros((2, 6))
        whole[0, :3], whole[1, 3:] = SCALE_FACTOR * shown * step[:3], FOCAL_ERROR * step[3:]
        covariance = errors.T @ errors + whole.T @ whole + LEAST_ERROR**2 * np.eye(6)
        values, vectors = np.linalg.eigh(covariance)
        information = (vectors / np.minimum(values, MOST_ERROR**2)) @ vectors.T
        information = (information + information.T) / 2 / np.outer(unit, unit)
        return PoseEstimate(registration.pose, np.asarray(information, np.float64))


def _by_bands(
    registration: Registration, weighted: Array, blocks: NDArray[np.int64]
) -> list[Array]:
    """Return what bands pull at the step with, rows of independent errors [b, 6].

    The fit follows bands: what it leaves does not tell how large they are. They count by blocks.
    Where brightness rises evenly all over the image, they count once more for all of it: the points
    with the largest gradients then lie where its bands rise and see the same error.
    """
    by_blocks, over_all = np.sqrt(BAND_FACTOR), np.sqrt(registration.even)
    parts: list[Array] = []
    for each in np.moveaxis(registration.bands, 2, 0):
        pulls = _sums((weighted * each[:, :, None]).sum(axis=1), blocks)
        parts += [by_blocks * pulls, over_all * pulls.sum(axis=0)[None]]
    return parts


def _inverse(normal: Array) -> Array:
    """Return the inverse of a normal matrix [6, 6], large where it says nothing or less."""
    values, vectors = np.linalg.eigh(normal)
    least = max(LEAST_CONDITION * values[-1], _TINY)
    return np.asarray((vectors / np.maximum(values, least)) @ vectors.T, np.float64)


def _deviation(errors: Array, noise: Array) -> float:
    """Return the standard deviation of depth errors [b], of which noise has a variance [b]."""
    shown = (float(np.median(np.abs(errors))) / MEDIAN_OF_NORMAL) ** 2
    return float(np.sqrt(max(shown - float(np.median(noise)), LEAST**2)))


def _depth_errors(registration: Registration, by_depth: Array, blocks: NDArray[np.int64]) -> Array:
    """Return by which share depth is off, and the variance of that by noise, of each block [2, b].

    NaN where noise does not leave that visible.
    """
    weights = registration.weights
    power = _sums((weights * (by_depth**2).sum(axis=1))[:, None], blocks)[:, 0]
    pull = _sums((weights * (by_depth * registration.residuals).sum(axis=1))[:, None], blocks)[:, 0]
    squares = weights * (registration.residuals**2).mean(axis=1)
    noise = float(squares.sum() / max(weights.sum(), _TINY))
    sure = power * SURE**2 > max(noise, _TINY)
    power = np.where(sure, power, np.nan)
    return np.array([-pull / power, noise / power])


def _blocks(registration: Registration, blocks: tuple[int, int] = BLOCKS) -> NDArray[np.int64]:
    """Return which one of rows and columns of ``blocks`` each residual lies in, [n]."""
    rows, columns = registration.grid
    row, column = registration.cells // columns, registration.cells % columns
    return row * blocks[0] // rows * blocks[1] + column * blocks[1] // columns


def _sums(fields: Array, blocks: NDArray[np.int64]) -> Array:
    """Return the sums of fields [n, k] over each block [b, k]; large blocks leave rows of zeros."""
    sums = np.zeros((BLOCKS[0] * BLOCKS[1], fields.shape[1]))
    np.add.at(sums, blocks, fields)
    return sums
