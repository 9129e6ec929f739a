# SPDX-License-Identifier: Apache-2.0
"""The step between two frames, measured on their images: the one laid on the other by its depth.

Direct alignment minimises differences of brightness (Steinbrücker, Sturm, Cremers, "Real-time
visual odometry from dense RGB-D images", ICCV workshops 2011; Engel, Koltun, Cremers, "Direct
sparse odometry", TPAMI 40, 2018). It needs no camera head, so its errors are not those of the
network's poses, and depth that is off by a few per cent hardly turns it. It goes from coarse to
fine, over the pixel of each cell of a grid that has the largest gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.grey_levels import BLUR, GREY_LEVEL, ROUNDED, bands_of, noise_of
from xsvggt_ros.geometry.registration import (
    LARGEST_TURN,
    LARGEST_WAY,
    LEAST_CONDITION,
    LEAST_POINTS,
    Effort,
    Linearised,
    Registration,
    median,
    minimised,
    norms_of,
    refined,
    reprojection_jacobian,
)
from xsvggt_ros.geometry.rigid import Matrix, invert, rotation_angle

Array = NDArray[np.float64]
Image = NDArray[np.float32]

WIDEST = 128
"""Pixels of the finest image: a tenth of a pixel is 0.05 degrees there."""
LEVELS = 3
"""Each half as wide as the one below it."""
NARROWEST = 24
GRID = (24, 32)
"""Most rows and columns of cells."""
EDGE = 0.1
"""Change of depth from pixel to pixel, as a share, beyond which it is an edge: depth is least
certain there, and what is behind it comes into view."""
INLIER = 0.08
"""Residual of an inlier, as a share of full brightness."""
ITERATIONS = 4
"""Of each level at most."""
CONVERGED = 1e-4
"""Step that ends them, in median depths and radians: a hundredth of a pixel of the finest image."""
COARSELY_CONVERGED = 1e-3
"""The same of the coarser images, by whose poses the finer ones only begin: a tenth of that pixel
of the finest."""
BETTER = 0.8
"""Share of the difference at the start that may be left where a step is changed a lot."""
NO_WORSE = 1.05
"""The same elsewhere: what is minimised is another measure of the difference."""
EXPOSED = 0.7
"""Share of the difference that another exposure must leave to be believed."""
SLOPE_NOISE = 0.25
"""Variance of the derivative of a blurred image's noise, over that of its brightness."""
LENS_SHOWS = (0.3, 0.7)
"""Share of an image's variance that a pattern around its middle explains, from where on it is taken
for the lens's, and from where on all of it."""
_FINE = Effort(INLIER, ITERATIONS, CONVERGED)
_COARSE = Effort(INLIER, ITERATIONS, COARSELY_CONVERGED)
_BORDER = 2
_FAR = 3.0
"""Times the usual difference up to which one counts for the exposure."""
_LEAST_GRADIENT = 1e-6


@dataclass(frozen=True, slots=True)
class _Level:
    """One size of an image.

    Attributes:
        image: float32 [h, w, 9]: three channels, blurred, brightness 0 to 1; their derivatives to
            the right, per pixel; those downwards.
        intrinsics: of the image of that size.
        grid: rows and columns of cells.
        cells: int64 [n], the cell of each point.
        pixels: int64 [n, 2], row and column of each point.
        points: float64 [n, 3], in the optical frame.
        values: float64 [n, 3], the image at the points.

    """

    image: Image
    intrinsics: Intrinsics
    grid: tuple[int, int]
    cells: NDArray[np.int64]
    pixels: NDArray[np.int64]
    points: Array
    values: Array


@dataclass(frozen=True, slots=True)
class AlignedImage:
    """What is kept of a frame to align the next one with it.

    Attributes:
        levels: the image in several sizes, the finest first.
        noise: variance of the finest one's noise, in squared grey levels.

    """

    levels: tuple[_Level, ...]
    noise: float

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the finest image."""
        return self.levels[0].intrinsics.width, self.levels[0].intrinsics.height


def aligned_image(
    color: NDArray[np.uint8], depth: NDArray[np.float32], intrinsics: Intrinsics
) -> AlignedImage:
    """Return what of a frame is aligned.

    Args:
        color: RGB, uint8 [h, w, 3].
        depth: float32 [h, w], NaN where unknown.
        intrinsics: of the image of that size.

    """
    sizes = _sizes(color, depth.shape)
    levels = tuple(_level(shrunk, depth, intrinsics) for shrunk in sizes)
    return AlignedImage(levels, noise_of(sizes[0]))


def _sizes(color: NDArray[np.uint8], shape: tuple[int, ...]) -> list[NDArray[np.uint8]]:
    """Return an image in the sizes that are aligned, the finest first; ``shape`` is the depth's."""
    height, width = shape
    sizes: list[NDArray[np.uint8]] = []
    shrunk = color
    for level in range(LEVELS):
        columns = min(width, WIDEST) >> level
        rows = max(1, round(height * columns / width))
        if level and min(rows, columns) < NARROWEST:
            break
        while shrunk.shape[1] >= 3 * columns:  # OpenCV halves faster than it shrinks to other sizes
            shrunk = _shrunk(shrunk, shrunk.shape[1] // 2, max(1, shrunk.shape[0] // 2))
        shrunk = _shrunk(shrunk, columns, rows)
        sizes.append(shrunk)
    return sizes


def _shrunk(color: NDArray[np.uint8], columns: int, rows: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(color, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)


def _level(color: NDArray[np.uint8], depth: NDArray[np.float32], intrinsics: Intrinsics) -> _Level:
    rows, columns = color.shape[:2]
    image = cv2.GaussianBlur(color.astype(np.float32) * np.float32(GREY_LEVEL), (0, 0), BLUR)
    across = cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
    down = cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
    whole = np.asarray(cv2.merge([image, across, down]), np.float32)
    shrunk = rows / depth.shape[0], columns / depth.shape[1]
    camera = Intrinsics(
        intrinsics.fx * shrunk[1],
        intrinsics.fy * shrunk[0],
        (intrinsics.cx + 0.5) * shrunk[1] - 0.5,
        (intrinsics.cy + 0.5) * shrunk[0] - 0.5,
        columns,
        rows,
    )
    nearest = cv2.resize(depth, (columns, rows), interpolation=cv2.INTER_NEAREST_EXACT)
    z = np.asarray(nearest, np.float32)
    power = np.einsum("hwc,hwc->hw", whole[..., 3:], whole[..., 3:])
    power[~_certain(z)] = 0.0
    grid, cells, chosen = _strongest(power)
    row, column = pixels = np.stack([chosen // columns, chosen % columns])
    found = z[row, column].astype(np.float64)
    points = np.column_stack(
        [
            (column - camera.cx) / camera.fx * found,
            (row - camera.cy) / camera.fy * found,
            found,
        ]
    )
    values = image[row, column].astype(np.float64)
    return _Level(whole, camera, grid, cells, pixels.T, points, values)


def _certain(depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return where depth is known and goes on smoothly, and the border is not near."""
    certain = np.zeros(depth.shape, bool)
    inside = np.s_[_BORDER:-_BORDER, _BORDER:-_BORDER]
    with np.errstate(invalid="ignore", over="ignore"):
        largest = cv2.dilate(depth, np.ones((3, 3), np.uint8))
        smallest = cv2.erode(depth, np.ones((3, 3), np.uint8))
        smooth = (smallest > 0) & (largest - smallest < 2 * EDGE * smallest) & (depth > 0)
    certain[inside] = smooth[inside]
    return certain


def _strongest(
    power: NDArray[np.float32],
) -> tuple[tuple[int, int], NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and columns of cells, and cell and flat place of the strongest pixel of each."""
    rows, columns = power.shape
    edge = max(1, -(-rows // GRID[0]), -(-columns // GRID[1]))
    down, right = -(-rows // edge), -(-columns // edge)
    whole = np.zeros((down * edge, right * edge), np.float32)
    whole[:rows, :columns] = power
    tiles = whole.reshape(down, edge, right, edge).swapaxes(1, 2).reshape(down * right, -1)
    best = tiles.argmax(axis=1)
    cells = np.flatnonzero(tiles[np.arange(len(tiles)), best] > _LEAST_GRADIENT)
    best = best[cells]
    row = cells // right * edge + best // edge
    column = cells % right * edge + best % edge
    return (down, right), cells, row * columns + column


def register_images(
    before: AlignedImage, after: AlignedImage, step: Matrix, *others: Matrix
) -> Registration | None:
    """Find the step between two frames that lays the image of one on that of the other.

    Where a change of exposure explains much of what is left, it is estimated along with the step.
    It is not otherwise: on plain walls it would explain what is motion.

    Args:
        before: the earlier frame.
        after: the later one.
        step: where to begin, [4, 4]: the later camera in the earlier one's frame.
        others: where else to begin; the coarsest image says which of them fits best.

    Returns:
        The registration of the step; None where the images differ in size, as after a change of
        the camera's, where too little of both can be compared, where it fits no better than
        ``step``, or hardly better though it is far from it.

    """
    if before.size != after.size:
        return None
    starts, exposed = (step, *others), False
    found = _coarse_to_fine(before, after, starts, exposed=False)
    at_start = _differences(before.levels[0], after.levels[0], exposed, step)
    if found is None or at_start is None:
        stuck = True
    else:
        stuck = _misfit(found.residuals) > BETTER * _misfit(at_start.residuals)
    # Where motion explains little, the exposure may have hidden it.
    poses = ([] if found is None else [found.pose]) + ([step] if stuck else [])
    if any(_exposure_shows(before, after, pose) for pose in poses):
        other = _coarse_to_fine(before, after, starts, exposed=True)
        exposed = other is not None and (
            found is None or _misfit(other.residuals) < EXPOSED * _misfit(found.residuals)
        )
        if exposed:
            found = other
            at_start = _differences(before.levels[0], after.levels[0], exposed, step)
    if found is None or at_start is None or found.condition <= LEAST_CONDITION:
        return None
    change = invert(step) @ found.pose
    far = rotation_angle(change) > LARGEST_TURN
    far |= float(np.linalg.norm(change[:3, 3])) > LARGEST_WAY * found.depth
    most = (BETTER if far else NO_WORSE) * _misfit(at_start.residuals)
    if _misfit(found.residuals) > most:
        return None
    first = before.levels[0]
    shown = np.isin(first.cells, found.cells)
    bands, even = bands_of(first.image[..., :3], first.pixels[shown], before.noise)
    return replace(
        found,
        noise=_uninformative(first.points[shown], after.levels[0], found),
        bands=np.sqrt(2) * bands,  # of both images
        even=even,
    )


def _uninformative(points: Array, after: _Level, found: Registration) -> Array:
    """Return what is no information about the step but adds to the normal matrix [6, 6].

    Of the points [n, 3] of the earlier frame that the later one shows.

    Noise has slopes as well: where an image shows nothing else, they look like information. And a
    lens darkens the corners of every image alike: on a plain wall, that looks like rest
    (:func:`_lens_slopes`).
    """
    camera, weights = after.intrinsics, found.weights
    moved = invert(found.pose)
    x, y, z = moved[:3, :3] @ points.T + moved[:3, 3:]
    a, b = x / z, y / z
    rays = reprojection_jacobian(a, b, 1.0 / z)
    rays *= np.array([camera.fx, camera.fy])[:, None]
    across, down, share = _lens_slopes(
        after.image[..., :3], camera.fx * a + camera.cx, camera.fy * b + camera.cy
    )
    squares = float(weights @ (found.residuals**2).sum(axis=1))
    squares = max(squares / max(float(weights.sum()), _LEAST_GRADIENT), 2 * 3 * ROUNDED * share)
    # What is left is the noise of both images.
    noisy = rays * np.sqrt(SLOPE_NOISE * squares / 2 * weights)[:, None, None]
    noise = np.tensordot(noisy, noisy, ((0, 1), (0, 1)))
    if not share:
        return np.asarray(noise, np.float64)
    lens = across[:, :, None] * rays[:, None, 0] + down[:, :, None] * rays[:, None, 1]
    # Of the sum of the lens's and another slope, only the other counts.
    both = np.tensordot(weights[:, None, None] * lens, found.jacobian - lens, ((0, 1), (0, 1)))
    own = np.tensordot(weights[:, None, None] * lens, lens, ((0, 1), (0, 1)))
    return np.asarray(noise + both + both.T + own, np.float64)


def _lens_slopes(image: Image, column: Array, row: Array) -> tuple[Array, Array, float]:
    """Return derivatives to the right and downwards of what the lens may give an image.

    That is a smooth function of the distance from about the middle, as far as it explains what the
    whole image shows: in a room it hardly does.

    Args:
        image: [h, w, 3].
        column: float64 [n], of some places.
        row: float64 [n].

    Returns:
        float64 [n, 3] each, per pixel; and which share of the image is taken for the lens's.

    """
    height, width = image.shape[:2]
    fields = _lens_fields(height, width)
    # Without its mean: beside that of a bright wall, float32 loses what little a lens darkens.
    color = np.ascontiguousarray(image)
    varying = (color - np.array(cv2.mean(color)[:3], np.float32)).reshape(-1, 3)
    factors = fields.basis.T @ varying
    # The functions are orthonormal: first a constant, then those around the middle.
    around = np.square(factors[1 : 1 + _AROUND]).sum()
    explained = float(around) / max(float(np.vdot(varying, varying)), _LEAST_GRADIENT)
    least, most = LENS_SHOWS
    share = min(max((explained - least) / (most - least), 0.0), 1.0)
    if not share:
        return np.zeros((len(row), 3)), np.zeros((len(row), 3)), 0.0
    places = np.rint(row).astype(np.int64) * width + np.rint(column).astype(np.int64)
    across, down = (
        share * (each[places] @ factors).astype(np.float64) for each in (fields.across, fields.down)
    )
    return across, down, share


@dataclass(frozen=True, slots=True)
class _LensFields:
    """Smooth functions over an image.

    Attributes:
        basis: float32 [h * w, k], orthonormal: a constant, three around the middle, six by which
            these change where they are moved.
        across: float32 [h * w, k], their derivatives to the right, per pixel.
        down: float32 [h * w, k], their derivatives downwards.

    """

    basis: Image
    across: Image
    down: Image


_AROUND = 3


@lru_cache(maxsize=4)
def _lens_fields(height: int, width: int) -> _LensFields:
    row, column = np.mgrid[:height, :width].reshape(2, -1)
    unit = max(height, width) / 2
    x, y = (column - (width - 1) / 2) / unit, (row - (height - 1) / 2) / unit
    r2 = x * x + y * y
    around = [r2, r2**2, r2**3]
    moved = [each * r2**power for power in (0, 1, 2) for each in (x, y)]
    values = np.stack([np.ones_like(x), *around, *moved], axis=1)
    basis = np.linalg.qr(values)[0].astype(np.float32)
    field = basis.reshape(height, width, -1)
    across, down = (np.asarray(np.gradient(field, axis=axis)) for axis in (1, 0))
    return _LensFields(basis, across.reshape(basis.shape), down.reshape(basis.shape))


def _exposure_shows(before: AlignedImage, after: AlignedImage, step: Matrix) -> bool:
    """Return whether another exposure would explain much of what does not fit."""
    found = _differences(before.levels[-1], after.levels[-1], False, step)
    if found is None:
        return False
    left = _without_exposure(found, before.levels[-1].values[found.used])
    return _misfit(left.residuals) < EXPOSED * _misfit(found.residuals)


def _coarse_to_fine(
    before: AlignedImage, after: AlignedImage, starts: tuple[Matrix, ...], *, exposed: bool
) -> Registration | None:
    finest, *coarser = zip(before.levels, after.levels, strict=True)
    for early, late in reversed(coarser):
        linearise = partial(_differences, early, late, exposed)
        begun = _best_start(linearise, starts)
        if begun is None:
            return None
        starts = (minimised(linearise, *begun, median(early.points[:, 2]), _COARSE)[0],)
    early, late = finest
    linearise = partial(_differences, early, late, exposed)
    begun = _best_start(linearise, starts)
    if begun is None:
        return None
    depth = median(early.points[:, 2])
    return refined(linearise, *begun, depth, (early.grid, early.cells), _FINE)


def _best_start(
    linearise: Callable[[Matrix], Linearised | None], starts: tuple[Matrix, ...]
) -> tuple[Matrix, Linearised] | None:
    """Return the one of several poses that fits best, and the differences there."""
    begun = [(start, found) for start in starts if (found := linearise(start)) is not None]
    return min(begun, key=lambda each: _misfit(each[1].residuals), default=None)


def _misfit(residuals: Array) -> float:
    """Return the mean difference of brightness, the largest ones cut off."""
    return float(np.minimum(norms_of(residuals), INLIER).mean())


def _differences(
    before: _Level, after: _Level, exposed: bool, before_from_after: Matrix
) -> Linearised | None:
    """Return differences of brightness where the points of ``before`` are seen in ``after``.

    Args:
        before: the earlier image.
        after: the later one, of the same size.
        exposed: whether a change of exposure is taken out.
        before_from_after: the step, [4, 4].

    """
    moved = invert(before_from_after)
    x, y, z = moved[:3, :3] @ before.points.T + moved[:3, 3:]
    camera = after.intrinsics
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = x / z, y / z
        column, row = camera.fx * a + camera.cx, camera.fy * b + camera.cy
    inside = (z > 0) & (column >= _BORDER) & (row >= _BORDER)
    inside &= (column <= camera.width - 1 - _BORDER) & (row <= camera.height - 1 - _BORDER)
    used = np.flatnonzero(inside)
    if len(used) < LEAST_POINTS:
        return None
    where = (each[used, None].astype(np.float32) for each in (column, row))
    columns, rows = where
    shown = cv2.remap(after.image, columns, rows, cv2.INTER_LINEAR)[:, 0].astype(np.float64)
    slopes = (shown[:, 3:] * np.repeat([camera.fx, camera.fy], 3)).reshape(-1, 2, 3)
    rays = reprojection_jacobian(a[used], b[used], 1.0 / z[used])
    jacobian = slopes.swapaxes(1, 2) @ rays
    expected = before.values[used]
    found = Linearised(shown[:, :3] - expected, jacobian, used)
    return _without_exposure(found, expected) if exposed else found


def _without_exposure(found: Linearised, expected: Array) -> Linearised:
    """Return differences with gain and offset taken out, of themselves and of derivatives.

    Args:
        found: the differences.
        expected: float64 [n, 3], the brightness that they are differences from.

    """
    base = np.stack([expected.ravel(), np.ones(expected.size)])
    fields = np.column_stack([found.residuals.ravel(), found.jacobian.reshape(-1, 6)])
    for _ in range(2):  # what the first fit leaves tells what does not belong to it
        usual = np.abs(fields[:, 0] - median(fields[:, 0]))
        near = base * (usual <= max(_FAR * median(usual), _LEAST_GRADIENT))
        # Where all is of one brightness, gain and offset are the same.
        matrix = near @ base.T + _LEAST_GRADIENT * np.eye(2)
        fields -= base.T @ np.linalg.solve(matrix, near @ fields)
    residuals, jacobian = fields[:, 0].reshape(-1, 3), fields[:, 1:].reshape(-1, 3, 6)
    return Linearised(residuals, jacobian, found.used)
