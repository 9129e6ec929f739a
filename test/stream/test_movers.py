# SPDX-License-Identifier: Apache-2.0
"""What moves stays out of the map, and rays clear what is no longer there."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from people import moving_people
from results import wall
from selection import first_is_quick

from xsvggt_ros.geometry.cameras import Intrinsics
from xsvggt_ros.geometry.depth_view import DepthView
from xsvggt_ros.geometry.rigid import world_to_map
from xsvggt_ros.geometry.voxel_map import VoxelSettings
from xsvggt_ros.stream import mapping
from xsvggt_ros.stream.frame import FrameResult
from xsvggt_ros.stream.mapping import VIEWS, MapBuilder, MapSettings, MoverFilter

SECOND = 10**9
VOXELS = VoxelSettings(0.02, 100_000)
CLEARING = MapSettings(VOXELS, clear_after=3)
FILTERING = MapSettings(VOXELS, movers_delay=4.0)


def _add(builder: MapBuilder, each: FrameResult, settings: MapSettings) -> None:
    builder.add(each, world_to_map(each.camera_to_world), settings)


def _with_box(index: int, second: float, *, box: bool = True) -> FrameResult:
    """Return a wall two units ahead and, if told so, a box in front of it."""
    each = wall(index)
    if box:
        each.depth[10:20, 12:24] = 1.2
    return replace(each, stamp=int(second * SECOND))


def _in_front(builder: MapBuilder) -> int:
    return int(np.count_nonzero(builder.snapshot()[0][:, 0] < 1.6))


@pytest.mark.parametrize(
    ("name", "noise"),
    [
        ("driving", "exact"),
        ("still", "pixels"),
        ("stands", "smooth"),
        *(
            pytest.param(name, noise, marks=pytest.mark.slow)
            for name, noise in itertools.product(
                ("still", "driving", "stands", "stands, driving"), moving_people.NOISES
            )
            if (name, noise)
            not in {("driving", "exact"), ("still", "pixels"), ("stands", "smooth")}
        ),
    ],
)
def test_people_stay_out_of_the_map_and_the_room_stays_in(name: str, noise: str) -> None:
    outcome, builder = moving_people.measure(
        moving_people.SCENES[name], noise, moving_people.settings_for()
    )
    assert outcome.points > 10_000
    assert outcome.people <= 0.1
    assert outcome.lost <= 0.01
    assert builder.held_back > 0
    assert builder.cleared > 0


def test_the_same_people_are_in_the_map_without_the_filter() -> None:
    outcome, _ = moving_people.measure(
        moving_people.SCENES["driving"], "exact", moving_people.settings_for(filtering=False)
    )
    assert outcome.people > 0.9


@pytest.mark.parametrize("noise", first_is_quick(moving_people.NOISES))
def test_a_room_without_people_loses_nothing(noise: str) -> None:
    outcome, builder = moving_people.measure(
        moving_people.SCENES["nobody"], noise, moving_people.settings_for()
    )
    assert outcome.lost <= 0.001
    assert builder.held_back <= 0.001 * moving_people.FRAMES * moving_people.WIDTH * 120


@pytest.mark.parametrize("unit", first_is_quick([0.125, 8.0]))
def test_units_do_not_matter(unit: float) -> None:
    """Powers of two, so that rounding is the same, too."""
    scene = moving_people.SCENES["driving"]
    ours, builder = moving_people.measure(scene, "smooth", moving_people.settings_for())
    theirs, other = moving_people.measure(
        scene, "smooth", moving_people.settings_for(unit), unit=unit
    )
    assert theirs == ours
    assert (other.held_back, other.cleared) == (builder.held_back, builder.cleared)
    np.testing.assert_allclose(other.snapshot()[0], builder.snapshot()[0] * unit, rtol=1e-6)


@pytest.mark.slow
def test_ten_times_the_unit_makes_no_difference() -> None:
    scene = moving_people.SCENES["still"]
    ours, builder = moving_people.measure(scene, "smooth", moving_people.settings_for())
    theirs, other = moving_people.measure(
        scene, "smooth", moving_people.settings_for(10.0), unit=10.0
    )
    assert theirs.people == pytest.approx(ours.people, abs=1e-3)
    assert theirs.lost == pytest.approx(ours.lost, abs=1e-4)
    assert other.held_back == pytest.approx(builder.held_back, rel=1e-3)


def test_rays_clear_a_box_after_as_many_frames_in_a_row() -> None:
    builder = MapBuilder()
    _add(builder, _with_box(0, 0), CLEARING)
    there = _in_front(builder)
    assert there > 50
    for index in (1, 2):
        _add(builder, _with_box(index, index, box=False), CLEARING)
    assert _in_front(builder) == there
    _add(builder, _with_box(3, 3), CLEARING)  # seen again: votes begin again
    for index in (4, 5):
        _add(builder, _with_box(index, index, box=False), CLEARING)
    assert _in_front(builder) == there
    _add(builder, _with_box(6, 6, box=False), CLEARING)
    assert _in_front(builder) == 0
    assert builder.cleared == there
    wall_points = builder.snapshot()[0][:, 0]
    np.testing.assert_allclose(wall_points, 2.0, atol=1e-3)


def test_nothing_is_cleared_where_depth_is_unknown_or_behind_something() -> None:
    for blind in ("unknown", "uncertain", "hidden"):
        builder = MapBuilder()
        _add(builder, _with_box(0, 0), CLEARING)
        there = _in_front(builder)
        for index in range(1, 6):
            each = _with_box(index, index, box=False)
            if blind == "unknown":
                each.depth[8:22, 10:26] = np.nan
            elif blind == "uncertain":
                each.confidence[8:22, 10:26] = 0.5
            else:
                each.depth[8:22, 10:26] = 0.9
            _add(builder, each, CLEARING)
        assert builder.cleared == 0, blind
        assert _in_front(builder) >= there, blind


def test_what_appears_waits_and_then_goes_in() -> None:
    builder = MapBuilder()
    _add(builder, _with_box(0, 0, box=False), FILTERING)
    seconds = 0.5 * np.arange(1, 20)
    in_front = []
    for index, second in enumerate(seconds, 1):
        _add(builder, _with_box(index, float(second)), FILTERING)
        in_front.append(_in_front(builder))
    first = float(seconds[np.flatnonzero(in_front)[0]])
    assert 3.0 <= first <= 4.5
    assert in_front[-1] > 50
    assert builder.held_back >= 100 * np.count_nonzero(seconds < first)


def test_stamps_that_stand_still_do_not_keep_a_new_wardrobe_out_for_ever() -> None:
    builder = MapBuilder()
    _add(builder, _with_box(0, 0, box=False), FILTERING)
    for index in range(1, 30 * VIEWS + 2):
        _add(builder, _with_box(index, 0), FILTERING)
    assert _in_front(builder) > 50


def test_a_first_frame_goes_in_at_once_and_switched_off_all_do() -> None:
    both = replace(FILTERING, clear_after=3)
    builder = MapBuilder()
    _add(builder, _with_box(0, 0), both)
    assert _in_front(builder) > 50
    builder = MapBuilder()
    for index in range(3):
        _add(builder, _with_box(index, index, box=index == 2), MapSettings(VOXELS))
    assert _in_front(builder) > 50
    assert (builder.held_back, builder.cleared) == (0, 0)


def test_large_maps_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "MOST_VISITED", 100)
    builder = MapBuilder()
    _add(builder, _with_box(0, 0), CLEARING)
    assert builder.map is not None
    rounds = -(-len(builder.map) // 100)
    for index in range(1, 4 * rounds):
        before = builder.cleared
        _add(builder, _with_box(index, index, box=False), CLEARING)
        assert builder.cleared - before <= 100
    assert _in_front(builder) == 0


def test_cameras_of_a_rig_remember_for_themselves() -> None:
    movers = MoverFilter()
    pose = np.eye(4)
    camera = Intrinsics(50.0, 50.0, 20.0, 15.0, 40, 30)
    known = np.ones((30, 40), bool)
    far = DepthView(np.full((30, 40), 4.0, np.float32), known, camera, pose)
    near = DepthView(np.full((30, 40), 3.9, np.float32), known, camera, pose)
    for index in range(3 * VIEWS):
        movers.remember(far, index * SECOND, 8.0, "left")
    assert movers.nbytes == VIEWS * far.nbytes
    assert movers.appeared(near, pose, "right") is None
    movers.clear()
    assert movers.nbytes == 0


def test_a_view_that_agrees_with_nothing_says_nothing() -> None:
    """A wrong pose or another scale: the margin is unknown, so nothing counts as empty."""
    camera = Intrinsics(50.0, 50.0, 20.0, 15.0, 40, 30)
    depth = np.full((30, 40), 4.0, np.float32)
    view = DepthView(depth, np.ones((30, 40), bool), camera, np.eye(4))
    half = view.compare(view.points(np.eye(4)) * np.float32(0.5))
    assert len(half.which) == depth.size
    assert not half.free.any()
    assert not half.met.any()
    same = view.compare(view.points(np.eye(4)))
    assert same.met.all()
    assert not same.free.any()
    assert len(view.compare(-view.points(np.eye(4))).which) == 0
