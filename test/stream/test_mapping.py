# SPDX-License-Identifier: Apache-2.0
"""The map of a stream: points where the geometry says, filters, sessions, other voxels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from results import HEIGHT, WIDTH, wall

from xsvggt_ros.geometry.rigid import world_to_map
from xsvggt_ros.geometry.voxel_map import VoxelSettings
from xsvggt_ros.stream.frame import FrameResult
from xsvggt_ros.stream.mapping import MapBuilder, MapSettings, chosen_pixels

FINE = MapSettings(VoxelSettings(0.001, 10_000))


def add(builder: MapBuilder, each: FrameResult, settings: MapSettings = FINE) -> None:
    builder.add(each, world_to_map(each.camera_to_world), settings)


def test_points_lie_where_the_camera_saw_them() -> None:
    builder = MapBuilder()
    pose = np.eye(4)
    pose[:3, 3] = 0.5, 0.0, 1.0  # to the right and forward
    add(builder, wall(pose=pose))
    points, colors, confidence = builder.snapshot()
    assert len(points) == HEIGHT * WIDTH
    np.testing.assert_allclose(points[:, 0], 3.0, atol=1e-3)  # the wall, ahead along x
    np.testing.assert_array_equal(confidence, 3.0)
    place = colors[:, 0].astype(int) + 256 * colors[:, 1].astype(int)
    v, u = np.divmod(place, WIDTH)
    np.testing.assert_allclose(points[:, 1], -0.5 - (u - 20) / 50 * 2, atol=1e-5)
    np.testing.assert_allclose(points[:, 2], -(v - 15) / 50 * 2, atol=1e-5)


def test_filters_leave_out_the_uncertain_the_unknown_and_pixels_between_strides() -> None:
    each = wall()
    each.confidence[0] = 1.2
    each.depth[2, :10] = np.nan
    builder = MapBuilder()
    add(builder, each, MapSettings(FINE.voxels, min_confidence=1.5, stride=2))
    assert len(builder.snapshot()[0]) == (HEIGHT // 2 - 1) * WIDTH // 2 - 5


@pytest.mark.parametrize("depth", [0.3, 0.9, 1.7, 3.1, 12.0])
@pytest.mark.parametrize("stride", [1, 2])
def test_near_surfaces_are_thinned_out_but_no_voxel_of_a_wall_is_missed(
    depth: float, stride: int
) -> None:
    settings = MapSettings(VoxelSettings(0.25, 10_000), stride=stride)
    each = wall(depth=depth)
    pixels = chosen_pixels(each, settings)
    rows, columns = np.unique(pixels // WIDTH), np.unique(pixels % WIDTH)
    assert len(pixels) == len(rows) * len(columns)
    step = int(columns[1] - columns[0])
    # the widest step of those allowed that leaves one and a half points along the edge of a voxel
    points_an_edge = 0.25 * 50 / depth / step
    assert step in (stride, 2 * stride, 4 * stride, 8 * stride)
    assert points_an_edge >= 1.5 or step == stride
    assert points_an_edge < 3 or step == 8 * stride

    def voxels(thinned: bool) -> set[tuple[int, ...]]:
        builder = MapBuilder()
        every = MapSettings(VoxelSettings(0.001, 10_000), stride=stride)
        add(builder, each, settings if thinned else every)
        points = builder.snapshot()[0]
        return set(map(tuple, np.floor(points[:, 1:] / 0.25 + 1e-4).astype(int).tolist()))

    assert len(voxels(thinned=True) ^ voxels(thinned=False)) <= (0 if step == stride else 8)


def test_a_held_pose_leaves_the_map_as_it_is() -> None:
    builder = MapBuilder()
    add(builder, wall(0, depth=2.0))
    before = builder.snapshot()[0]
    add(builder, replace(wall(1, depth=4.0), pose_source="held"))
    np.testing.assert_array_equal(builder.snapshot()[0], before)


def test_a_new_session_begins_an_empty_map() -> None:
    builder = MapBuilder()
    add(builder, wall(0, depth=2.0))
    add(builder, wall(1, depth=4.0))
    assert builder.snapshot()[0][:, 0].max() == pytest.approx(4.0, abs=1e-3)
    add(builder, wall(0, depth=1.0))
    np.testing.assert_allclose(builder.snapshot()[0][:, 0], 1.0, atol=1e-3)


def test_other_voxels_take_the_points_over() -> None:
    builder = MapBuilder()
    add(builder, wall())
    before = builder.map
    coarse = MapSettings(VoxelSettings(0.5, 100))
    add(builder, wall(2), coarse)
    assert builder.map is not before
    assert builder.map is not None
    assert builder.map.settings == coarse.voxels
    points = builder.snapshot()[0]
    assert 0 < len(points) < 50
    np.testing.assert_allclose(points[:, 0], 2.0, atol=1e-3)


def test_points_beyond_the_grid_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    builder = MapBuilder()
    for index in range(3):
        each = wall(index)
        each.depth[0, 0] = 5000.0
        add(builder, each)
    assert caplog.text.count("points lie more than 1048.58 from the origin") == 1
    assert len(builder.snapshot()[0]) == HEIGHT * WIDTH - 1


def test_changes_are_counted_so_that_nothing_is_published_twice() -> None:
    builder = MapBuilder()
    builder.clear()
    assert builder.changes == 0
    add(builder, wall())
    assert builder.changes == 1
    builder.clear()
    builder.clear()
    assert builder.changes == 2
    builder.drop()
    assert builder.map is None
    assert [len(column) for column in builder.snapshot()] == [0, 0, 0]
