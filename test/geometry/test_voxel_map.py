# SPDX-License-Identifier: Apache-2.0
"""The voxel map: exact means, a hard bound, and a hash table that never forgets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.geometry import voxel_map, voxel_table
from xsvggt_ros.geometry.voxel_map import Eviction, VoxelMap, VoxelSettings
from xsvggt_ros.geometry.voxel_table import MOST_SLOTS, VoxelTable, lowest

RANDOM = np.random.default_rng(3)
REACH = voxel_table.REACH
indices = hnp.arrays(np.int64, (3, 20), elements=st.integers(-REACH, REACH - 1))


def cloud(
    count: int, extent: float = 1.0, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    points = (random.random((count, 3)) * extent - extent / 2).astype(np.float32)
    colors = random.integers(0, 256, (count, 3), np.uint8)
    return points, colors, (1 + random.random(count)).astype(np.float32)


def shifted(points: NDArray[np.float32], x: int) -> NDArray[np.float32]:
    return points + np.array([x, 0, 0], np.float32)


def columns(held: VoxelMap) -> list[NDArray[np.float32] | NDArray[np.uint8]]:
    return [np.concatenate(column) for column in zip(*held.means(), strict=True)]


def contents(held: VoxelMap) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
    points, colors, confidence = (
        np.concatenate(column) for column in zip(*held.means(), strict=True)
    )
    order = np.lexsort(points.T)
    return points[order], colors[order], confidence[order]


@given(indices)
def test_keys_are_indices(cells: NDArray[np.int64]) -> None:
    np.testing.assert_array_equal(voxel_table.unpack(voxel_table.pack(cells)), cells)


@pytest.mark.parametrize("normal", range(3))
def test_the_voxels_of_a_wall_spread_evenly_over_a_table(normal: int) -> None:
    wall = np.stack(np.broadcast_arrays(*np.ogrid[:256, :256, :1])).reshape(3, -1)
    keys = voxel_table.pack(np.roll(wall, normal, axis=0))
    assert len(np.unique(keys)) == 256**2
    homes = voxel_table.spread(keys) >> np.uint64(64 - 17)
    # A random hash leaves exp(-0.5) of 2^17 places empty.
    assert len(np.unique(homes)) == pytest.approx((1 - np.exp(-0.5)) * 2**17, rel=0.02)


operations = st.lists(
    st.tuples(st.booleans(), st.lists(st.integers(0, 60), min_size=1, max_size=40)), max_size=12
)


@given(operations, st.integers(0, 2**40))
def test_the_table_is_a_dictionary_with_dense_slots(
    steps: list[tuple[bool, list[int]]], spacing: int
) -> None:
    table = VoxelTable(64)
    held: dict[int, int] = {}
    for adds, numbers in steps:
        keys = np.array(numbers, np.int64) * (2 * spacing + 1)
        if adds:
            slots = table.add(keys)
            for key, slot in zip(keys.tolist(), slots.tolist(), strict=True):
                assert held.setdefault(key, slot) == slot
        else:
            going = np.unique([held[key] for key in keys.tolist() if key in held]).astype(np.int64)
            holes, movers = table.remove(going)
            moved = dict(zip(movers.tolist(), holes.tolist(), strict=True))
            gone = set(going.tolist())
            held = {key: moved.get(slot, slot) for key, slot in held.items() if slot not in gone}
        assert sorted(held.values()) == list(range(len(table)))
        known = np.array(list(held), np.int64)
        np.testing.assert_array_equal(table.slots_of(known), list(held.values()))
        np.testing.assert_array_equal(table.keys[table.slots_of(known)], known)
        everything = np.arange(61) * (2 * spacing + 1)
        assert np.count_nonzero(table.slots_of(everything) >= 0) == len(held)


def test_the_table_stays_right_through_long_churn() -> None:
    table = VoxelTable(4096)
    for _ in range(200):
        keys = RANDOM.integers(0, 2**62, 700)
        slots = table.add(keys)
        np.testing.assert_array_equal(table.keys[slots], keys)
        if len(table) > 3300:
            table.remove(np.sort(RANDOM.choice(len(table), 900, replace=False)))
        np.testing.assert_array_equal(
            table.slots_of(table.keys[: len(table)]), np.arange(len(table))
        )
    assert np.count_nonzero(table._words) == len(table)


@pytest.mark.parametrize("capacity", [0, MOST_SLOTS + 1])
def test_impossible_tables_are_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match=str(capacity)):
        VoxelTable(capacity)


@given(hnp.arrays(np.int32, st.integers(1, 300), elements=st.integers(0, 9)), st.data())
def test_the_lowest_go(scores: NDArray[np.int32], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(scores)))
    chosen = lowest(scores, count)
    assert len(set(chosen.tolist())) == len(chosen) >= count
    rest = np.delete(scores, chosen)
    assert not len(rest) or scores[chosen].max() <= rest.min()


def test_few_more_than_asked_go_from_a_large_map() -> None:
    for scores in (RANDOM.random(400_000), RANDOM.integers(0, 50, 400_000), np.zeros(400_000)):
        chosen = lowest(scores, 4000)
        assert 4000 <= len(chosen) <= 8000
        assert scores[chosen].max() <= np.partition(scores, 8000)[8000]


def test_each_voxel_is_the_mean_of_its_points() -> None:
    points, colors, confidence = cloud(5000)
    held = VoxelMap(VoxelSettings(0.1, 10_000))
    for part in np.array_split(np.arange(5000), 4):
        held.add(points[part], colors[part], confidence[part])
    cells = np.floor(points * np.float32(10)).astype(int)
    _, which, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    assert len(held) == len(counts)

    def mean(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(which.ravel(), values) / counts

    expected = np.stack([mean(points[:, axis].astype(float)) for axis in range(3)], axis=1)
    order = np.lexsort(expected.astype(np.float32).T)
    found, found_colors, found_confidence = contents(held)
    np.testing.assert_allclose(found, expected[order], atol=1e-6)
    np.testing.assert_allclose(found_confidence, mean(confidence)[order], rtol=1e-5)
    expected_colors = np.stack([mean(colors[:, channel]) for channel in range(3)], axis=1)
    np.testing.assert_allclose(found_colors, expected_colors[order], atol=0.5001)


def test_far_from_the_origin_means_are_as_fine() -> None:
    corner = np.array([40_000.0, -40_000.0, 10.0])
    points = (corner + RANDOM.random((100, 3)) * 0.05).astype(np.float32)
    held = VoxelMap(VoxelSettings(0.05))
    held.add(points, np.zeros((100, 3), np.uint8), np.ones(100, np.float32))
    found = contents(held)[0]
    assert np.abs(found - corner).max() < 0.06


def test_packed_rows_are_the_means() -> None:
    held = VoxelMap(VoxelSettings(0.02))
    held.add(*cloud(50_000))
    rows = np.empty((len(held), 5), np.float32)
    held.pack(rows)
    points, colors, confidence = (
        np.concatenate(column) for column in zip(*held.means(), strict=True)
    )
    np.testing.assert_array_equal(rows[:, :3], points)
    np.testing.assert_array_equal(rows[:, 4], confidence)
    bits = rows.view(np.uint32)[:, 3]
    shown = np.stack([bits >> 16, bits >> 8 & 255, bits & 255], axis=1)
    assert np.abs(shown - colors.astype(int)).max() <= 1  # halves round up, or to even
    assert bits.max() < 2**24


@pytest.mark.parametrize("eviction", ["age", "count"])
def test_the_bound_is_hard_and_what_stays_is_whole(eviction: Eviction) -> None:
    held = VoxelMap(VoxelSettings(0.01, 2000, eviction))
    for seed in range(20):
        held.add(*cloud(1500, seed=seed))
        assert len(held) <= 2000
    assert held.evicted > 0
    points, _, confidence = contents(held)
    assert (np.abs(points) <= 0.5).all()
    assert ((confidence >= 1) & (confidence <= 2)).all()
    # Every point lies in the voxel that it stands for, and each voxel is there once.
    keys = held._table.keys[: len(held)]
    assert len(np.unique(keys)) == len(held)
    again = voxel_table.pack(np.floor(points / 0.01 + 1e-4).astype(np.int64).T)
    assert np.isin(again, keys).mean() > 0.95  # a mean may lie on the voxel's face


def test_one_frame_larger_than_the_map_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voxel_map, "BLOCK", 1000)
    held = VoxelMap(VoxelSettings(0.001, 500))
    held.add(*cloud(5000))
    assert 0 < len(held) <= 500


def test_what_was_longest_not_seen_goes_first() -> None:
    held = VoxelMap(VoxelSettings(1.0, 100))
    ones = np.ones(50, np.float32)
    grey = np.full((50, 3), 7, np.uint8)
    line = np.zeros((50, 3), np.float32)
    line[:, 0] = np.arange(50) + 0.5
    held.add(line, grey, ones)  # frame 1: x 0..49
    held.add(shifted(line, 50), grey, ones)  # frame 2: x 50..99
    held.add(line, grey, ones)  # the first ones again
    held.add(shifted(line[:10], 200), grey[:10], ones[:10])
    x = contents(held)[0][:, 0]
    assert (x < 50).sum() == 50
    assert (x > 200).sum() == 10
    assert ((x > 50) & (x < 100)).sum() == 39  # ten, and a batch of one, have gone


def test_what_was_seen_least_goes_first_but_not_before_it_had_a_chance() -> None:
    held = VoxelMap(VoxelSettings(1.0, 100, "count"))
    line = np.zeros((100, 3), np.float32)
    line[:, 0] = np.arange(100) + 0.5
    grey, ones = np.full((100, 3), 7, np.uint8), np.ones(100, np.float32)
    held.add(line, grey, ones)
    held.add(line[:60], grey[:60], ones[:60])
    held.add(shifted(line[:10], 200), grey[:10], ones[:10])
    x = contents(held)[0][:, 0]
    assert (x < 60).sum() == 60
    assert (x > 200).sum() == 10


def test_old_points_fade_where_a_voxel_is_seen_for_ever() -> None:
    held = VoxelMap(VoxelSettings(1.0))
    low, high = np.full((4096, 3), 0.25, np.float32), np.full((4096, 3), 0.75, np.float32)
    grey, ones = np.zeros((4096, 3), np.uint8), np.ones(4096, np.float32)
    for _ in range(10):
        held.add(low, grey, ones)
    for _ in range(10):
        held.add(high, grey, ones)
    assert contents(held)[0][0, 0] > 0.74
    assert held._sums[7, 0] <= 4096 * 1.001


def test_points_that_the_grid_does_not_reach_are_counted() -> None:
    held = VoxelMap(VoxelSettings(0.001))
    points = np.array([[0.5, 0, 0], [5000.0, 0, 0], [0, -5000.0, 0]], np.float32)
    held.add(points, np.zeros((3, 3), np.uint8), np.ones(3, np.float32))
    assert (len(held), held.outside) == (1, 2)


def test_clearing_forgets_everything() -> None:
    held = VoxelMap(VoxelSettings(0.1, 200))
    held.add(*cloud(500))
    held.clear()
    assert (len(held), held.evicted, list(held.means())) == (0, 0, [])
    once = VoxelMap(VoxelSettings(0.1, 200))
    for each in (held, once):
        each.add(*cloud(150, seed=5))
    for left, right in zip(contents(held), contents(once), strict=True):
        np.testing.assert_array_equal(left, right)


def test_an_empty_frame_is_a_frame() -> None:
    held = VoxelMap()
    points, colors, confidence = cloud(1)
    held.add(points[:0], colors[:0], confidence[:0])
    assert len(held) == 0


def test_memory_is_laid_out_once() -> None:
    held = VoxelMap(VoxelSettings(0.01, 5000))
    before = held.nbytes
    for seed in range(5):
        held.add(*cloud(3000, seed=seed))
    assert held.nbytes == before


def test_two_million_voxels_take_less_than_two_hundred_megabytes() -> None:
    packed_message = 2_000_000 * 20
    assert VoxelMap(VoxelSettings(0.05, 2_000_000)).nbytes + packed_message <= 200e6


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"voxel_size": 0.0}, "map.voxel_size is 0.0"),
        ({"voxel_size": float("nan")}, "map.voxel_size is nan"),
        ({"max_points": 0}, "map.max_points is 0"),
        ({"max_points": MOST_SLOTS}, "from 1 to"),
        ({"eviction": "luck"}, "choose age or count"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        VoxelSettings(**settings)


def test_what_is_no_number_counts_as_outside() -> None:
    held = VoxelMap()
    points, colors, confidence = cloud(4)
    points[1, 2] = np.nan
    points[2, 0] = np.inf
    held.add(points, colors, confidence)
    assert held.outside == 2
    assert np.isfinite(columns(held)[0]).all()
    held.add(np.full_like(points, np.nan), colors, confidence)
    assert held.outside == 6


@pytest.mark.parametrize("most", [7, 60, 1000])
def test_every_voxel_has_its_turn_and_none_twice_a_frame(most: int) -> None:
    held = VoxelMap(VoxelSettings(1.0, 1000))
    line = np.zeros((60, 3), np.float32)
    line[:, 0] = np.arange(60) + 0.5
    held.add(line, np.full((60, 3), 7, np.uint8), np.ones(60, np.float32))
    gone = {3, 17, 18, 59}
    votes: dict[int, int] = {}
    nothing = np.empty(0, np.int64)
    while len(held) > 60 - len(gone):
        before = set(columns(held)[0][:, 0].astype(int).tolist())
        visited: list[int] = []
        for part in held.visit(most):
            x = held.positions(part)[0].astype(int)
            visited += x.tolist()
            free = np.flatnonzero(np.isin(x, list(gone)))
            held.vote(part, free, nothing, 3)
        assert len(visited) == len(set(visited)) <= most
        for each in gone.intersection(visited):
            votes[each] = votes.get(each, 0) + 1
        after = set(columns(held)[0][:, 0].astype(int).tolist())
        assert before - after == {each for each in before if votes.get(each, 0) >= 3}
    assert held.removed == len(gone)
    assert set(columns(held)[0][:, 0].astype(int).tolist()) == set(range(60)) - gone
    held.add(line, np.full((60, 3), 9, np.uint8), np.ones(60, np.float32))
    found, colors, _ = contents(held)
    np.testing.assert_allclose(found, line)
    np.testing.assert_array_equal(colors[sorted(gone)], 9)  # nothing of what was there is left
