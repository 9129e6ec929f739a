# SPDX-License-Identifier: Apache-2.0
"""Rendered depth, normals and clearance against formulas, and images against each other."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.geometry.rigid import invert, transform_points
from xsvggt_ros.synthetic.cameras import (
    intrinsics_for,
    inverse_tone_map,
    pixel_rays,
    poses_looking_along,
    tone_map,
)
from xsvggt_ros.synthetic.materials import Material, Pattern, paint
from xsvggt_ros.synthetic.renderer import Quality, first_hit, render
from xsvggt_ros.synthetic.rooms import RoomSettings, build_world, room_named
from xsvggt_ros.synthetic.sequence import Sequence, SequenceSettings
from xsvggt_ros.synthetic.shapes import surface_at
from xsvggt_ros.synthetic.world import (
    Lamp,
    Part,
    World,
    assemble_world,
    ball,
    batched,
    block,
    no_tint,
    post,
)

GREY = Material(Pattern.PLAIN, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NO_TINT = no_tint()
FAST = Quality(samples=1, shadows=False)


def room(*parts: Part, size: tuple[float, float, float] = (6.0, 5.0, 3.0)) -> World:
    lamp = Lamp((3.0, 2.5, 2.8), (5.0, 5.0, 5.0), 0.0)
    return assemble_world(size, parts, [GREY] * 6, [lamp], (0.2, 0.2, 0.2), NO_TINT)


def camera(
    x: float, y: float, z: float, heading: float = 0.0, pitch: float = 0.0, roll: float = 0.0
) -> torch.Tensor:
    pose = poses_looking_along(
        np.array([[x, y, z]], float), np.array([heading]), np.array([pitch]), np.array([roll])
    )
    return torch.from_numpy(pose[0]).float()


def test_pixel_rays_follow_the_integer_centre_convention() -> None:
    intrinsics = intrinsics_for(8, 6, 90.0)
    assert intrinsics.fx == pytest.approx(4.0)
    assert (intrinsics.cx, intrinsics.cy) == (4.0, 3.0)
    rays = pixel_rays(intrinsics)
    assert rays.shape == (6, 8, 3)
    torch.testing.assert_close(rays[3, 4], torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(rays[0, 0], torch.tensor([-1.0, -0.75, 1.0]))


def test_poses_have_optical_axes() -> None:
    pose = camera(1, 2, 1.5).numpy()
    np.testing.assert_allclose(pose[:3, 0], [0, -1, 0], atol=1e-7)  # right of +x is -y
    np.testing.assert_allclose(pose[:3, 1], [0, 0, -1], atol=1e-7)  # down
    np.testing.assert_allclose(pose[:3, 2], [1, 0, 0], atol=1e-7)  # forward
    tilted = camera(1, 2, 1.5, 0.3, -0.2, 0.1).numpy()[:3, :3]
    np.testing.assert_allclose(tilted.T @ tilted, np.eye(3), atol=1e-6)
    assert np.linalg.det(tilted) == pytest.approx(1, abs=1e-6)
    assert tilted[2, 2] == pytest.approx(math.sin(-0.2), abs=1e-6)


def test_depth_of_a_wall_a_box_a_ball_and_a_cylinder() -> None:
    world = room(
        block((3.0, 2.0, 0.0), (0.5, 1.0, 2.0), GREY),
        ball((3.0, 4.2, 1.5), (0.4, 0.4, 0.4), GREY),
        post((3.0, 0.6, 0.0), 0.3, 2.5, GREY),
    )
    intrinsics = intrinsics_for(64, 48, 90.0)
    pose = camera(1.0, 2.5, 1.5)
    depth = render(world, pose, intrinsics, FAST).depth
    assert depth[24, 32] == pytest.approx(2.0, abs=1e-5)  # the face of the box
    # A flat face across the view has one depth, not one distance.
    assert depth[24, 26] == pytest.approx(2.0, abs=1e-5)
    assert depth[24 - 20, 32] == pytest.approx(1.5 / (20 / 32), abs=1e-4)  # ceiling 1.5 m above
    rays = pixel_rays(intrinsics).double().reshape(-1, 3) @ pose[:3, :3].double().T
    flat = depth.reshape(-1).double()
    points = pose[:3, 3].double() + flat[:, None] * rays
    centre = torch.tensor([3.0, 4.2, 1.5], dtype=torch.float64)
    away = (points - centre).norm(dim=-1)
    # Where a ray passes nearer to the centre than the radius, it must stop at the sphere.
    along = ((centre - pose[:3, 3].double()) * rays).sum(-1) / (rays * rays).sum(-1)
    miss = (pose[:3, 3].double() + along[:, None] * rays - centre).norm(dim=-1)
    through = miss < 0.39
    assert through.sum() > 20
    torch.testing.assert_close(
        away[through], torch.full_like(away[through], 0.4), atol=1e-4, rtol=0
    )
    axis = torch.tensor([3.0, 0.6], dtype=torch.float64)
    radial = (points[:, :2] - axis).norm(dim=-1)
    assert ((radial < 0.2999) & (points[:, 2] < 2.499)).sum() == 0
    assert ((radial - 0.3).abs() < 1e-4).sum() > 40


def test_a_turned_box_shows_its_edge() -> None:
    part = block((2.5, 2.0, 0.0), (1.0, 1.0, 2.0), GREY, math.pi / 4)
    depth = render(room(part), camera(1.0, 2.5, 1.0), intrinsics_for(64, 48, 60.0), FAST).depth
    assert depth[24, 32] == pytest.approx(3.0 - math.sqrt(0.5) - 1.0, abs=1e-4)


def test_depth_from_inside_reaches_the_right_wall() -> None:
    world = room()
    origin = torch.tensor([[2.0, 1.0, 1.0]])
    ways = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    length, which = first_hit(world, origin, ways)
    assert length.tolist() == pytest.approx([4.0, 2.0, 4.0, 1.0, 2.0, 1.0])
    # west, east, south, north, floor, ceiling
    assert which.tolist() == [1, 0, 3, 2, 5, 4]


def test_normals_of_all_solids() -> None:
    kind = torch.tensor([0, 1, 2, 2])
    solid = torch.tensor([[0.0, 0, 0, 1, 2, 3, 0, 1]] + [[0.0, 0, 0, 1, 1, 1, 1, 0]] * 3)
    point = torch.tensor([[-2.0, 0.5, 0], [0, 0.6, 0.8], [0.6, 0.8, 0.1], [0.1, 0.2, 1.0]])
    normal = surface_at(kind, solid, point).normal
    expected = torch.tensor([[-1.0, 0, 0], [0, 0.6, 0.8], [0.6, 0.8, 0], [0, 0, 1]])
    torch.testing.assert_close(normal, expected, atol=1e-6, rtol=0)


def test_clearance_is_the_distance_to_the_nearest_surface() -> None:
    world = room(
        block((3.0, 2.0, 0.0), (0.5, 1.0, 2.0), GREY), ball((1.0, 4.0, 1.5), (0.4, 0.4, 0.4), GREY),
        post((5.0, 1.0, 0.0), 0.3, 1.0, GREY),
    )  # fmt: skip
    points = torch.tensor(
        [[2.7, 2.5, 1.0], [1.0, 3.3, 1.5], [4.5, 1.0, 0.5], [5.0, 1.0, 1.4], [0.2, 2.0, 1.5],
         [3.2, 2.5, 1.0], [2.7, 1.6, 1.0], [7.0, 1.0, 1.0]]
    )  # fmt: skip
    found = world.clearance(points).tolist()
    assert found == pytest.approx([0.3, 0.3, 0.2, 0.4, 0.2, -0.2, 0.5, -1.0], abs=1e-6)


def test_sorting_out_and_batching_change_nothing() -> None:
    worlds = [build_world(room_named("rich"), seed) for seed in (1, 2)]
    intrinsics = intrinsics_for(70, 52, 75.0)
    poses = torch.stack([camera(0.8, 0.9, 1.5, 0.7, -0.1), camera(0.9, 0.8, 1.4, 0.8, -0.2)])
    for quality in (Quality(1, shadows=False), Quality(1, shadows=True)):
        both = render(batched(worlds), poses[:, None], intrinsics, quality)
        for k, world in enumerate(worlds):
            single = render(world, poses[k], intrinsics, quality)
            torch.testing.assert_close(single.depth, both.depth[k, 0], atol=1e-5, rtol=1e-5)
            off = (single.light - both.light[k, 0]).abs().amax(dim=-1) > 1e-3
            assert off.float().mean() < 0.01  # rounding at the edges of patterns and shadows


def test_a_shadow_lies_below_a_table_and_nowhere_without_one() -> None:
    top = block((2.5, 2.0, 1.0), (1.0, 1.0, 0.05), GREY)
    intrinsics, pose = intrinsics_for(32, 24, 60.0), camera(0.6, 2.5, 0.6, 0.0, -0.2)
    lit = render(room(top), pose, intrinsics, Quality(1, shadows=False)).light
    dark = render(room(top), pose, intrinsics, Quality(1, shadows=True)).light
    depth = render(room(top), pose, intrinsics, FAST).depth
    rays = pixel_rays(intrinsics) @ pose[:3, :3].T
    points = pose[:3, 3] + depth[..., None] * rays
    floor = points[..., 2] < 1e-3
    below = floor & ((points[..., 0] - 2.9).abs() < 0.4) & ((points[..., 1] - 2.5).abs() < 0.4)
    assert below.sum() > 5
    assert (dark[below] < 0.6 * lit[below]).all()
    torch.testing.assert_close(
        dark[floor & (points[..., 0] < 1.8)], lit[floor & (points[..., 0] < 1.8)]
    )


def test_patterns_have_their_size_and_fade_where_a_pixel_covers_them() -> None:
    row = torch.tensor([Material(Pattern.CHECKER, (1.0, 1, 1), (0.0, 0, 0), 0.5).row()] * 3)
    texture = torch.tensor([[0.1, 0.1], [0.6, 0.1], [0.6, 0.6]])
    near, shines = paint(texture, row, torch.zeros(3))
    assert near[:, 0].tolist() == pytest.approx([1, 0, 1], abs=0.06)
    assert not shines.any()
    far, _ = paint(texture, row, torch.full((3,), 0.5))
    assert far[:, 0].tolist() == pytest.approx([0.5] * 3, abs=1e-6)
    glow, shines = paint(texture, torch.tensor([Material(Pattern.GLOW, (2.0, 1, 1)).row()] * 3),
                         torch.zeros(3))  # fmt: skip
    assert shines.all()
    assert glow[0].tolist() == pytest.approx([2, 1, 1])


def test_light_for_an_image_is_what_develops_into_it() -> None:
    image = torch.linspace(0, 0.99, 100)
    torch.testing.assert_close(tone_map(inverse_tone_map(image)), image, atol=1e-5, rtol=1e-5)


def test_developing_keeps_order_and_range() -> None:
    light = torch.tensor([0.0, 0.2, 1.0, 50.0])
    values = tone_map(light)
    assert values[0] == 0
    assert values[1] == pytest.approx((1 - math.exp(-0.38)) ** (1 / 2.2), abs=1e-6)
    assert (values.diff() > 0).all()
    assert values[3] <= 1


@pytest.mark.parametrize("kind", ["rich", "calm"])
def test_points_of_one_frame_land_on_the_surfaces_seen_by_another(kind: str) -> None:
    """What frame 0 sees and frame 6 sees too has the same depth there: pose, K and depth agree."""
    settings = SequenceSettings(
        seed=5, frames=7, width=96, height=72, room=room_named(kind), quality=FAST
    )
    sequence = Sequence(settings)
    first, last = sequence.frame(0), sequence.frame(6)
    seen = transform_points(invert(last.camera_to_world), first.points()).reshape(-1, 3)
    k = last.intrinsics
    u, v = k.fx * seen[:, 0] / seen[:, 2] + k.cx, k.fy * seen[:, 1] / seen[:, 2] + k.cy
    column, row = np.rint(u).astype(int), np.rint(v).astype(int)
    inside = (seen[:, 2] > 0) & (column >= 1) & (column < 95) & (row >= 1) & (row < 71)
    assert inside.mean() > 0.5
    around = np.stack(
        [last.depth[row[inside] + a, column[inside] + b] for a in (-1, 0, 1) for b in (-1, 0, 1)]
    )
    z = seen[inside, 2]
    slack = 0.01 * z
    agrees = (z > around.min(axis=0) - slack) & (z < around.max(axis=0) + slack)
    assert agrees.mean() > 0.95  # the rest is hidden from the other frame
    np.testing.assert_allclose(
        first.points(first.camera_to_world)[..., 2], first.depth, rtol=1e-5, atol=1e-5
    )


def test_impossible_rooms_and_qualities_are_refused() -> None:
    for wrong in (
        {"contrast": 1.2}, {"tint": -0.1}, {"layouts": ("round",)}, {"least": (1.0, 4.0, 2.4)},
        {"most": (3.0, 7.0, 3.2)},
    ):  # fmt: skip
        with pytest.raises(ConfigurationError):
            RoomSettings(**wrong)
    with pytest.raises(ConfigurationError, match="1 or 4"):
        Quality(samples=3)
    with pytest.raises(ConfigurationError, match="rich"):
        room_named("palace")
    with pytest.raises(ConfigurationError, match="field_of_view"):
        replace(SequenceSettings(), field_of_view=200.0)
