# SPDX-License-Identifier: Apache-2.0
"""Known cameras through the engine: intrinsics, depth beyond the lens, and whoever opts out."""

from __future__ import annotations

import numpy as np
import pytest

from xsvggt_ros.geometry.cameras import Calibration, unproject
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.stream.frame import Frame, FrameResult
from xsvggt_ros.stream.processing import CalibrationUse
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings
from xsvggt_ros.stream.worker import reconstruct

WIDTH, HEIGHT = 112, 84
K = (90.0, 0.0, 55.0, 0.0, 92.0, 43.0, 0.0, 0.0, 1.0)
IMAGE = np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def step(
    network: StreamVggt, calibration: Calibration | None, use: CalibrationUse = "auto"
) -> FrameResult:
    engine = Reconstructor(network, ReconstructorSettings(56, calibration=use))
    frame = Frame(1, "lens", lambda: IMAGE, calibration)
    (result,) = reconstruct([frame], engine, lambda _, error: pytest.fail(str(error)))
    return result


def test_known_intrinsics_replace_predicted_ones_at_the_networks_size(network: StreamVggt) -> None:
    result = step(network, Calibration(WIDTH, HEIGHT, k=K))
    camera = result.intrinsics
    assert result.intrinsics_source == "calibrated"
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (45.0, 46.0, 27.5, 21.5)
    assert (camera.width, camera.height) == (56, 42)
    column, row = 50, 3
    x, y, z = unproject(result.depth, camera)[row, column]
    assert (x / z, y / z) == pytest.approx(((50 - 27.5) / 45, (3 - 21.5) / 46), rel=1e-5)


def test_the_network_sees_the_rectified_image(network: StreamVggt) -> None:
    bent = Calibration(WIDTH, HEIGHT, "plumb_bob", (-0.4, 0.1, 0.0, 0.0, 0.0), K)
    flat = Calibration(WIDTH, HEIGHT, k=K)
    assert not np.array_equal(step(network, bent).color, step(network, flat).color)
    assert np.isfinite(step(network, bent).depth).all()


def test_depth_is_unknown_where_the_rectified_image_has_nothing(network: StreamVggt) -> None:
    wide = (45.0, 0.0, 56.0, 0.0, 0.0, 45.0, 42.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    bent = Calibration(WIDTH, HEIGHT, "plumb_bob", (-0.1, 0.0, 0.0, 0.0, 0.0), K, (0.0,) * 9, wide)
    depth = step(network, bent).depth
    assert np.isnan(depth[[0, 0, -1, -1], [0, -1, 0, -1]]).all()
    assert np.isfinite(depth[15:27, 18:38]).all()


@pytest.mark.parametrize(
    ("calibration", "use"),
    [
        (None, "auto"),
        (Calibration(WIDTH, HEIGHT), "auto"),
        (Calibration(WIDTH, WIDTH, k=K), "auto"),
        (Calibration(WIDTH, HEIGHT, k=K), "ignore"),
    ],
    ids=["none", "uncalibrated", "another shape", "ignored"],
)
def test_without_a_usable_calibration_the_network_decides(
    network: StreamVggt, calibration: Calibration | None, use: CalibrationUse
) -> None:
    result = step(network, calibration, use)
    assert result.intrinsics_source in ("predicted", "assumed")
    assert result.intrinsics.cx == 28.0
