# SPDX-License-Identifier: Apache-2.0
"""How good registered and fused poses are, how honest their covariances, and what they cost.

    python benchmarks/pose.py [--runs N]

Exact views of an empty room, whose points get made-up errors that hang together over the image
(``pose_views.py``). Times are the processor's, of one thread.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import thread_time

import numpy as np
from numpy.typing import NDArray
from pose_views import (
    Errors,
    camera,
    head_pose,
    point_map,
    random_pose,
    room_depth,
    room_image,
    walk,
)

from xsvggt_ros.geometry.image_alignment import aligned_image, register_images
from xsvggt_ros.geometry.pose_covariance import (
    ErrorSpectrum,
    PoseEstimate,
    VarianceFactors,
    compose_covariance,
    fuse,
)
from xsvggt_ros.geometry.registration import (
    points_by_patch,
    register_depths,
    register_points,
)
from xsvggt_ros.geometry.rigid import Matrix, exp_se3, invert, log_se3
from xsvggt_ros.geometry.step_covariance import ImageErrors

Array = NDArray[np.float64]

CELLS = (
    Errors(0.0, 0.002),
    Errors(1.0, 0.002),
    Errors(2.0, 0.002),
    Errors(4.0, 0.002),
    Errors(4.0, 0.01),
)
EXPECTED = ((2.0, 0.03), (6.5, 0.10), (12.0, 0.19), (20.0, 0.31), (98.0, 1.5))
"""Millimetres and degrees of a registration in each cell."""
HEAD_COVARIANCE = np.diag([0.01**2] * 3 + [np.radians(0.1) ** 2] * 3)
"""Before its factors are known."""
WARM_UP = 10
COVERED = 12.59
"""95 % quantile of chi2 with 6 components."""


def inverse(matrix: NDArray[np.floating]) -> Array:
    """Return the inverse of a covariance, or of an information."""
    return np.asarray(np.linalg.inv(matrix), np.float64)


@dataclass(frozen=True, slots=True)
class View:
    """What is known of one frame, and what is true."""

    truth: Matrix
    head: Matrix
    registered: PoseEstimate
    accepted: bool


@dataclass
class Spread:
    """Errors of one kind of pose, and what their covariances promise of them."""

    errors: list[Array] = field(default_factory=list)
    squares: list[float] = field(default_factory=list)

    def note(self, truth: Matrix, pose: Matrix, information: Array | None = None) -> Array:
        """Take in a pose; return its error."""
        error = log_se3(invert(truth) @ pose)
        self.errors.append(error)
        if information is not None:
            self.squares.append(float(error @ information @ error))
        return error

    @property
    def way(self) -> float:
        """Millimetres, root mean square."""
        return 1e3 * float(np.sqrt(np.mean(np.square(self.errors)[:, :3].sum(axis=1))))

    @property
    def turn(self) -> float:
        """Degrees, root mean square."""
        return float(np.degrees(np.sqrt(np.mean(np.square(self.errors)[:, 3:].sum(axis=1)))))

    @property
    def nees(self) -> float:
        """Mean normalised squared error of a component; 1 is right."""
        return float(np.mean(self.squares)) / 6

    @property
    def coverage(self) -> float:
        """Share of errors within the 95 % region."""
        return float(np.mean(np.array(self.squares) <= COVERED))


def views(seed: int, errors: Errors, frames: int, *, unit: float = 1.0, moving: bool = True,
          bias: Array | None = None) -> Iterator[View]:  # fmt: skip
    """Yield frames of one run, each registered.

    Args:
        seed: of the run.
        errors: what the made-up network gets wrong.
        frames: how many.
        unit: lengths that the network gives for a metre.
        moving: whether the camera walks; else it is somewhere else in each frame.
        bias: disturbance [6] of every registered pose, which no covariance can know of.

    """
    random = np.random.default_rng(seed)
    spectrum, seen_by = ErrorSpectrum(), camera()
    poses = walk(random, frames + WARM_UP)
    for index, walked in enumerate(poses):
        truth = walked if moving else random_pose(random)
        depth = room_depth(truth, seen_by)
        head = head_pose(random, truth, errors)
        points = point_map(random, truth, depth, seen_by, errors)
        seen = points_by_patch(depth, np.ones_like(depth), seen_by, 1)
        start = in_unit(head, unit)
        registration = register_points(unit * points.reshape(-1, 3), seen, start)
        assert registration is not None
        accepted = not registration.objection(start)
        estimate = spectrum.estimate(registration)
        if bias is not None:
            estimate = PoseEstimate(estimate.pose @ exp_se3(bias), estimate.information)
        if index >= WARM_UP:
            yield View(in_unit(truth, unit), start, estimate, accepted)


def registered_anywhere(errors: Errors, runs: int, frames: int = 20) -> Spread:
    """Return the errors of registrations alone, of cameras all over the room."""
    spread = Spread()
    for seed in range(runs):
        for view in views(seed, errors, frames, moving=False):
            spread.note(view.truth, view.registered.pose, view.registered.information)
    return spread


def in_unit(pose: Matrix, unit: float) -> Matrix:
    """Return a pose whose lengths are counted in another unit."""
    scaled: Matrix = pose.copy()
    scaled[:3, 3] *= unit
    return scaled


def learn_factors(errors: Errors, runs: int = 5, frames: int = 40) -> tuple[VarianceFactors, ...]:
    """Return the factors of head and registration from runs of their own."""
    head, registered = VarianceFactors(), VarianceFactors()
    for seed in range(runs):
        for view in views(10_000 + seed, errors, frames, moving=False):
            head.note(log_se3(invert(view.truth) @ view.head), HEAD_COVARIANCE)
            error = log_se3(invert(view.truth) @ view.registered.pose)
            registered.note(error, inverse(view.registered.information))
    return head, registered


def with_factors(estimate: PoseEstimate, factors: VarianceFactors) -> PoseEstimate:
    """Return an estimate whose covariance is multiplied by factors."""
    covariance = factors.applied(inverse(estimate.information))
    return PoseEstimate(estimate.pose, inverse(covariance))


@dataclass
class Cell:
    """What one kind of errors leads to."""

    head: Spread = field(default_factory=Spread)
    registered: Spread = field(default_factory=Spread)
    fused: Spread = field(default_factory=Spread)
    steps: Spread = field(default_factory=Spread)

    @property
    def ratios(self) -> tuple[float, float]:
        """Fused error over that of the better input, of translation and of rotation."""
        return (
            self.fused.way / min(self.head.way, self.registered.way),
            self.fused.turn / min(self.head.turn, self.registered.turn),
        )


def run_cell(errors: Errors, runs: int, frames: int = 15) -> Cell:
    """Fuse head and registration over ``runs`` walks."""
    of_head, of_registered = learn_factors(errors)
    cell = Cell()
    for seed in range(runs):
        before: tuple[Matrix, PoseEstimate] | None = None
        for view in views(seed, errors, frames):
            head = with_factors(PoseEstimate(view.head, inverse(HEAD_COVARIANCE)), of_head)
            registered = with_factors(view.registered, of_registered)
            fused = fuse(head, *([registered] if view.accepted else []))
            cell.head.note(view.truth, head.pose, head.information)
            cell.registered.note(view.truth, registered.pose, registered.information)
            cell.fused.note(view.truth, fused.pose, fused.information)
            if before is not None:
                step = invert(before[1].pose) @ fused.pose
                covariance = compose_covariance(
                    inverse(before[1].information), step, inverse(fused.information)
                )
                cell.steps.note(invert(before[0]) @ view.truth, step, inverse(covariance))
            before = view.truth, fused
    return cell


def milliseconds(action: Callable[[], object], repetitions: int = 50) -> float:
    """Return the processor's time of an action, once it has run a few times."""
    for _ in range(5):
        action()
    started = thread_time()
    for _ in range(repetitions):
        action()
    return 1e3 * (thread_time() - started) / repetitions


def costs() -> dict[str, float]:
    """Return milliseconds of each part, of images of 518 x 392 pixels."""
    random, errors, seen_by = np.random.default_rng(0), CELLS[1], camera(14)
    first, second = walk(random, 2)
    depth, after = (room_depth(pose, seen_by) for pose in (first, second))
    confidence = random.random(depth.shape).astype(np.float32)
    head, step = head_pose(random, first, errors), invert(first) @ head_pose(random, second, errors)
    seen = points_by_patch(depth, confidence, seen_by, 14)
    points = point_map(random, first, depth, seen_by, errors)[tuple(seen.pixels.T)]
    registration = register_points(points, seen, head)
    assert registration is not None
    images = [
        aligned_image(room_image(pose, seen_by), each, seen_by)
        for pose, each in ((first, depth), (second, after))
    ]
    by_images = register_images(images[0], images[1], step)
    assert by_images is not None
    spectrum, errors_of_images = ErrorSpectrum(), ImageErrors()
    color = room_image(first, seen_by)
    return {
        "choosing points": milliseconds(lambda: points_by_patch(depth, confidence, seen_by, 14)),
        "registration by points": milliseconds(lambda: register_points(points, seen, head)),
        "registration by depth": milliseconds(lambda: register_depths(seen, after, seen_by, step)),
        "covariance": milliseconds(lambda: spectrum.estimate(registration)),
        "preparing an image": milliseconds(lambda: aligned_image(color, depth, seen_by)),
        "registration by images": milliseconds(lambda: register_images(images[0], images[1], step)),
        "its covariance": milliseconds(lambda: errors_of_images.estimate(by_images)),
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=30)
    runs = parser.parse_args().runs
    print("| length | across | registered | expected | NEES/6 | on a walk: head | registered | "
          "fused | fused / better | NEES/6 | of steps | coverage |")  # fmt: skip
    print("|---" * 12 + "|")
    for errors, (way, turn) in zip(CELLS, EXPECTED, strict=True):
        alone = registered_anywhere(errors, max(1, runs // 3))
        cell = run_cell(errors, runs)
        places = " | ".join(
            f"{each.way:.1f} mm, {each.turn:.3f}°"
            for each in (cell.head, cell.registered, cell.fused)
        )
        print(
            f"| {errors.length:g} | {errors.across:.1%} | {alone.way:.1f} mm, {alone.turn:.3f}° | "
            f"{way} mm, {turn}° | {alone.nees:.2f} | {places} | "
            f"{cell.ratios[0]:.2f}, {cell.ratios[1]:.2f} | {cell.fused.nees:.2f} | "
            f"{cell.steps.nees:.2f} | {cell.steps.coverage:.1%} |",
            flush=True,
        )
    for name, cost in costs().items():
        print(f"{name}: {cost:.2f} ms")


if __name__ == "__main__":
    main()
