# SPDX-License-Identifier: Apache-2.0
"""Depth errors: AbsRel, SqRel, RMSE, log RMSE and the shares below powers of 1.25.

D. Eigen, C. Puhrsch, R. Fergus, "Depth Map Prediction from a Single Image using a Multi-Scale Deep
Network", NIPS 2014, section 4.1. All pixels of a sequence are aligned together, so that a frame
with more known pixels counts for more, as in the reference.

A number of this module goes out under a name that ends in its alignment, such as
``abs_rel_median`` or ``delta_1_l1`` (:meth:`DepthScore.metrics`). Numbers of different alignments
are different metrics.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import ConfigurationError, EvaluationError

Values = NDArray[np.floating]

DepthAlignmentKind = Literal["raw", "median", "l1", "l1_shift"]
DEPTH_ALIGNMENTS: tuple[DepthAlignmentKind, ...] = ("raw", "median", "l1", "l1_shift")
"""raw: as predicted. median: times median truth over median prediction. l1: times the scale of
least absolute error. l1_shift: scale and shift of least absolute error."""

STEPS = 10
"""Of reweighted least squares for the scale, as in the reference."""

SHIFT_STEPS = 100
"""The most steps for scale and shift, which depend on each other and so settle later."""

LEAST_SCALE = 1e-3
LEAST_DEPTH = 1e-5
"""Metres; stands in where alignment leaves less, since logarithm and ratio need more than 0."""

WEIGHT_FLOOR = 1e-8


@dataclass(frozen=True)
class DepthAlignment:
    """``scale * depth + shift``."""

    kind: DepthAlignmentKind
    scale: float = 1.0
    shift: float = 0.0

    def align(self, depth: Values, clip: float | None = None) -> NDArray[np.float64]:
        """Return aligned depth, float64 of the same shape, metres; at most ``clip``."""
        aligned = self.scale * depth.astype(np.float64) + self.shift
        return aligned if clip is None else np.minimum(aligned, clip)


@dataclass(frozen=True)
class DepthErrors:
    """Errors of aligned depth over ``pixels`` pixels; p is the prediction, g the ground truth.

    Attributes:
        abs_rel: mean of |p - g| / g.
        sq_rel: mean of (p - g)^2 / g, metres.
        depth_rmse: root of the mean of (p - g)^2, metres.
        depth_log_rmse: root of the mean of (log p - log g)^2.
        delta_1: share of pixels with max(p / g, g / p) < 1.25.
        delta_2: the same below 1.25^2.
        delta_3: the same below 1.25^3.

    """

    abs_rel: float
    sq_rel: float
    depth_rmse: float
    depth_log_rmse: float
    delta_1: float
    delta_2: float
    delta_3: float
    pixels: int

    def metrics(self, alignment: str) -> dict[str, float]:
        """Return the errors by their full names, such as ``abs_rel_median``."""
        return {
            f"{each.name}_{alignment}": getattr(self, each.name)
            for each in fields(self)
            if each.name != "pixels"
        }


@dataclass(frozen=True)
class DepthScore:
    """Errors after one alignment of a whole sequence.

    Attributes:
        alignment: that was applied.
        errors: over all pixels of the sequence together.
        seen: pixels with a prediction and a ground truth; ``errors.pixels`` of them were kept.
        missing: pixels with a ground truth and no prediction.

    """

    alignment: DepthAlignment
    errors: DepthErrors
    seen: int
    missing: int

    def metrics(self) -> dict[str, float]:
        """Return the errors by their full names, such as ``abs_rel_median``."""
        return self.errors.metrics(self.alignment.kind)

    def summary(self) -> dict[str, Any]:
        """Return the score in types that JSON holds."""
        return {
            "scale": self.alignment.scale,
            "shift": self.alignment.shift,
            **self.metrics(),
            "pixels": self.errors.pixels,
            "pixels_seen": self.seen,
            "pixels_missing": self.missing,
        }


def depth_errors(prediction: Values, truth: Values) -> DepthErrors:
    """Return the errors of predictions [n] against truths [n], both finite, truths above 0.

    A prediction below 1e-5 m counts as 1e-5 m in logarithm and ratio. (The reference clamps it for
    the logarithm only; the ratio of a negative prediction is then below 1.25, that is, a hit.)

    Raises:
        EvaluationError: there are no pixels, or the shapes differ.

    """
    if prediction.shape != truth.shape or not truth.size:
        raise EvaluationError(
            f"predictions of shape {prediction.shape} and truths of shape {truth.shape}; both must "
            "be equal and hold at least one pixel with known depth"
        )
    p, g = prediction.astype(np.float64), truth.astype(np.float64)
    off = p - g
    positive = np.maximum(p, LEAST_DEPTH)
    ratio = np.maximum(positive / g, g / positive)
    return DepthErrors(
        abs_rel=float(np.mean(np.abs(off) / g)),
        sq_rel=float(np.mean(off**2 / g)),
        depth_rmse=float(np.sqrt(np.mean(off**2))),
        depth_log_rmse=float(np.sqrt(np.mean(np.log(positive / g) ** 2))),
        delta_1=float(np.mean(ratio < 1.25)),
        delta_2=float(np.mean(ratio < 1.25**2)),
        delta_3=float(np.mean(ratio < 1.25**3)),
        pixels=int(truth.size),
    )


def align_depth(prediction: Values, truth: Values, kind: DepthAlignmentKind) -> DepthAlignment:
    """Return the alignment of predictions with ground truths.

    ``median`` is median(g) / median(p), not the median of g / p. ``l1`` minimizes sum |s p - g| by
    ten steps of reweighted least squares from s = mean(g) / mean(p), never below 1e-3, exactly as
    the reference. ``l1_shift`` minimizes sum |s p + t - g| in the same way, to the end. (The
    reference lets Adam run for at most 1000 steps of 1e-4 instead, which moves scale and shift by
    0.1 at most.)

    Args:
        prediction: [n], finite.
        truth: [n], metres, above 0.
        kind: one of DEPTH_ALIGNMENTS.

    Raises:
        ConfigurationError: an unknown kind.
        EvaluationError: there are no pixels, or the predictions have no size.

    """
    if kind == "raw":
        return DepthAlignment(kind)
    if not truth.size:
        raise EvaluationError("no pixel has both a prediction and a truth; depth cannot be aligned")
    p, g = prediction.astype(np.float64), truth.astype(np.float64)
    if kind == "median":
        return DepthAlignment(kind, _ratio(float(np.median(g)), float(np.median(p))))
    if kind == "l1":
        return DepthAlignment(kind, _least_absolute_scale(p, g))
    if kind == "l1_shift":
        return DepthAlignment(kind, *_least_absolute_line(p, g))
    raise ConfigurationError(
        f"depth alignment '{kind}' is unknown; choose one of {', '.join(DEPTH_ALIGNMENTS)}"
    )


def _ratio(above: float, below: float) -> float:
    if not below > 0:
        raise EvaluationError(f"the predicted depth is {below} on average; it must be positive")
    return above / below


def _least_absolute_scale(p: NDArray[np.float64], g: NDArray[np.float64]) -> float:
    scale = _ratio(float(g.mean()), float(p.mean()))
    for _ in range(STEPS):
        weights = 1 / (np.abs(scale * p - g) + WEIGHT_FLOOR)
        scale = max(float((weights * p * g).sum() / (weights * p * p).sum()), LEAST_SCALE)
    return scale


def _least_absolute_line(p: NDArray[np.float64], g: NDArray[np.float64]) -> tuple[float, float]:
    """Return scale and shift; where all predictions are equal, the scale alone."""
    scale, shift = _ratio(float(np.median(g)), float(np.median(p))), 0.0
    if np.ptp(p) < 1e-12:
        return scale, shift
    best, least = (scale, shift), float("inf")
    for _ in range(SHIFT_STEPS):
        off = np.abs(scale * p + shift - g)
        loss = float(off.mean())
        if loss >= least * (1 - 1e-9):
            break
        best, least = (scale, shift), loss
        scale, shift = _weighted_line(p, g, 1 / (off + WEIGHT_FLOOR))
    return best


def _weighted_line(
    p: NDArray[np.float64], g: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, float]:
    total = weights.sum()
    p_mean, g_mean = (weights * p).sum() / total, (weights * g).sum() / total
    centred = p - p_mean
    scale = float((weights * centred * (g - g_mean)).sum() / (weights * centred**2).sum())
    return scale, float(g_mean - scale * p_mean)


def score_depth(
    prediction: Values,
    truth: Values,
    kind: DepthAlignmentKind = "median",
    *,
    farthest: float | None = None,
    clip: float | None = None,
) -> DepthScore:
    """Return the errors of depth, all pixels aligned together.

    Args:
        prediction: of any shape, such as [h, w] or [frames, h, w]; NaN is missing.
        truth: metres, of the same shape; NaN and what is not positive is unknown.
        kind: of the alignment.
        farthest: metres; ground truth of this and more counts as unknown.
        clip: metres; aligned predictions beyond it are set to it.

    Raises:
        ConfigurationError: an unknown kind.
        EvaluationError: the shapes differ, no pixel has both, or the predictions have no size.

    """
    known, both = comparable_pixels(prediction, truth, farthest)
    p, g = prediction[both], truth[both]
    alignment = align_depth(p, g, kind)
    errors = depth_errors(alignment.align(p, clip), g)
    return DepthScore(alignment, errors, errors.pixels, int(known.sum()) - errors.pixels)


def comparable_pixels(
    prediction: Values, truth: Values, farthest: float | None = None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which pixels have a ground truth, and which of these have a prediction, too.

    Args:
        prediction: of any shape; NaN is missing.
        truth: metres, of the same shape; NaN and what is not positive is unknown.
        farthest: metres; ground truth of this and more counts as unknown.

    Raises:
        EvaluationError: the shapes differ.

    """
    if prediction.shape != truth.shape:
        raise EvaluationError(
            f"depth of {prediction.shape} against a ground truth of {truth.shape}; resize one first"
        )
    known = np.isfinite(truth) & (truth > 0)
    if farthest is not None:
        known &= truth < farthest
    return known, known & np.isfinite(prediction)


class DepthPairs:
    """Predictions and truths of a sequence, pixel by pixel, in bounded memory.

    Once ``capacity`` pairs are held, every second one is dropped at random (seeded), and from then
    on only a share of the new ones is taken. Each pair takes 8 bytes.
    """

    def __init__(
        self,
        capacity: int | None = 16_000_000,
        farthest: float | None = None,
        clip: float | None = None,
    ) -> None:
        """Hold at most ``capacity`` pairs, None for all.

        Args:
            capacity: pairs.
            farthest: metres; truths of this and more count as unknown.
            clip: metres; aligned predictions beyond it are set to it.

        """
        self._capacity = capacity
        self._farthest = farthest
        self._clip = clip
        self._frames: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
        self._held = 0
        self._share = 1.0
        self._random = np.random.default_rng(0)
        self.seen = 0
        self.missing = 0

    def add(self, index: int, prediction: NDArray[np.float32], truth: NDArray[np.float32]) -> None:
        """Take in the depth maps of a frame.

        Args:
            index: of the frame.
            prediction: float32 [h, w]; NaN is missing.
            truth: float32 [h, w], metres; NaN and what is not positive is unknown.

        """
        known, both = comparable_pixels(prediction, truth, self._farthest)
        self.missing += int(known.sum() - both.sum())
        self.seen += int(both.sum())
        self._keep(index, prediction[both], truth[both])

    def _keep(self, index: int, p: NDArray[np.float32], g: NDArray[np.float32]) -> None:
        if self._share < 1:
            p, g = self._thinned(p, g, self._share)
        self._frames[index] = p.astype(np.float32), g.astype(np.float32)
        self._held += len(p)
        while self._capacity is not None and self._held > self._capacity:
            self._share /= 2
            self._frames = {i: self._thinned(*pair, 0.5) for i, pair in self._frames.items()}
            self._held = sum(len(p) for p, _ in self._frames.values())

    def _thinned(
        self, p: NDArray[np.float32], g: NDArray[np.float32], share: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        kept = self._random.random(len(p)) < share
        return p[kept], g[kept]

    def score(self, kind: DepthAlignmentKind) -> DepthScore:
        """Align the whole sequence at once, and return its errors.

        Raises:
            EvaluationError: no frame had pixels with prediction and truth.

        """
        p, g = self._together()
        alignment = align_depth(p, g, kind)
        errors = depth_errors(alignment.align(p, self._clip), g)
        return DepthScore(alignment, errors, self.seen, self.missing)

    def frame_errors(self, alignment: DepthAlignment) -> dict[int, DepthErrors]:
        """Return the errors of each frame that has known pixels, under one alignment."""
        return {
            index: depth_errors(alignment.align(p, self._clip), g)
            for index, (p, g) in self._frames.items()
            if len(p)
        }

    def _together(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if not self._held:
            raise EvaluationError(
                "no pixel has both a predicted and a true depth; check that depth and images "
                "belong together"
            )
        predictions, truths = zip(*self._frames.values(), strict=True)
        return np.concatenate(predictions), np.concatenate(truths)
