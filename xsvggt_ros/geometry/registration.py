# SPDX-License-Identifier: Apache-2.0
"""Poses measured from what a frame sees: by points seen at known pixels, and by two depth maps.

A registration begins at a pose that is nearly right, such as the network's. It is an independent
measurement of that pose, for fusion by covariance (``pose_covariance.py``), and never replaces it:
points whose errors are alike over large parts of an image give a pose that is worse than a good
camera head. All thresholds are relative to depth or in radians, so the unit of length is of no
consequence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.rigid import Matrix, Tangent, exp_se3, invert, rotation_angle

Array = NDArray[np.float64]

ITERATIONS = 8
"""Gauss-Newton steps at most."""
DEPTH_ITERATIONS = 3
HUBER = 1.345
"""Residuals in standard deviations beyond which they count linearly (95 % efficiency)."""
CUT = 3.0
"""Times as much, from where on they do not count at all."""
INLIER = 0.02
"""Residual of an inlier in focal lengths, which for small angles are radians."""
DEPTH_INLIER = 0.1
"""Residual of an inlier between two depth maps, as a share of depth."""
ROBUST_START = 0.3
"""Share of inliers below which a start by RANSAC is tried."""
LEAST_INLIERS = 0.5
LEAST_POINTS = 30
DEPTH_REACH = 0.3
"""Residual between two depth maps, as a share of depth, beyond which they show other surfaces."""
NORMAL_REACH = 3
"""Pixels to each side by which a normal is taken."""
LEAST_CONDITION = 1e-6
"""Smallest over largest eigenvalue of the normal matrix, lengths in median depths."""
LARGEST_TURN = np.radians(3.0)
LARGEST_WAY = 0.1
"""In median depths."""

MEDIAN_OF_NORMAL = 0.6745
"""Of absolute values, over the standard deviation."""
_MEDIAN_OF_CHI = {1: MEDIAN_OF_NORMAL, 2: 1.1774, 3: 1.5382}
"""By number of components."""
_SMALLEST_SIGMA = 1e-9


@dataclass(frozen=True, slots=True)
class PatchPoints:
    """One pixel of each patch of an image, the most confident one that has a depth.

    Attributes:
        grid: rows and columns of patches.
        cells: int64 [n], the patch of each point, row by row; patches without depth have none.
        pixels: int64 [n, 2], row and column in the image.
        rays: float64 [n, 2], x and y at depth 1 in the optical frame.
        depth: float64 [n], along the optical axis.

    """

    grid: tuple[int, int]
    cells: NDArray[np.int64]
    pixels: NDArray[np.int64]
    rays: Array
    depth: Array

    def points(self) -> Array:
        """Return the points in the optical frame, float64 [n, 3]."""
        return np.column_stack([self.rays * self.depth[:, None], self.depth])


@dataclass(frozen=True, slots=True)
class Registration:
    """A pose that was measured, and what it rests on.

    Attributes:
        pose: [4, 4], of the same frames as the start.
        grid: rows and columns of patches.
        cells: int64 [n], patch of each residual.
        jacobian: float64 [n, m, 6], derivative of the residuals with respect to a disturbance
            ``(rho, theta)`` of ``pose`` on the right.
        residuals: float64 [n, m] at ``pose``, without unit.
        weights: float64 [n], from the robust loss.
        depth: median of the points' depths, the length that thresholds are relative to.
        inliers: share of the residuals that are small.
        cost_fell: whether the robust cost is lower than at the start.
        condition: smallest over largest eigenvalue of the normal matrix, lengths in median depths;
            below :data:`LEAST_CONDITION` the pose stays as it was in that direction.
        free: which of the six components were estimated.
        noise: float64 [6, 6], what adds to the normal matrix and is no information, such as noise
            in the derivatives; zero where there is none.
        bands: float64 [n, m, k], standard deviations of the residuals by k independent errors that
            neighbours share and that a fit may follow; [1, 1, 0] where there are none.
        even: how far these are the same error all over the image as well, from 0 to 1.

    """

    pose: Matrix
    grid: tuple[int, int]
    cells: NDArray[np.int64]
    jacobian: Array
    residuals: Array
    weights: Array
    depth: float
    inliers: float
    cost_fell: bool
    condition: float
    free: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    noise: Array = field(default_factory=lambda: np.zeros((6, 6)))
    bands: Array = field(default_factory=lambda: np.zeros((1, 1, 0)))
    even: float = 0.0

    def objection(self, start: Matrix) -> str:
        """Say why this pose should not be believed beside ``start`` [4, 4]; empty where it may."""
        change = invert(start) @ self.pose
        way = float(np.linalg.norm(change[:3, 3]))
        if len(self.cells) < LEAST_POINTS:
            return f"only {len(self.cells)} points"
        if self.inliers < LEAST_INLIERS:
            return f"only {self.inliers:.0%} inliers"
        if len(self.free) == 6 and not self.condition > LEAST_CONDITION:
            return "what is seen does not determine the pose"
        if not self.cost_fell:
            return "the cost did not fall"
        if rotation_angle(change) > LARGEST_TURN or way > LARGEST_WAY * self.depth:
            return "the change is too large"
        return ""


def points_by_patch(
    depth: NDArray[np.float32],
    confidence: NDArray[np.float32],
    intrinsics: Intrinsics,
    patch: int,
) -> PatchPoints:
    """Choose the most confident pixel with a positive depth of each patch.

    Args:
        depth: [h, w], NaN where unknown; rows and columns beyond whole patches are left out.
        confidence: [h, w].
        intrinsics: of the image of that size.
        patch: edge of a patch in pixels.

    """
    rows, columns = depth.shape[0] // patch, depth.shape[1] // patch
    whole = np.s_[: rows * patch, : columns * patch]
    known = (depth[whole] > 0) & np.isfinite(depth[whole])
    usable = np.where(known, confidence[whole], -np.inf)
    tiles = usable.reshape(rows, patch, columns, patch).swapaxes(1, 2).reshape(rows * columns, -1)
    best = tiles.argmax(axis=1)
    cells = np.flatnonzero(np.isfinite(tiles[np.arange(len(tiles)), best]))
    best = best[cells]
    pixels = np.column_stack(
        [cells // columns * patch + best // patch, cells % columns * patch + best % patch]
    )
    rays = np.column_stack(
        [
            (pixels[:, 1] - intrinsics.cx) / intrinsics.fx,
            (pixels[:, 0] - intrinsics.cy) / intrinsics.fy,
        ]
    )
    chosen = depth[pixels[:, 0], pixels[:, 1]].astype(np.float64)
    return PatchPoints((rows, columns), cells, pixels, rays, chosen)


@dataclass(frozen=True, slots=True)
class Linearised:
    """Residuals at a pose.

    Attributes:
        residuals: float64 [n, m].
        jacobian: float64 [n, m, 6], their derivatives.
        used: int64 [n], which points they are of.
        norms: float64 [n], lengths of the residuals.

    """

    residuals: Array
    jacobian: Array
    used: NDArray[np.int64]
    norms: Array = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "norms", norms_of(self.residuals))


@dataclass(frozen=True, slots=True)
class Effort:
    """How far a registration goes.

    Attributes:
        inlier: largest residual of an inlier.
        iterations: Gauss-Newton steps at most.
        converged: the step that ends them, in median depths and radians.

    """

    inlier: float
    iterations: int
    converged: float = 1e-5


_Linearise = Callable[[Matrix], Linearised | None]


def register_points(
    points: NDArray[np.floating], seen: PatchPoints, world_from_camera: Matrix
) -> Registration | None:
    """Find the pose from which points of the world are seen at the pixels that show them.

    Gauss-Newton over reprojection errors with a Huber loss whose scale is that of the median
    residual. Where hardly any point fits the start, RANSAC (OpenCV) gives another.

    Args:
        points: [n, 3] in the world, one for each of ``seen``; rows that are not finite are left
            out.
        seen: the pixels that show them.
        world_from_camera: the start, [4, 4].

    Returns:
        The registration of ``world_from_camera``; None where too few points are in front of the
        camera.

    """
    finite = np.flatnonzero(np.isfinite(points).all(axis=1))
    known, rays = np.asarray(points[finite], np.float64), seen.rays[finite]
    if len(known) < LEAST_POINTS:
        return None
    linearise = partial(_reprojected, known, rays)
    start, begun = world_from_camera, linearise(world_from_camera)
    if begun is None or np.mean(begun.norms <= INLIER) < ROBUST_START:
        other = _robust_start(known, rays)
        if other is not None:
            start, begun = other, linearise(other)
    if begun is None:
        return None
    depth = float(np.median((known[begun.used] - start[:3, 3]) @ start[:3, 2]))
    return refined(
        linearise, start, begun, depth, (seen.grid, seen.cells[finite]), Effort(INLIER, ITERATIONS)
    )


def register_depths(
    seen: PatchPoints,
    depth: NDArray[np.float32],
    intrinsics: Intrinsics,
    before_from_after: Matrix,
    *,
    rotate: bool = False,
) -> Registration | None:
    """Find the step between two frames that lays the surface of one on that of the other.

    Points of the earlier frame are compared with the later depth map where they project to,
    along the normal there, as shares of their depth.

    Args:
        seen: the earlier frame's points.
        depth: float32 [h, w] of the later frame, NaN where unknown.
        intrinsics: of the later frame.
        before_from_after: the start, [4, 4]: the later camera in the earlier one's frame.
        rotate: whether the rotation is estimated, too. Two depth maps determine it badly.

    Returns:
        The registration of ``before_from_after``; None where too little of both overlaps.

    """
    points = seen.points()
    linearise = partial(_plane_distances, points, depth, intrinsics)
    begun = linearise(before_from_after)
    if begun is None:
        return None
    free = (0, 1, 2, 3, 4, 5) if rotate else (0, 1, 2)
    median_depth = float(np.median(points[begun.used, 2]))
    return refined(
        linearise, before_from_after, begun, median_depth, (seen.grid, seen.cells),
        Effort(DEPTH_INLIER, DEPTH_ITERATIONS), free,
    )  # fmt: skip


def depth_differences(
    seen: PatchPoints,
    depth: NDArray[np.float32],
    intrinsics: Intrinsics,
    before_from_after: Matrix,
) -> Array:
    """Return how far two depth maps lie apart along the normals, as shares of depth, [n].

    Args as of :func:`register_depths`; none where too little of both overlaps.
    """
    found = _plane_distances(seen.points(), depth, intrinsics, before_from_after)
    return np.empty(0) if found is None else found.residuals[:, 0]


def refined(
    linearise: _Linearise,
    start: Matrix,
    begun: Linearised,
    depth: float,
    patches: tuple[tuple[int, int], NDArray[np.int64]],
    effort: Effort,
    free: tuple[int, ...] = (0, 1, 2, 3, 4, 5),
) -> Registration:
    """Minimise the robust cost by Gauss-Newton, as long as it falls; say what the pose rests on.

    Args:
        linearise: residuals at a pose.
        start: the first pose.
        begun: the residuals there.
        depth: the length that translations are counted in.
        patches: rows and columns of patches, and the patch of each point.
        effort: when it ends.
        free: components that are estimated.

    """
    pose, found, sigma = minimised(linearise, start, begun, depth, effort, free)
    weights = _robust_weights(found, sigma)
    values = np.linalg.eigvalsh(_normal_equations(found, weights, _unit(depth, free), free)[0])
    return Registration(
        pose=pose,
        grid=patches[0],
        cells=patches[1][found.used],
        jacobian=found.jacobian,
        residuals=found.residuals,
        weights=weights,
        depth=depth,
        inliers=float(np.mean(found.norms <= effort.inlier)),
        cost_fell=_cost(found, sigma) < _cost(begun, sigma),
        condition=float(max(values[0], 0.0) / values[-1]) if values[-1] > 0 else 0.0,
        free=free,
    )


def minimised(
    linearise: _Linearise,
    start: Matrix,
    begun: Linearised,
    depth: float,
    effort: Effort,
    free: tuple[int, ...] = (0, 1, 2, 3, 4, 5),
) -> tuple[Matrix, Linearised, float]:
    """Return the pose where the robust cost is least, the residuals there, and their deviation.

    Args as of :func:`refined`.
    """
    unit = _unit(depth, free)
    pose, found, sigma = start, begun, _sigma(begun)
    for _ in range(effort.iterations):
        step = _step(found, sigma, unit, free)
        trial = pose @ exp_se3(step)
        moved = linearise(trial)
        if moved is None or not _cost(moved, sigma) < _cost(found, sigma):
            break
        pose, found = trial, moved
        sigma = min(sigma, _sigma(found))
        if np.abs(step[list(free)] / unit).max() < effort.converged:
            break
    return pose, found, sigma


def _unit(depth: float, free: tuple[int, ...]) -> Array:
    """Return what the free components are counted in: a depth, and radians."""
    return np.array([depth] * 3 + [1.0] * 3)[list(free)]


def _reprojected(points: Array, rays: Array, world_from_camera: Matrix) -> Linearised | None:
    """Return reprojection errors of what lies ahead; None where that is less than half."""
    camera_from_world = invert(world_from_camera)
    x, y, z = camera_from_world[:3, :3] @ points.T + camera_from_world[:3, 3:]
    used = np.flatnonzero(z > 0)
    if len(used) < max(LEAST_POINTS, len(points) // 2):
        return None
    nearness = 1.0 / z[used]
    a, b = x[used] * nearness, y[used] * nearness
    residuals = np.column_stack([a, b]) - rays[used]
    jacobian = reprojection_jacobian(a, b, nearness)
    return Linearised(residuals, jacobian, used)


def reprojection_jacobian(a: Array, b: Array, nearness: Array) -> Array:
    """Return how rays move [n, 2, 6] where the camera's pose is disturbed on the right.

    Args:
        a: [n], x of each ray at depth 1.
        b: [n], y likewise.
        nearness: [n], inverse depths.

    """
    jacobian = np.zeros((len(a), 2, 6))
    jacobian[:, 0, 0] = jacobian[:, 1, 1] = -nearness
    jacobian[:, 0, 2], jacobian[:, 1, 2] = a * nearness, b * nearness
    jacobian[:, 0, 3] = a * b
    jacobian[:, 0, 4] = -(1 + a * a)
    jacobian[:, 0, 5] = b
    jacobian[:, 1, 3] = 1 + b * b
    jacobian[:, 1, 4] = -a * b
    jacobian[:, 1, 5] = -a
    return jacobian


def _plane_distances(
    points: Array, depth: NDArray[np.float32], intrinsics: Intrinsics, before_from_after: Matrix
) -> Linearised | None:
    """Return distances from a depth map's surface along its normals, as shares of depth."""
    after_from_before = invert(before_from_after)
    moved = points @ after_from_before[:3, :3].T + after_from_before[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = np.rint(intrinsics.fx * moved[:, 0] / moved[:, 2] + intrinsics.cx)
        rows = np.rint(intrinsics.fy * moved[:, 1] / moved[:, 2] + intrinsics.cy)
    height, width = depth.shape
    reach = NORMAL_REACH
    inside = (moved[:, 2] > 0) & (rows >= reach) & (rows < height - reach)
    inside &= (columns >= reach) & (columns < width - reach)
    used = np.flatnonzero(inside)
    if len(used) < LEAST_POINTS:
        return None
    row, column = rows[used].astype(np.intp), columns[used].astype(np.intp)
    moved = moved[used]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        surface = _surface(depth, intrinsics, row, column)
        across = _surface(depth, intrinsics, row, column + reach) - _surface(
            depth, intrinsics, row, column - reach
        )
        down = _surface(depth, intrinsics, row + reach, column) - _surface(
            depth, intrinsics, row - reach, column
        )
        normal = np.cross(across, down)
        normal /= np.linalg.norm(normal, axis=1)[:, None]
        residual = ((moved - surface) * normal).sum(axis=1) / surface[:, 2]
    # What is hidden in one of both, or lies on an edge, is no other view of the same surface.
    same = np.abs(residual) <= DEPTH_REACH
    used, moved, normal, residual = used[same], moved[same], normal[same], residual[same]
    if len(used) < LEAST_POINTS:
        return None
    nearness = 1.0 / surface[same, 2]
    jacobian = np.empty((len(used), 1, 6))
    jacobian[:, 0, :3] = -normal * nearness[:, None]
    jacobian[:, 0, 3:] = np.cross(normal, moved) * nearness[:, None]
    return Linearised(residual[:, None], jacobian, used)


def _surface(
    depth: NDArray[np.float32],
    intrinsics: Intrinsics,
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
) -> Array:
    """Return the points that a depth map has at pixels, float64 [n, 3]."""
    z = depth[rows, columns].astype(np.float64)
    x = (columns - intrinsics.cx) / intrinsics.fx * z
    y = (rows - intrinsics.cy) / intrinsics.fy * z
    return np.column_stack([x, y, z])


def _robust_start(points: Array, rays: Array) -> Matrix | None:
    """Return a pose from RANSAC, world from camera; None where it finds none."""
    found, turn, shift, _ = cv2.solvePnPRansac(
        points, np.ascontiguousarray(rays), np.eye(3), None,
        iterationsCount=100, reprojectionError=INLIER, flags=cv2.SOLVEPNP_AP3P,
    )  # fmt: skip
    if not found or not (np.isfinite(turn).all() and np.isfinite(shift).all()):
        return None
    camera_from_world = np.eye(4)
    camera_from_world[:3, :3] = cv2.Rodrigues(turn)[0]
    camera_from_world[:3, 3] = shift[:, 0]
    return invert(camera_from_world)


def _sigma(found: Linearised) -> float:
    """Return the standard deviation of a residual's component, by the median of all."""
    return max(median(found.norms) / _MEDIAN_OF_CHI[found.residuals.shape[1]], _SMALLEST_SIGMA)


def norms_of(residuals: Array) -> Array:
    """Return the lengths [n] of residuals [n, m]."""
    return np.asarray(np.sqrt(np.einsum("nm,nm->n", residuals, residuals)), np.float64)


def median(values: Array) -> float:
    """Return the median of values [n], at least one: of an even number, the greater middle one.

    On some hundred values numpy's takes ten times as long.
    """
    middle = len(values) // 2
    return float(np.partition(values, middle)[middle])


def _robust_weights(found: Linearised, sigma: float) -> Array:
    """Return Huber's weights [n], 0 beyond :data:`CUT`: many that agree on a lie would win."""
    bound = _bound(found) * sigma
    weights = bound / np.maximum(found.norms, bound)
    weights[found.norms > CUT * bound] = 0.0
    return np.asarray(weights, np.float64)


def _bound(found: Linearised) -> float:
    """Return up to how many standard deviations of a component a residual counts in full."""
    return float(HUBER * np.sqrt(found.residuals.shape[1]))


def _cost(found: Linearised, sigma: float) -> float:
    """Return the mean loss that the weights belong to, in variances."""
    bound = _bound(found)
    norms = np.minimum(found.norms / sigma, CUT * bound)
    loss = np.where(norms <= bound, 0.5 * norms * norms, bound * (norms - 0.5 * bound))
    return float(loss.mean())


def _normal_equations(
    found: Linearised, weights: Array, unit: Array, free: tuple[int, ...]
) -> tuple[Array, Array]:
    """Return J^T W J and J^T W r of the free components, lengths counted in ``unit``."""
    chosen = list(free)
    jacobian = found.jacobian.reshape(-1, 6)
    weighted = jacobian * np.repeat(weights, found.residuals.shape[1])[:, None]
    matrix = (weighted.T @ jacobian)[np.ix_(chosen, chosen)] * np.outer(unit, unit)
    return matrix, (weighted.T @ found.residuals.ravel())[chosen] * unit


def _step(found: Linearised, sigma: float, unit: Array, free: tuple[int, ...]) -> Tangent:
    """Return the Gauss-Newton step [6]; it leaves directions alone that nothing determines."""
    matrix, slope = _normal_equations(found, _robust_weights(found, sigma), unit, free)
    values, vectors = np.linalg.eigh(matrix)
    determined = values > LEAST_CONDITION * values[-1]
    known = vectors[:, determined]
    step = np.zeros(6)
    step[list(free)] = -unit * (known @ ((known.T @ slope) / values[determined]))
    return step
