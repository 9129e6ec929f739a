# SPDX-License-Identifier: Apache-2.0
"""Cameras keep clear of everything and move smoothly; equal seeds give equal streams."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.synthetic.motion import (
    LEAST_CLEARANCE,
    MOTIONS,
    MotionSettings,
    plan_motion,
    smoothed,
)
from xsvggt_ros.synthetic.renderer import Quality
from xsvggt_ros.synthetic.rooms import build_world, room_named
from xsvggt_ros.synthetic.sequence import (
    FIRST_HELD_OUT_SEED,
    SUITE,
    EffectSettings,
    Sequence,
    SequenceSettings,
    exposure_at,
    held_out,
    training_seed,
)

SMALL = SequenceSettings(
    seed=3, frames=5, width=48, height=36, room=room_named("calm"), quality=Quality(1, False)
)


def turned(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    relative = np.einsum("nij,nik->njk", poses[1:, :3, :3], poses[:-1, :3, :3])
    cosine = (np.trace(relative, axis1=1, axis2=2) - 1) / 2
    angles: NDArray[np.float64] = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return angles


@pytest.mark.parametrize("kind", MOTIONS)
@pytest.mark.parametrize("room", ["rich", "calm", "chart"])
def test_cameras_keep_clear_and_move_smoothly(kind: str, room: str) -> None:
    settings = replace(room_named(room), movers=1)
    frames = 12 if kind == "drift" else 200
    world = build_world(settings, 7)
    poses = plan_motion(world, MotionSettings(kind), frames, 7)
    assert poses.shape == (frames, 4, 4)
    rotations = poses[:, :3, :3]
    np.testing.assert_allclose(
        np.einsum("nij,nik->njk", rotations, rotations), np.tile(np.eye(3), (frames, 1, 1)),
        atol=1e-9,
    )  # fmt: skip
    for index in range(frames):
        there = world.at(torch.tensor(index / 10))
        point = torch.from_numpy(poses[index, :3, 3]).float()[None]
        assert there.clearance(point) > LEAST_CLEARANCE
    places = poses[:, :3, 3]
    assert np.linalg.norm(np.diff(places, axis=0), axis=1).max() < 0.15
    assert np.linalg.norm(np.diff(places, 2, axis=0), axis=1).max() < 0.03
    assert turned(poses).max() < (9 if kind == "handheld" else 6)  # degrees at 10 Hz
    # Nothing between two poses either: the way is shorter than what is clear around it.
    middle = torch.from_numpy((places[1:] + places[:-1]) / 2).float()
    assert (build_world(replace(settings, movers=0), 7).clearance(middle) > 0).all()


def test_laps_come_back() -> None:
    world = build_world(room_named("calm"), 4)
    poses = plan_motion(world, MotionSettings("loop"), 600, 4)
    away = np.linalg.norm(poses[:, :2, 3] - poses[0, :2, 3], axis=1)
    assert away.max() > 0.8
    assert away[len(away) // 4 :].min() < 0.3


def test_who_turns_on_the_spot_carries_the_camera_around() -> None:
    """A camera sits ahead of the axis that its body turns about, so that its path is an arc."""
    world = build_world(room_named("calm"), 3)
    poses = plan_motion(world, MotionSettings("pan"), 300, 3)
    forward = poses[:, :2, 2] / np.linalg.norm(poses[:, :2, 2], axis=1, keepdims=True)
    middle = poses[:, :2, 3].mean(axis=0)
    ahead = ((poses[:, :2, 3] - middle) * forward).sum(axis=1)
    assert 0.15 < np.median(ahead) < 0.6
    extent = np.linalg.norm(np.ptp(poses[:, :3, 3], axis=0))
    assert extent > 0.5


def test_stops_are_stops() -> None:
    world = build_world(room_named("calm"), 4)
    poses = plan_motion(world, MotionSettings("stop"), 200, 4)
    steps = np.linalg.norm(np.diff(poses[:, :2, 3], axis=0), axis=1)
    assert (steps < 0.003).mean() > 0.1
    assert steps.max() > 0.03


def test_very_long_motions_are_planned() -> None:
    world = build_world(room_named("calm"), 2)
    poses = plan_motion(world, MotionSettings("walk"), 2000, 2)
    points = torch.from_numpy(poses[:, :3, 3]).float()
    assert (world.clearance(points) > LEAST_CLEARANCE).all()
    assert np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).sum() > 80


def test_smoothing_keeps_the_ends_and_constant_rows() -> None:
    line = np.linspace(0, 5, 40)[:, None] * np.array([[1.0, 2.0]])
    np.testing.assert_allclose(smoothed(line, 3.0), line, atol=1e-9)
    corner = np.concatenate([np.zeros(20), np.arange(20.0)])
    assert smoothed(corner, 2.0)[0] == pytest.approx(0)
    assert smoothed(corner, 2.0)[-1] == pytest.approx(19)
    ring = np.cos(np.arange(60) / 60 * 2 * np.pi)
    expected = ring * np.exp(-0.5 * (2 * np.pi / 60 * 2.0) ** 2)
    np.testing.assert_allclose(smoothed(ring, 2.0, closed=True), expected, atol=1e-3)


def test_equal_seeds_give_equal_streams_and_others_do_not() -> None:
    one, again = list(Sequence(SMALL)), list(Sequence(SMALL))
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a.color, b.color)
        np.testing.assert_array_equal(a.depth, b.depth)
        np.testing.assert_array_equal(a.camera_to_world, b.camera_to_world)
    other = Sequence(replace(SMALL, seed=4)).frame(0)
    assert np.abs(one[0].depth - other.depth).mean() > 0.05
    assert [frame.stamp for frame in one] == [k * 100_000_000 for k in range(1, 6)]
    assert one[0].color.dtype == np.uint8
    assert one[0].depth.min() > 0.05
    assert len(np.unique(one[0].color)) > 20


def test_noise_exposure_blur_and_drops() -> None:
    clean = Sequence(SMALL).frame(2)
    noisy = Sequence(replace(SMALL, effects=EffectSettings(noise=8.0))).frame(2)
    level = (noisy.color.astype(float) - clean.color).std()
    assert 4 < level < 9
    np.testing.assert_array_equal(noisy.depth, clean.depth)
    swinging = EffectSettings(exposure=1.0)
    factors = [exposure_at(swinging, second, 1) for second in np.arange(0, 12, 0.1)]
    assert min(factors) == pytest.approx(0.5, abs=0.01)
    assert max(factors) == pytest.approx(2.0, abs=0.01)
    moving = replace(SMALL, motion=MotionSettings("walk", speed=2.0), frames=8)
    sharp = Sequence(moving).frame(5).color.astype(float)
    blurred = Sequence(replace(moving, effects=EffectSettings(motion_blur=1.0))).frame(5).color
    assert (
        np.abs(np.diff(blurred.astype(float), axis=1)).mean()
        < np.abs(np.diff(sharp, axis=1)).mean()
    )
    lossy = Sequence(replace(SMALL, frames=40, effects=EffectSettings(drops=0.5)))
    kept = [frame.index for frame in lossy]
    assert kept[0] == 0
    assert 8 < len(kept) < 32
    for wrong in ({"noise": -1.0}, {"drops": 0.95}, {"motion_blur": 2.0}, {"exposure": 9.0}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            EffectSettings(**wrong)


def test_people_walk() -> None:
    settings = replace(SMALL, room=replace(room_named("calm"), movers=1), seed=8)
    world = Sequence(settings).world
    assert world.moves
    body = world.solids[2].sway.abs().sum(dim=1) > 0
    start, later = (world.at(torch.tensor(t)).solids[2].centre[body] for t in (0.0, 1.5))
    assert (start - later).norm(dim=-1).max() > 0.1
    torch.testing.assert_close(start[:, 2], later[:, 2])


def test_the_held_out_suite_is_never_trained_on() -> None:
    lengths = sorted({each.frames for each in SUITE})
    assert lengths == [10, 100, 300, 1000]
    assert len({each.seed for each in SUITE}) == len(SUITE) == len({each.name for each in SUITE})
    assert min(each.seed for each in SUITE) >= FIRST_HELD_OUT_SEED
    seeds = [training_seed(s, i) for s in (0, 1, 10**6) for i in (0, 1, 10**9)]
    assert max(seeds) < FIRST_HELD_OUT_SEED
    assert held_out("long_loop").motion.kind == "loop"
    with pytest.raises(ConfigurationError, match="medium_walk"):
        held_out("endless")
    with pytest.raises(ConfigurationError, match="negative"):
        training_seed(-1, 0)


@pytest.mark.parametrize("name", [each.name for each in SUITE])
@pytest.mark.parametrize("room", ["rich", "calm", "chart"])
def test_every_held_out_sequence_can_be_planned(name: str, room: str) -> None:
    settings = held_out(name, room)
    world = build_world(settings.room, settings.seed)
    poses = plan_motion(world, settings.motion, settings.frames, settings.seed)
    points = torch.from_numpy(poses[:, :3, 3]).float()
    assert (world.clearance(points) > LEAST_CLEARANCE).all()


def test_streams_at_the_highest_rate_have_stamps_of_their_own() -> None:
    fast = Sequence(replace(SMALL, frames=3, motion=MotionSettings(rate=1000.0)))
    assert [fast.stamp(index) for index in range(3)] == [1_000_000, 2_000_000, 3_000_000]


def test_impossible_motions_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="walk"):
        MotionSettings("fly")
    with pytest.raises(ConfigurationError, match="rate"):
        MotionSettings(rate=0.0)
    with pytest.raises(ConfigurationError, match="at most 1000"):
        MotionSettings(rate=1e12)
    with pytest.raises(ConfigurationError, match="movers are 500; there can be 0 to 12"):
        replace(room_named("calm"), movers=500)
    with pytest.raises(ConfigurationError, match="0 frames"):
        plan_motion(build_world(room_named("calm"), 0), MotionSettings(), 0, 0)
    with pytest.raises(ConfigurationError, match="frames"):
        SequenceSettings(frames=0)
