# SPDX-License-Identifier: Apache-2.0
"""Lens models undone: a straight world comes out straight, with the intrinsics that are told."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from present import present
from selection import examples

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.geometry.cameras import Calibration, is_rectified_topic, without_distortion
from xsvggt_ros.geometry.rectification import rectification
from xsvggt_ros.stream.processing import Calibrator

WIDTH, HEIGHT = 320, 240
K = (250.0, 0.0, 158.0, 0.0, 255.0, 122.0, 0.0, 0.0, 1.0)
P = (200.0, 0.0, 160.0, 0.0, 0.0, 200.0, 120.0, 0.0, 0.0, 0.0, 1.0, 0.0)
UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
LENSES = {
    "plumb_bob": (-0.25, 0.08, 0.001, -0.002, 0.0),
    "rational_polynomial": (0.5, -0.3, 0.001, 0.0005, 0.01, 0.7, -0.2, 0.01),
    "equidistant": (-0.02, 0.01, -0.003, 0.0005),
}


def camera(model: str = "plumb_bob", **changes: Any) -> Calibration:
    values = {"d": LENSES[model], "k": K, "r": UPRIGHT, "p": P} | changes
    return Calibration(WIDTH, HEIGHT, model, **values)


def through_the_lens(rays: NDArray[np.float64], model: str) -> NDArray[np.float64]:
    """Return the pixels of rays (z = 1) by the textbook, without OpenCV."""
    x, y = rays[..., 0], rays[..., 1]
    d = LENSES[model]
    r = np.hypot(x, y)
    if model == "equidistant":
        theta = np.arctan(r)
        bent = theta * (1 + sum(k * theta ** (2 * i + 2) for i, k in enumerate(d)))
        ratio = np.where(r > 0, bent / np.maximum(r, 1e-12), 1.0)
        u, v = x * ratio, y * ratio
    else:
        k1, k2, p1, p2, k3, k4, k5, k6 = (*d, 0.0, 0.0, 0.0)[:8]
        q = r * r
        ratio = (1 + k1 * q + k2 * q**2 + k3 * q**3) / (1 + k4 * q + k5 * q**2 + k6 * q**3)
        u = x * ratio + 2 * p1 * x * y + p2 * (q + 2 * x * x)
        v = y * ratio + p1 * (q + 2 * y * y) + 2 * p2 * x * y
    return np.stack([K[0] * u + K[2], K[4] * v + K[5]], axis=-1)


def pattern(x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return a smooth world at infinity over rays, uint8 RGB."""
    waves = [np.sin(9 * x + 2), np.sin(11 * y), np.sin(7 * (x + y))]
    return np.rint(127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def photograph(model: str) -> NDArray[np.uint8]:
    """Return what the camera sees of :func:`pattern`, by inverting the lens point by point."""
    fx, fy, cx, cy = K[0], K[4], K[2], K[5]
    u, v = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    pixels = np.stack([u, v], axis=-1).astype(float)
    rays = np.stack([(u - cx) / fx, (v - cy) / fy], axis=-1)
    for _ in range(60):
        error = (through_the_lens(rays, model) - pixels) / [fx, fy]
        rays = rays - 0.7 * error
    assert np.abs(through_the_lens(rays, model) - pixels).max() < 1e-3
    return pattern(rays[..., 0], rays[..., 1])


@pytest.mark.parametrize("model", LENSES)
@pytest.mark.parametrize("given", ["p", "nothing"])
def test_a_rectified_image_is_that_of_a_pinhole_camera(model: str, given: str) -> None:
    calibration = camera(model) if given == "p" else camera(model, p=(0.0,) * 12)
    found = rectification(calibration, WIDTH, HEIGHT)
    rectified = found.rectify(photograph(model)).astype(int)
    lens = found.intrinsics
    if given == "p":
        assert (lens.fx, lens.fy, lens.cx, lens.cy) == (200.0, 200.0, 160.0, 120.0)
    u, v = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    expected = pattern((u - lens.cx) / lens.fx, (v - lens.cy) / lens.fy)
    seen = np.ones((HEIGHT, WIDTH), bool) if found.seen is None else found.seen
    assert seen.mean() > 0.6 if given == "p" else seen.all()
    inner = cv2.erode(seen.astype(np.uint8), np.ones((3, 3))).astype(bool)
    assert np.abs(rectified - expected)[inner].max() <= 4
    outside = ~cv2.dilate(seen.astype(np.uint8), np.ones((3, 3))).astype(bool)
    assert np.count_nonzero(rectified[outside]) < 0.01 * rectified.size


def test_maps_are_not_made_where_nothing_is_bent() -> None:
    found = rectification(camera(d=(0.0,) * 5), WIDTH, HEIGHT)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    assert found.rectify(image) is image
    assert (found.intrinsics.fx, found.intrinsics.cy) == (250.0, 122.0)


def test_rectified_images_keep_their_pixels_and_have_the_camera_of_p() -> None:
    found = rectification(camera(rectified=True), WIDTH, HEIGHT)
    assert found.maps is None
    assert (found.intrinsics.fx, found.intrinsics.cx) == (200.0, 160.0)
    told = rectification(without_distortion(camera(rectified=True)), WIDTH, HEIGHT)
    assert told.intrinsics == found.intrinsics


def test_a_stereo_camera_is_turned_into_its_pair() -> None:
    angle = np.radians(5)
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    calibration = camera(d=(0.0,) * 5, r=tuple(turn.ravel()))
    found = rectification(calibration, WIDTH, HEIGHT)
    u, v = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    image = pattern((u - K[2]) / K[0], (v - K[5]) / K[4])
    rays = np.stack([(u - 160.0) / 200, (v - 120.0) / 200, np.ones_like(u)], axis=-1) @ turn
    expected = pattern(rays[..., 0] / rays[..., 2], rays[..., 1] / rays[..., 2]).astype(int)
    inner = cv2.erode(present(found.seen).astype(np.uint8), np.ones((3, 3))).astype(bool)
    assert np.abs(found.rectify(image) - expected)[inner].max() <= 4


@pytest.mark.parametrize("model", LENSES)
@pytest.mark.parametrize("angle", [0.0, 0.1])
def test_points_of_rectified_depth_stay_where_they_are(model: str, angle: float) -> None:
    # a slanted plane n X = 2 in the axes of the source, seen through the lens
    normal = np.array([0.3, -0.2, 1.0])
    turn = cv2.Rodrigues(np.array([angle / 2, angle, 0.0]))[0]
    found = rectification(camera(model, r=tuple(turn.ravel())), WIDTH, HEIGHT)
    u, v = np.meshgrid(np.arange(WIDTH, dtype=float), np.arange(HEIGHT, dtype=float))
    pixels = np.stack([u, v], axis=-1).reshape(-1, 1, 2)
    undistort = cv2.fisheye.undistortPoints if model == "equidistant" else cv2.undistortPoints
    k, d = np.array(K).reshape(3, 3), np.array(LENSES[model])
    x, y = undistort(pixels, k, d).reshape(HEIGHT, WIDTH, 2).transpose(2, 0, 1)
    depth = (2 / (normal[0] * x + normal[1] * y + normal[2])).astype(np.float32)
    depth[0, :] = np.nan

    rectified = found.rectify_depth(depth)

    lens = found.intrinsics
    rays = np.stack([(u - lens.cx) / lens.fx, (v - lens.cy) / lens.fy, np.ones_like(u)], axis=-1)
    planes = (rays * rectified[..., None]) @ turn @ normal
    known = np.isfinite(planes)
    assert known.mean() > 0.7
    assert not known[~found.seen].any() if found.seen is not None else known.any()
    np.testing.assert_allclose(planes[known], 2, atol=0.01)  # half a pixel of the slope
    assert abs(planes[known].mean() - 2) < 2e-4
    assert (found.rotation is None) == (angle == 0)


@pytest.mark.parametrize("model", ["plumb_bob", "equidistant", ""])
@pytest.mark.parametrize("p", [camera().p, (0.0,) * 12])
@pytest.mark.parametrize("count", [0, 4, 5, 6])
def test_any_number_of_zeros_is_no_distortion(model: str, p: tuple[float, ...], count: int) -> None:
    turn = cv2.Rodrigues(np.array([0.0, 0.05, 0.0]))[0]
    made = Calibration(WIDTH, HEIGHT, model, (), K, tuple(turn.ravel()), p)
    found = rectification(replace(made, d=(0.0,) * count), WIDTH, HEIGHT)
    expected = rectification(made, WIDTH, HEIGHT)
    assert found.intrinsics == expected.intrinsics
    np.testing.assert_array_equal(present(found.maps)[0], present(expected.maps)[0])


@pytest.mark.parametrize(
    ("name", "model"),
    [("Plumb Bob", "plumb_bob"), ("PLUMB_BOB", "plumb_bob"), ("brown_conrady", "plumb_bob"),
     ("radtan", "plumb_bob"), ("kannala_brandt4", "equidistant"), ("Fisheye", "equidistant"),
     ("rational_polynomial ", "rational_polynomial")],
)  # fmt: skip
@pytest.mark.parametrize("zeros", [0, 3])
def test_a_lens_model_has_several_names_and_its_coefficients_zeros_behind(
    name: str, model: str, zeros: int
) -> None:
    usual = present(rectification(camera(model), WIDTH, HEIGHT).maps)
    called = replace(camera(model), distortion_model=name, d=(*LENSES[model], *(0.0,) * zeros))
    found = present(rectification(called, WIDTH, HEIGHT).maps)
    for mine, theirs in zip(found, usual, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("p", [camera().p, (0.0,) * 12])
def test_a_camera_without_distortion_is_turned(p: tuple[float, ...]) -> None:
    angle = 0.05
    r = (np.cos(angle), 0.0, np.sin(angle), 0.0, 1.0, 0.0, -np.sin(angle), 0.0, np.cos(angle))
    found = rectification(camera(d=(), r=r, p=p), WIDTH, HEIGHT)
    assert found.rotation is not None
    np.testing.assert_allclose(found.rotation, np.reshape(r, (3, 3)))
    assert found.seen is None or found.seen.mean() > 0.6


def test_binning_and_region_are_taken_off() -> None:
    # 640x480 sensor, its right half, two by two pixels in one
    calibration = Calibration(
        640, 480, k=(500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0),
        binning=(2, 2), region=(320, 0, 320, 480),
    )  # fmt: skip
    found = rectification(calibration, 160, 240)
    lens = found.intrinsics
    assert (lens.fx, lens.fy, lens.cx, lens.cy) == (250.0, 250.0, 0.0, 120.0)
    assert not found.scaled


def test_a_calibration_of_another_resolution_is_scaled() -> None:
    found = rectification(camera(d=()), WIDTH // 2, HEIGHT // 2)
    lens = found.intrinsics
    assert (lens.fx, lens.cx, lens.width) == (125.0, 79.0, 160)
    assert found.scaled


@pytest.mark.parametrize(
    ("calibration", "size", "words"),
    [
        (camera(), (240, 240), "for images of 320x240 pixels, but they have 240x240"),
        (camera(d=(0.1, 0.2)), (320, 240), "2 coefficients of distortion; plumb_bob has 4 or 5"),
        (camera(k=(float("nan"),) * 9), (320, 240), "not that of a camera"),
        (camera(k=(-1.0,) * 9), (320, 240), "not that of a camera"),
        (Calibration(0, 0, k=K), (320, 240), "for images of 0x0 pixels"),
        (Calibration(320, 240, "kannala", (0.1,), K), (320, 240), "'kannala'; known are plumb_bob"),
        (camera(p=(float("nan"),) * 12), (320, 240), r"not that of a camera \(p is \[nan"),
        (camera(d=(float("inf"),) * 5), (320, 240), r"not that of a camera \(d is \[inf"),
        # Focal lengths in millimetres, of half the sensor, and of another camera.
        (camera(k=(4.0, 0, 158, 0, 4.0, 122, 0, 0, 1)), (320, 240), "lengths of 4 and 4 pixels"),
        (camera(k=(1e9, 0, 158, 0, 1e9, 122, 0, 0, 1)), (320, 240), "as no camera has"),
        (camera(k=(250.0, 0, 158, 0, 40.0, 122, 0, 0, 1)), (320, 240), "of 250 and 40 pixels"),
        (camera(region=(100, 0, 320, 240)), (320, 240), r"roi of 320x240 at \(100, 0\), beyond"),
        (camera(d=(0.1,) * 8), (320, 240), "8 coefficients of distortion; plumb_bob has 4 or 5"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_remedy(
    calibration: Calibration, size: tuple[int, int], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        rectification(calibration, *size)
    assert "input.calibration" in str(caught.value)


@pytest.mark.parametrize(
    ("topic", "rectified"),
    [
        ("/camera/image_raw", False),
        ("/camera/image_rect", True),
        ("image_rect_color/compressed", True),
        ("/rectifier/image_raw/compressed", False),
        ("/zed/zed_node/rgb/color/rect/image/compressed", True),
        ("/camera/image_rectified", True),
        ("/cam/image_direct", False),
        ("image", False),
    ],
)
def test_topics_tell_whether_images_are_rectified(topic: str, rectified: bool) -> None:
    assert is_rectified_topic(topic) is rectified


IMAGE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)


def test_maps_are_built_once() -> None:
    calibrator = Calibrator()
    first = calibrator.rectification_for(camera(), IMAGE)
    assert calibrator.rectification_for(camera(), IMAGE) is first
    second = calibrator.rectification_for(camera("equidistant"), IMAGE)
    assert second is not first
    # two cameras of a rig take turns
    assert calibrator.rectification_for(camera(), IMAGE) is first
    assert calibrator.rectification_for(camera("equidistant"), IMAGE) is second


def test_a_lens_that_focuses_does_not_fill_the_memory() -> None:
    calibrator = Calibrator()
    for focal in range(200, 230):
        k = (float(focal), 0.0, 160.0, 0.0, float(focal), 120.0, 0.0, 0.0, 1.0)
        assert (
            present(calibrator.rectification_for(camera(k=k, d=()), IMAGE)).intrinsics.fx == focal
        )
    assert len(calibrator._found) == 8


def test_who_asks_decides_how_a_calibration_is_used() -> None:
    assert Calibrator("ignore").rectification_for(camera(), IMAGE) is None
    assert Calibrator().rectification_for(None, IMAGE) is None
    assert present(Calibrator("rectified").rectification_for(camera(), IMAGE)).maps is None
    assert (
        present(Calibrator("raw").rectification_for(camera(rectified=True), IMAGE)).maps is not None
    )
    assert present(Calibrator("auto").rectification_for(camera(rectified=True), IMAGE)).maps is None


def test_what_is_not_used_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="xsvggt_ros.stream.processing")
    calibrator = Calibrator()
    square = np.zeros((240, 240, 3), np.uint8)
    for _ in range(3):
        assert calibrator.rectification_for(camera(), square) is None
        assert calibrator.rectification_for(Calibration(WIDTH, HEIGHT), IMAGE) is None
        assert calibrator.rectification_for(camera(), IMAGE[::2, ::2]) is not None
    text = caplog.text
    assert text.count("the calibration is not used") == 1
    assert text.count("the camera_info is uncalibrated") == 1
    assert text.count("for 320x240 pixels, the images have 160x120: it is scaled") == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        # The driver bins, and leaves the numbers of the whole sensor (avt_vimba_camera #82).
        ({"k": (500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0), "p": (0.0,) * 12},
         "2 times as wide: does the driver bin"),
        ({"p": (400.0, 0.0, 316.0, 0.0, 0.0, 400.0, 244.0, 0.0, 0.0, 0.0, 1.0, 0.0)},
         "2 times as wide: does the driver bin"),
        ({"k": (125.0, 0.0, 79.0, 0.0, 125.0, 59.0, 0.0, 0.0, 1.0), "p": (0.0,) * 12},
         "times smaller: are width and height those before binning"),
        ({"k": (250.0, 0.0, 10.0, 0.0, 250.0, 120.0, 0.0, 0.0, 1.0)}, "outside the middle half; "),
        ({"k": (250.0, 0.0, 0.0, 0.0, 250.0, 0.0, 0.0, 0.0, 1.0)}, "outside the middle half"),
        ({"k": (250.0, 0.0, 160.0, 0.0, 250.0, 400.0, 0.0, 0.0, 1.0)}, "outside the middle half; "),
    ],
)  # fmt: skip
@pytest.mark.parametrize("bent", [True, False])
def test_a_principal_point_far_out_is_distrusted(
    changes: dict[str, Any], words: str, bent: bool
) -> None:
    made = camera(**changes) if bent else camera(d=(0.0,) * 5, **changes)
    with pytest.raises(ConfigurationError, match="has its principal point") as refusal:
        rectification(made, WIDTH, HEIGHT)
    assert words in str(refusal.value)


def test_a_principal_point_of_a_region_counts_on_the_whole_sensor() -> None:
    made = camera(region=(150, 0, 160, 240))
    assert rectification(made, 160, 240).intrinsics.cx == pytest.approx(10.0)


def test_a_camera_that_sees_little_of_its_rectified_image_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wide = camera(
        p=(120.0, 0.0, 160.0, 0.0, 0.0, 120.0, 120.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        d=(0.0, 0.0, 0.0001, 0.0),
    )
    with caplog.at_level(logging.WARNING):
        found = Calibrator().rectification_for(wide, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    if found is None or found.seen is None:
        pytest.fail("it is rectified")
    assert 0.1 < found.seen.mean() < 0.5
    assert "sees only" in caplog.text


NUMBERS = st.floats(width=64) | st.sampled_from([0.0, 1.0, -1.0, 160.0, 120.0, 250.0, 1e-9, 1e9])
SMALL = st.integers(0, 1000)


def _numbers(count: int) -> st.SearchStrategy[tuple[float, ...]]:
    return st.tuples(*[NUMBERS] * count)


@given(
    st.sampled_from(["", "plumb_bob", "rational_polynomial", "equidistant", "fisheye", "kannala"]),
    st.lists(NUMBERS, max_size=15).map(tuple),
    st.one_of(st.just(K), _numbers(9)),
    st.one_of(st.just(UPRIGHT), st.just((0.0,) * 9), _numbers(9)),
    st.one_of(st.just(P), st.just((0.0,) * 12), _numbers(12)),
    st.tuples(SMALL, SMALL),
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
    st.one_of(st.just((0, 0, 0, 0)), st.tuples(SMALL, SMALL, SMALL, SMALL)),
    st.booleans(),
)
@settings(max_examples=examples(300))
def test_any_camera_info_is_used_or_refused_in_a_sentence(
    model: str,
    d: tuple[float, ...],
    k: tuple[float, ...],
    r: tuple[float, ...],
    p: tuple[float, ...],
    size: tuple[int, int],
    binning: tuple[int, int],
    region: tuple[int, int, int, int],
    rectified: bool,
) -> None:
    made = Calibration(*size, model, d, k, r, p, binning, region, "", rectified)
    image = np.zeros((12, 16, 3), np.uint8)
    found = Calibrator().rectification_for(made, image)
    if found is not None:
        lens = found.intrinsics
        assert np.isfinite([lens.fx, lens.fy, lens.cx, lens.cy]).all()
        assert lens.fx > 0
        assert lens.fy > 0
        assert found.rectify(image).shape == image.shape
