# SPDX-License-Identifier: Apache-2.0
"""From a distorted image to that of a pinhole camera, by what a CameraInfo says.

The rectified camera is the one that image_proc would make: it looks along ``r`` with the intrinsics
of ``p``. Where ``p`` is empty, the largest image without unseen corners is taken.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.geometry.cameras import Calibration, Intrinsics

Matrix = NDArray[np.float64]

POLYNOMIALS = {"plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14)}
FISHEYES = {"equidistant": (4,), "fisheye": (4,)}
MODELS = POLYNOMIALS | FISHEYES
"""Distortion models and how many coefficients they may have."""

_OTHER_NAMES = {
    "radtan": "plumb_bob", "radial_tangential": "plumb_bob", "brown_conrady": "plumb_bob",
    "kannala_brandt": "equidistant", "kannala_brandt4": "equidistant",
}  # fmt: skip
"""What calibration tools and drivers call the same models."""

_SAME_SHAPE = 0.01
"""By how much, relative, the aspect of an image may differ from that of its calibration."""

_LEAST_SEEN = 0.1
"""Share of the rectified image in which the source has something; less is none of its own."""

_SHORTEST_LENS, _LONGEST_LENS = 0.1, 100.0
"""Focal lengths in sides of the image: views of 157 and of 0.6 degrees."""

_LEAST_SQUARE = 4.0
"""By which factor both focal lengths may differ: pixels are nearly square."""

_STEP_CLOSER = 1.02
_MOST_STEPS = 12
"""Steps by which a view with holes is narrowed, to a quarter more of focal length."""

_REMEDY = "correct the camera_info (the node leaves it out with input.calibration: ignore)"


@dataclass(frozen=True, slots=True)
class Rectification:
    """How images of one camera are rectified.

    Attributes:
        intrinsics: of the rectified image, which has the size of the source.
        maps: for OpenCV's remap; None where nothing is to be done.
        seen: bool [height, width], where the source has something; None where everywhere.
        scaled: whether the calibration is of another resolution and was scaled to this one.
        rotation: float64 [3, 3], from the axes of the source's camera to those of the rectified
            one; None where they are the same.

    """

    intrinsics: Intrinsics
    maps: tuple[NDArray[np.int16], NDArray[np.uint16]] | None
    seen: NDArray[np.bool_] | None
    scaled: bool
    rotation: Matrix | None = None

    def rectify(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the rectified image [height, width, 3]; black where the source has nothing."""
        if self.maps is None:
            return image
        return cv2.remap(image, *self.maps, cv2.INTER_LINEAR).astype(np.uint8, copy=False)

    def rectify_depth(self, depth: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return depth of the source, float32 [height, width], as the rectified camera sees it.

        The nearest pixel stands, because edges must not be smeared; NaN where the source has
        nothing. Depth lies along the optical axis, before and after.
        """
        if self.maps is None:
            return depth
        x, y = cv2.convertMaps(*self.maps, cv2.CV_32FC1)
        seen = np.asarray(
            cv2.remap(depth, x, y, cv2.INTER_NEAREST, borderValue=float("nan")), np.float32
        )
        if self.rotation is not None:
            seen = seen / self._along_the_source()
        if self.seen is not None:
            seen = np.where(self.seen, seen, np.float32(np.nan))
        return seen

    def _along_the_source(self) -> NDArray[np.float32]:
        """Return the source's depth of points at depth 1 here, float32 [height, width]."""
        assert self.rotation is not None
        lens = self.intrinsics
        v, u = np.indices((lens.height, lens.width))
        across, down, ahead = self.rotation[:, 2]
        x, y = (u - lens.cx) / lens.fx, (v - lens.cy) / lens.fy
        return np.asarray(across * x + down * y + ahead, np.float32)


def rectification(calibration: Calibration, width: int, height: int) -> Rectification:
    """Return how to rectify images of ``width`` x ``height`` pixels; costs tens of milliseconds.

    Images that are rectified already only get their intrinsics.

    Args:
        calibration: of the camera.
        width: of its images, pixels.
        height: likewise.

    Raises:
        ConfigurationError: an unknown distortion model, numbers that are not those of a camera, or
            a calibration for images of another shape.

    """
    _check(calibration)
    to_image, scaled = _sensor_to_image(calibration, width, height)
    _check_principal_points(calibration)
    k = to_image @ np.array(calibration.k).reshape(3, 3)
    p = to_image @ np.array(calibration.p).reshape(3, 4)[:, :3]
    size = (width, height)
    if calibration.rectified:
        return Rectification(_pinhole(p if p[0, 0] else k, size), None, None, scaled)
    r = np.array(calibration.r).reshape(3, 3)
    turned = bool(r.any()) and not np.allclose(r, np.eye(3), atol=1e-9)
    bent = any(calibration.d)
    if not bent and not turned:
        # Nothing to bend or turn: another focal length in p would only resample the image.
        return Rectification(_pinhole(k, size), None, None, scaled)
    # OpenCV refuses numbers of coefficients that it does not know, be they all zero; with a
    # rotation, 4.6 refuses none, too.
    d = np.array(_coefficients(calibration) if bent else (0.0,) * 4)
    lens = _Lens(k, d, bent and _model_of(calibration) in FISHEYES)
    rotation = r if r.any() else np.eye(3)
    try:
        target = p if p[0, 0] else _filled_view(lens, rotation, size)
        x, y = lens.maps(rotation, target, size)
    except cv2.error as error:
        raise ConfigurationError(
            f"OpenCV cannot rectify by the camera_info ({error.err}); {_REMEDY}"
        ) from error
    seen = _seen(x, y, size)
    _check_seen(seen, target)
    places, fractions = cv2.convertMaps(x, y, cv2.CV_16SC2)
    maps = np.asarray(places, np.int16), np.asarray(fractions, np.uint16)
    return Rectification(
        _pinhole(target, size),
        maps,
        None if seen.all() else seen,
        scaled,
        rotation if turned else None,
    )


def is_usable(calibration: Calibration, width: int, height: int) -> bool:
    """Return whether a calibration can rectify images of ``width`` x ``height`` pixels.

    Args:
        calibration: of the camera.
        width: of its images, pixels.
        height: likewise.

    """
    if not calibration.known:
        return False
    try:
        _check(calibration)
        _sensor_to_image(calibration, width, height)
        _check_principal_points(calibration)
    except ConfigurationError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Lens:
    """A camera with distortion, in OpenCV's words."""

    k: Matrix
    d: Matrix
    fisheye: bool

    def maps(
        self, rotation: Matrix, target: Matrix, size: tuple[int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return where each rectified pixel lies in the source, float32 [height, width] twice."""
        make = cv2.fisheye.initUndistortRectifyMap if self.fisheye else cv2.initUndistortRectifyMap
        x, y = make(self.k, self.d, rotation, target, size, cv2.CV_32FC1)
        return np.asarray(x, np.float32), np.asarray(y, np.float32)

    def widest_view(self, rotation: Matrix, size: tuple[int, int]) -> Matrix:
        """Return the K of the widest image that the source fills."""
        if self.fisheye:
            found = cv2.fisheye.estimateNewCameraMatrixForUndistortRectify(
                self.k, self.d, size, rotation, balance=0.0
            )
        else:
            found, _ = cv2.getOptimalNewCameraMatrix(self.k, self.d, size, 0.0)
        return np.asarray(found, np.float64)


def _check(calibration: Calibration) -> None:
    numbers = (*calibration.d, *calibration.k, *calibration.r, *calibration.p)
    if not np.isfinite(numbers).all() or calibration.k[0] <= 0 or calibration.k[4] <= 0:
        wrong = next((each for each in "dkrp" if not np.isfinite(getattr(calibration, each)).all()),
                     "k")  # fmt: skip
        raise ConfigurationError(
            f"the camera_info is not that of a camera ({wrong} is "
            f"{list(getattr(calibration, wrong))}); {_REMEDY}"
        )
    _check_focal_lengths(calibration)
    if not any(calibration.d) or calibration.rectified:
        return
    name, count = _model_of(calibration), len(_coefficients(calibration))
    if name not in MODELS:
        raise ConfigurationError(
            f"the camera_info has the distortion model '{calibration.distortion_model}'; known are "
            f"{', '.join(MODELS)}; {_REMEDY}, or subscribe to the rectified image"
        )
    if count not in MODELS[name]:
        raise ConfigurationError(
            f"the camera_info has {count} coefficients of distortion; {name} has "
            f"{' or '.join(map(str, MODELS[name]))}; {_REMEDY}"
        )


def _model_of(calibration: Calibration) -> str:
    """Return the distortion model by the name that ROS has for it."""
    name = re.sub(r"[\s-]+", "_", calibration.distortion_model.strip().lower())
    return _OTHER_NAMES.get(name, name)


def _coefficients(calibration: Calibration) -> tuple[float, ...]:
    """Return the coefficients of distortion; drivers fill the message up with zeros."""
    d, known = calibration.d, MODELS.get(_model_of(calibration), ())
    if len(d) in known or not known:
        return d
    fitting = [count for count in known if count < len(d) and not any(d[count:])]
    return d[: max(fitting)] if fitting else d


def _check_focal_lengths(calibration: Calibration) -> None:
    """Raise ConfigurationError for focal lengths that no lens has.

    In millimetres, say, they would make a view of nearly 180 degrees.
    """
    across, down = calibration.k[0], calibration.k[4]
    size = max(calibration.width, calibration.height)
    usual = all(_SHORTEST_LENS * size <= each <= _LONGEST_LENS * size for each in (across, down))
    if not size or (usual and 1 / _LEAST_SQUARE <= across / down <= _LEAST_SQUARE):
        return
    raise ConfigurationError(
        f"the camera_info has focal lengths of {across:.6g} and {down:.6g} pixels for images of "
        f"{calibration.width}x{calibration.height}, as no camera has: are they in pixels; {_REMEDY}"
    )


def _check_principal_points(calibration: Calibration) -> None:
    """Raise ConfigurationError where a principal point lies outside the middle half.

    No lens is mounted so far off. A driver that bins without saying so tells the numbers of another
    resolution, and the image would be bent out of all proportion.
    """
    width, height = calibration.width, calibration.height
    k, p = calibration.k, calibration.p
    points = {"k": (k[2], k[5])} | ({"p": (p[2], p[6])} if p[0] else {})
    if calibration.rectified and p[0]:
        del points["k"]
    for name, (x, y) in points.items():
        if 0.25 <= x / width <= 0.75 and 0.25 <= y / height <= 0.75:
            continue
        raise ConfigurationError(
            f"the camera_info has its principal point ({name}) at ({x:.6g}, {y:.6g}) of "
            f"{width}x{height} pixels, outside the middle half{_suspicion(x / width, y / height)}; "
            f"{_REMEDY}"
        )


def _suspicion(x: float, y: float) -> str:
    """Return what may be behind a principal point at these shares of the image."""
    factor = x + y  # of a centred one: 1
    if abs(x - y) > 0.25 * factor:
        return ""
    if factor > 1:
        return (
            f", as if these were images {factor:.3g} times as wide: does the driver bin or "
            "scale, and leave k, p, binning_x and binning_y as they were"
        )
    return (
        f", as if these were images {1 / max(factor, 1e-9):.3g} times smaller: are width and "
        "height those before binning"
    )


def _filled_view(lens: _Lens, rotation: Matrix, size: tuple[int, int]) -> Matrix:
    """Return the K of the widest image without holes; with them where none is near.

    OpenCV looks at a few points of the border only (4.6), and not at the rotation.
    """
    widest = lens.widest_view(rotation, size)
    if not np.isfinite(widest).all():
        return widest
    for step in range(_MOST_STEPS):
        closer: Matrix = widest.copy()
        closer[[0, 1], [0, 1]] *= _STEP_CLOSER**step
        if _seen(*lens.maps(rotation, closer, size), size).all():
            return closer
    return widest


def _seen(
    x: NDArray[np.float32], y: NDArray[np.float32], size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return where places in the source lie inside of it, bool [height, width]."""
    width, height = size
    return np.asarray((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1))


def _check_seen(seen: NDArray[np.bool_], target: Matrix) -> None:
    if seen.mean() >= _LEAST_SEEN and np.isfinite(target).all() and target[0, 0] > 0:
        return
    raise ConfigurationError(
        f"of the rectified image the camera sees {seen.mean():.0%} by the camera_info; {_REMEDY}"
    )


def _sensor_to_image(calibration: Calibration, width: int, height: int) -> tuple[Matrix, bool]:
    """Return the [3, 3] that carries sensor pixels into pixels of the image."""
    left, top, columns, rows = calibration.region
    if not columns or not rows:
        left, top, columns, rows = 0, 0, calibration.width, calibration.height
    if left + columns > calibration.width or top + rows > calibration.height:
        raise ConfigurationError(
            f"the camera_info has a roi of {columns}x{rows} at ({left}, {top}), beyond its "
            f"{calibration.width}x{calibration.height} pixels; {_REMEDY}"
        )
    binning = [max(1, each) for each in calibration.binning]
    expected = columns / binning[0], rows / binning[1]
    if min(expected) <= 0 or abs(width / height * expected[1] / expected[0] - 1) > _SAME_SHAPE:
        raise ConfigurationError(
            f"the camera_info is for images of {expected[0]:g}x{expected[1]:g} pixels, but they "
            f"have {width}x{height}; {_REMEDY}"
        )
    scale_x, scale_y = width / columns, height / rows
    matrix = np.array(
        [[scale_x, 0.0, -left * scale_x], [0.0, scale_y, -top * scale_y], [0.0, 0.0, 1.0]]
    )
    return matrix, (width, height) != tuple(map(int, expected))


def _pinhole(k: Matrix, size: tuple[int, int]) -> Intrinsics:
    return Intrinsics(float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2]), *size)
