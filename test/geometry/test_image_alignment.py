# SPDX-License-Identifier: Apache-2.0
"""Steps measured on images: how exact, how honest, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pose_benchmark import pose_views as pv
from results import result_with

from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.image_alignment import AlignedImage, aligned_image, register_images
from xsvggt_ros.geometry.pose_covariance import PoseEstimate
from xsvggt_ros.geometry.registration import Registration
from xsvggt_ros.geometry.rigid import Matrix, exp_se3, invert, log_se3
from xsvggt_ros.geometry.step_covariance import USUAL, ImageErrors
from xsvggt_ros.stream.odometry import VisualOdometry

CAMERA = pv.camera(4)
COVERED = 12.59
"""95 % quantile of chi2 with 6 components."""


def view(pose: Matrix, *, unit: float = 1.0, **light: float) -> AlignedImage:
    depth = (unit * pv.room_depth(pose, CAMERA)).astype(np.float32)
    return aligned_image(pv.room_image(pose, CAMERA, **light), depth, CAMERA)


def pair(seed: int) -> tuple[Matrix, Matrix, Matrix]:
    """Return two poses in a row and the step between them."""
    first, second = pv.walk(np.random.default_rng(seed), 2)
    return first, second, invert(first) @ second


def error_of(found: Registration | None, step: Matrix) -> tuple[float, float]:
    """Return how far a step is off, in metres and degrees."""
    assert found is not None
    error = log_se3(invert(step) @ found.pose)
    return float(np.linalg.norm(error[:3])), float(np.degrees(np.linalg.norm(error[3:])))


def squared_error(estimate: PoseEstimate, step: Matrix) -> float:
    """Return the squared error of a step by what its information says."""
    error = log_se3(invert(step) @ estimate.pose)
    return float(error @ estimate.information @ error)


@pytest.mark.parametrize("degrees", [0.5, 2.0, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_exact_depth_gives_the_exact_step_however_wrong_the_network_is(
    degrees: float, seed: int
) -> None:
    first, second, step = pair(seed)
    random = np.random.default_rng(seed)
    turn = random.standard_normal(3)
    start = step @ exp_se3(
        np.concatenate([0.02 * random.standard_normal(3), np.radians(degrees) * turn / 3**0.5])
    )
    way, angle = error_of(register_images(view(first), view(second), start), step)
    assert way < 0.003
    assert angle < 0.03


def test_units_are_of_no_consequence() -> None:
    first, second, step = pair(1)
    one = register_images(view(first), view(second), step)
    assert one is not None
    wide = step.copy()
    wide[:3, 3] *= 10.0
    other = register_images(view(first, unit=10.0), view(second, unit=10.0), wide)
    assert other is not None
    estimates = [ImageErrors().estimate(each) for each in (one, other)]
    np.testing.assert_allclose(other.pose[:3, :3], one.pose[:3, :3], atol=1e-7)
    np.testing.assert_allclose(other.pose[:3, 3], 10 * one.pose[:3, 3], atol=1e-6)
    units = np.outer([10.0] * 3 + [1.0] * 3, [10.0] * 3 + [1.0] * 3)
    np.testing.assert_allclose(
        estimates[1].information * units, estimates[0].information, rtol=1e-3
    )


@pytest.mark.parametrize("light", [{"gain": 1.25}, {"gain": 0.8, "offset": 12.0}])
def test_another_exposure_is_not_taken_for_motion(light: dict[str, float]) -> None:
    first, second, step = pair(2)
    start = step @ exp_se3(np.array([0.01, 0.0, -0.01, 0.005, 0.005, 0.0]))
    way, angle = error_of(register_images(view(first), view(second, **light), start), step)
    assert way < 0.01
    assert angle < 0.1


def test_a_better_beginning_is_found() -> None:
    """The network may be off by more than images can mend: the step before is tried as well."""
    first, second, step = pair(3)
    lost = step @ exp_se3(np.array([0.3, 0.0, 0.2, 0.0, 0.5, 0.0]))
    before, after = view(first), view(second)
    way, angle = error_of(register_images(before, after, lost, np.eye(4)), step)
    assert way < 0.003
    assert angle < 0.03


@pytest.mark.parametrize("height", [42, 56, 84])
@pytest.mark.parametrize("width", [56, 112])
def test_images_of_two_sizes_tell_nothing_and_break_nothing(width: int, height: int) -> None:
    def of_size(width: int, height: int) -> AlignedImage:
        intrinsics = Intrinsics(50.0, 50.0, width / 2, height / 2, width, height)
        color = np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)
        return aligned_image(color, np.ones((height, width), np.float32), intrinsics)

    one, other = of_size(56, 42), of_size(width, height)
    for first, second in ((one, other), (other, one)):
        found = register_images(first, second, np.eye(4))
        assert found is None or (width, height) == (56, 42)


def test_what_shows_nothing_tells_nothing() -> None:
    first, second, step = pair(0)
    depth = pv.room_depth(first, CAMERA)
    black = aligned_image(np.zeros((*depth.shape, 3), np.uint8), depth, CAMERA)
    assert register_images(black, black, step) is None
    blind = aligned_image(pv.room_image(first, CAMERA), np.full_like(depth, np.nan), CAMERA)
    assert register_images(blind, view(second), step) is None
    apart = exp_se3(np.array([0, 0, 0, 0, np.pi, 0]))
    assert register_images(view(first), view(second), apart) is None


@pytest.mark.parametrize("ramp", [0.0, 60.0])
@pytest.mark.parametrize("level", [2.5, 8.0])
def test_the_noise_of_a_blank_wall_promises_nothing(level: float, ramp: float) -> None:
    """Noise has slopes as well, in whichever direction the wall itself shows none."""
    random, squares = np.random.default_rng(0), []
    pose, step = pv.random_pose(random), np.eye(4)
    depth = pv.room_depth(pose, CAMERA)
    light = 128 + np.linspace(-ramp, ramp, CAMERA.width)[None, :, None]
    for _ in range(20):
        before, after = (
            aligned_image(
                (light + level * random.standard_normal((*depth.shape, 3))).astype(np.uint8),
                depth,
                CAMERA,
            )
            for _ in range(2)
        )
        start = step @ exp_se3(0.01 * random.standard_normal(6))
        found = register_images(before, after, start)
        if found is not None:
            squares.append(squared_error(ImageErrors().estimate(found), step))
    assert np.mean(squares or [0.0]) / 6 < 2.0


WALL = Intrinsics(90.0, 90.0, 64.0, 48.0, 128, 96)
"""A wide lens before a plain wall."""


def dark_corners(level: float, random: np.random.Generator, shift: float = 0.0) -> AlignedImage:
    """Return a plain wall at two metres through a lens that darkens corners to a third.

    Args:
        level: noise of brightness, in its whole numbers.
        random: for the noise.
        shift: of the lens from the middle, pixels.

    """
    row, column = np.mgrid[: WALL.height, : WALL.width]
    squared = ((column - 63.5 - shift) ** 2 + (row - 47.5 + shift) ** 2) / 90.0**2
    light = 170.0 / (1.0 + squared) ** 2  # cosine to the fourth power
    noise = level * random.standard_normal((WALL.height, WALL.width, 3))
    color = (light[:, :, None] + noise).clip(0, 255).astype(np.uint8)
    return aligned_image(color, np.full(light.shape, 2.0, np.float32), WALL)


@pytest.mark.parametrize(
    ("level", "shift"), [(0.0, 0.0), *((n, s) for n in (0.5, 1.0, 4.0) for s in (0.0, 6.0))]
)
def test_dark_corners_are_fixed_to_the_lens_and_no_sign_of_rest(level: float, shift: float) -> None:
    """Before a plain wall, only they are the same in both images, wherever the camera goes."""
    random = np.random.default_rng(0)
    squares: list[float] = []
    for _ in range(20):
        step = exp_se3(random.normal(0, 1, 6) * ([0.05] * 3 + [0.03] * 3))
        before, after = (dark_corners(level, random, shift) for _ in range(2))
        start = step @ exp_se3(0.002 * random.standard_normal(6))
        found = register_images(before, after, start, np.eye(4))
        if found is None:
            continue
        squares.append(squared_error(ImageErrors().estimate(found), step) / 6)
    assert sum(squares) / max(len(squares), 1) < 2.0


def evenly_coloured(
    pose: Matrix, rises: list[tuple[float, float]], noise: float, random: np.random.Generator
) -> AlignedImage:
    """Return a wall at z = 2 whose brightness rises evenly, seen from about the origin.

    Args:
        pose: of the camera, [4, 4].
        rises: of red, green and blue, to the right and downwards, whole numbers of brightness per
            pixel.
        noise: of brightness, in its whole numbers.
        random: for the noise.

    """
    row, column = np.mgrid[: WALL.height, : WALL.width]
    rays = np.stack(
        [(column - WALL.cx) / 90.0, (row - WALL.cy) / 90.0, np.ones(row.shape)], axis=-1
    )
    turned = rays @ pose[:3, :3].T
    depth = (2.0 - pose[2, 3]) / turned[..., 2]
    x, y, _ = np.moveaxis(pose[:3, 3] + depth[..., None] * turned, -1, 0) * 45.0
    light = 128.0 + np.stack([right * x + down * y for right, down in rises], axis=-1)
    color = np.rint(light + noise * random.standard_normal(light.shape)).clip(0, 255)
    return aligned_image(color.astype(np.uint8), depth.astype(np.float32), WALL)


def error_before(rises: list[tuple[float, float]], noise: float, steps: int = 25) -> float:
    """Return the mean squared error of steps before such a wall by what they say, over 6."""
    random, squares = np.random.default_rng(0), []
    for _ in range(steps):
        first, second = (
            exp_se3(random.normal(0, 1, 6) * ([0.003] * 3 + [0.01] * 3)) for _ in range(2)
        )
        step = invert(first) @ second
        before, after = (evenly_coloured(each, rises, noise, random) for each in (first, second))
        start = step @ exp_se3(random.normal(0, 1, 6) * ([0.006] * 3 + [0.003] * 3))
        found = register_images(before, after, start)
        if found is not None:
            squares.append(squared_error(ImageErrors().estimate(found), step) / 6)
    assert squares
    return float(np.mean(squares))


@pytest.mark.parametrize("noise", [0.0, 0.15, 1.0])
@pytest.mark.parametrize("rise", [0.05, 0.5, 0.85, 1.0])
def test_bands_of_whole_numbers_on_an_even_pattern_are_not_trusted(
    rise: float, noise: float
) -> None:
    """Without noise, as a simulator renders, they make waves that move otherwise than the wall."""
    assert error_before([(0.44, 0.0), (0.0, 0.0), (0.0, rise)], noise) < 2.0


@pytest.mark.parametrize("noise", [0.0, 0.15, 1.0])
@pytest.mark.parametrize(
    ("rise", "tint"),
    [
        ((0.05, 0.02), (1.0, 1.0, 1.0)),
        ((0.1, 0.05), (1.0, 1.0, 1.0)),
        ((0.1, 0.9), (1.0, 1.0, 1.0)),
        ((0.44, 0.85), (1.0, 1.0, 1.0)),
        ((0.05, 0.02), (1.0, 0.8, 0.6)),
        ((0.1, 0.05), (1.0, 0.8, 0.6)),
        ((0.05, 0.02), (1.0, -1.0, 1.0)),
        ((0.1, 0.9), (1.0, -1.0, 1.0)),
    ],
)
def test_bands_that_colours_share_are_not_trusted(
    rise: tuple[float, float], tint: tuple[float, float, float], noise: float
) -> None:
    """The channels of a grey image have the same error, those of a tinted one nearly the same.

    That they agree says nothing, nor does it where one falls as another rises.
    """
    assert error_before([(share * rise[0], share * rise[1]) for share in tint], noise, 50) < 3.0


@pytest.mark.parametrize("noise", [0.0, 0.15, 0.3, 0.5, 1.0, 4.0])
@pytest.mark.parametrize(
    "rise",
    [(0.02, 0.05), (0.1, 0.9), (0.5, 0.5), (0.5, 1.0), (0.33, 0.34), (0.25, 0.5), (0.2, 0.4)],
)
def test_rounded_brightness_is_not_taken_for_noise(rise: tuple[float, float], noise: float) -> None:
    """Where it rises by half a level a pixel, say, its error changes from pixel to pixel."""
    image = evenly_coloured(np.eye(4), [rise] * 3, noise, np.random.default_rng(0))
    assert image.noise <= 1.05 * noise**2
    if noise >= 0.5:
        assert image.noise >= 0.85 * noise**2


@pytest.mark.parametrize(
    ("width", "height"), [(1000, 1), (1, 1000), (2000, 3), (24, 24), (131, 97)]
)
def test_images_of_any_shape_are_prepared(width: int, height: int) -> None:
    camera = Intrinsics(90.0, 90.0, width / 2, height / 2, width, height)
    random = np.random.default_rng(0)
    color = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = aligned_image(color, np.full((height, width), 2.0, np.float32), camera)
    assert image.size[0] == min(width, 128)
    found = register_images(image, image, np.eye(4))
    assert found is None or np.isfinite(ImageErrors().estimate(found).information).all()


def test_an_image_too_small_to_tell_its_noise_counts_as_clean() -> None:
    camera = replace(WALL, width=2, height=2)
    image = aligned_image(np.zeros((2, 2, 3), np.uint8), np.ones((2, 2), np.float32), camera)
    assert image.noise == 0.0


@pytest.mark.parametrize("darker", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("bright", [20.0, 100.0, 224.0, 254.0])
def test_a_lens_that_hardly_darkens_is_told_from_the_wall_however_bright(
    bright: float, darker: float
) -> None:
    """What it darkens is less than float32 resolves beside the brightness of all pixels."""
    row, column = np.mgrid[: WALL.height, : WALL.width]
    squared = ((column - 63.5) ** 2 + (row - 47.5) ** 2) / 64.0**2
    color = np.rint((bright - darker * squared)[:, :, None] * np.ones(3)).astype(np.uint8)
    image = aligned_image(color, np.full(squared.shape, 2.0, np.float32), WALL)
    found = register_images(image, image, np.eye(4))
    assert found is not None
    covariance = np.linalg.inv(ImageErrors().estimate(found).information)
    assert np.sqrt(np.diag(covariance))[:2].min() > 1.0  # metres: nothing is known of it


def test_what_may_be_a_lens_is_little_of_what_a_room_tells() -> None:
    for seed in range(5):
        first, second, step = pair(seed)
        found = register_images(view(first), view(second), step)
        assert found is not None
        jacobian = found.jacobian
        weighted = jacobian * found.weights[:, None, None]
        normal = np.tensordot(weighted, jacobian, ((0, 1), (0, 1)))
        shares = np.linalg.eigvals(np.linalg.solve(normal, found.noise)).real
        assert shares.max() < 0.5
        assert shares.mean() < 0.15


def test_before_a_plain_wall_odometry_goes_by_the_network_and_not_by_the_lens() -> None:
    random, odometry = np.random.default_rng(0), VisualOdometry(4)
    step = exp_se3(np.array([0.05, 0.0, 0.0, 0.0, 0.01, 0.0]))
    truth, squares = np.eye(4), []
    row, column = np.mgrid[: WALL.height, : WALL.width]
    light = 170.0 / (1.0 + ((column - 63.5) ** 2 + (row - 47.5) ** 2) / 90.0**2) ** 2
    for index in range(60):
        noise = random.standard_normal((*light.shape, 3))
        seen = truth @ exp_se3(random.normal(0, 1, 6) * ([0.005] * 3 + [0.002] * 3))
        motion = odometry.follow(
            result_with(
                np.full(light.shape, 2.0, np.float32), index=index, stamp=index * 10**9,
                camera_to_world=seen, intrinsics=WALL, intrinsics_source="calibrated",
                color=(light[:, :, None] + noise).clip(0, 255).astype(np.uint8),
            )
        ).motion  # fmt: skip
        assert motion is not None
        if index:
            error = log_se3(invert(step) @ motion.step)
            squares.append(error @ np.linalg.solve(motion.step_covariance, error) / 6)
        truth = truth @ step
    assert motion is not None
    went = np.linalg.norm(motion.odom_from_camera[:3, 3])
    assert went == pytest.approx(np.linalg.norm((truth @ invert(step))[:3, 3]), rel=0.2)
    assert np.mean(squares) < 2.0


@given(st.integers(0, 2**31))
def test_nothing_that_comes_out_of_a_camera_breaks_it(seed: int) -> None:
    random = np.random.default_rng(seed)
    size = int(random.integers(4, 60)), int(random.integers(4, 200))
    images: list[AlignedImage] = []
    for _ in range(2):
        depth = np.exp(random.normal(0, random.choice([0.0, 0.1, 10.0]), size)).astype(np.float32)
        depth[random.random(size) < random.choice([0.0, 0.5, 1.0])] = np.nan
        color = random.integers(0, 256, (*size, 3), np.uint8)
        images.append(aligned_image(color, depth, CAMERA))
    step = exp_se3(random.normal(0, random.choice([0.0, 0.1, 3.0]), 6))
    found = register_images(images[0], images[1], step)
    if found is not None:
        information = ImageErrors().estimate(found).information
        assert np.isfinite(found.pose).all()
        assert np.isfinite(information).all()
        assert np.all(np.linalg.eigvalsh(information) > 0)


def walked(
    seed: int, scale: float, share: float, bias: NDArray[np.float64]
) -> list[tuple[PoseEstimate, Matrix]]:
    """Return estimated steps of a walk with wrong depth, and the true ones.

    Args:
        seed: of the walk.
        scale: error of all depths of a frame, as a share.
        share: error of depth beside that, alike over four patches.
        bias: of every step, [6].

    """
    random = np.random.default_rng(seed)
    errors, found_and_true = ImageErrors(), []
    before: tuple[Matrix, AlignedImage] | None = None
    for pose in pv.walk(random, 25):
        wrong = scale * random.standard_normal() + share * pv.noise(random, 4.0, 4)
        depth = pv.room_depth(pose, CAMERA) * (1 + wrong)
        color = pv.room_image(pose, CAMERA) + random.standard_normal((*depth.shape, 3))
        image = aligned_image(color.clip(0, 255).astype(np.uint8), depth.astype(np.float32), CAMERA)
        if before is not None:
            step = invert(before[0]) @ pose
            start = step @ exp_se3(0.005 * random.standard_normal(6))
            found = register_images(before[1], image, start)
            assert found is not None
            estimate = errors.estimate(found)
            biased = replace(estimate, pose=estimate.pose @ exp_se3(bias))
            found_and_true.append((biased, step))
        before = pose, image
    return found_and_true[5:]


def test_steps_are_as_wrong_as_is_said() -> None:
    steps = [each for seed in range(6) for each in walked(seed, 0.06, 0.05, np.zeros(6))]
    squares = np.array([squared_error(*each) for each in steps])
    assert 0.7 <= squares.mean() / 6 <= 1.5
    assert 0.9 <= np.mean(squares <= COVERED) <= 0.98


def test_no_direction_is_worse_than_is_said() -> None:
    """A depth error that is wide looks like a step sideways and a turn, more than a narrow one."""
    sigmas = []
    for found, step in [
        each for seed in range(6) for each in walked(seed, 0.07, 0.05, np.zeros(6))
    ]:
        covariance = np.linalg.inv(found.information)
        sigmas.append(log_se3(invert(step) @ found.pose) / np.sqrt(np.diag(covariance)))
    assert (np.mean(np.square(sigmas), axis=0) < 2.0).all()


def test_a_bias_is_found_out() -> None:
    bias = np.array([0.01, 0.0, 0.01, 0.0, 0.003, 0.0])
    steps = [each for seed in range(3) for each in walked(seed, 0.06, 0.05, bias)]
    assert np.mean([squared_error(*each) for each in steps]) / 6 > 2.0


def test_how_wrong_depth_is_shows_in_the_images() -> None:
    shown = []
    for share in (0.0, 0.03, 0.08):
        random, errors = np.random.default_rng(0), ImageErrors()
        assert errors.depth_error == USUAL
        images = []
        for pose in pv.walk(random, 12):
            depth = pv.room_depth(pose, CAMERA) * (1 + share * pv.noise(random, 4.0, 4))
            images.append(
                (pose, aligned_image(pv.room_image(pose, CAMERA), depth.astype(np.float32), CAMERA))
            )
        for (first, before), (second, after) in pairwise(images):
            found = register_images(before, after, invert(first) @ second)
            assert found is not None
            errors.estimate(found)
        shown.append(errors.depth_error)
    assert shown[0] < shown[1]  # what is left is rounded brightness
    assert 0.3 * 0.03 <= shown[1] <= 0.05
    assert shown[2] > 1.8 * shown[1]


def test_a_depth_map_that_is_worse_than_usual_makes_its_step_less_certain() -> None:
    random, errors = np.random.default_rng(0), ImageErrors()
    poses = pv.walk(random, 30)
    sigmas: list[float] = []
    before: AlignedImage | None = None
    for index, pose in enumerate(poses):
        share = 0.2 if index == 20 else 0.02
        depth = pv.room_depth(pose, CAMERA) * (1 + share * pv.noise(random, 4.0, 4))
        image = aligned_image(pv.room_image(pose, CAMERA), depth.astype(np.float32), CAMERA)
        if before is not None:
            found = register_images(before, image, invert(poses[index - 1]) @ pose)
            assert found is not None
            information = errors.estimate(found).information
            sigmas.append(float(np.sqrt(np.trace(np.linalg.inv(information)[:3, :3]))))
        before = image
    # The image after it is aligned by it.
    assert sigmas[20] > 1.7 * np.median(sigmas)
    assert max(sigmas[21:]) < 1.4 * np.median(sigmas)
