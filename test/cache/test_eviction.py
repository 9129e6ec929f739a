# SPDX-License-Identifier: Apache-2.0
"""Which tokens leave where a grid can go only with the last token of its group."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from selection import examples

from xsvggt_ros.cache.segment import choose_evicted
from xsvggt_ros.cache.token_storage import PackedKeys

CPU = torch.device("cpu")


def keys_of(groups: list[list[int]], rows: int) -> PackedKeys:
    """Return keys of which slot ``i`` of a set belongs to group ``i`` of its ``groups``.

    Groups are rows of a table of ``rows``.
    """
    sets = len(groups)
    keys = PackedKeys.allocate(sets, len(groups[0]), 4, 4, CPU, sets=sets, rows=rows)
    keys.tensors[3].copy_(torch.tensor(groups))
    return keys


def evicted(
    groups: list[int],
    places: list[int],
    count: int,
    rows: int,
    *,
    table: int,
    guarded: bool = False,
) -> list[int]:
    """Return the slots that one set gives up, in order."""
    keys = keys_of([groups], table)
    chosen = choose_evicted(torch.tensor([places]), count, keys, rows, guarded=guarded)
    return sorted(chosen[0].tolist())


def test_a_good_token_outlives_a_group_that_is_worth_more_together() -> None:
    """Beyond those that would go anyway, its place stands by 6, those of the others by 7 and 8."""
    groups = [0] + [1] * 5 + [2] * 5
    places = [10, 7, 8, 0, 1, 2, 9, 6, 5, 3, 4]
    assert evicted(groups, places, count=5, rows=1, table=3) == [1, 2, 3, 4, 5]


def test_tokens_go_one_by_one_beside_the_group_that_must() -> None:
    groups = [0] * 3 + [1] * 3 + [2] * 3
    places = [0, 4, 5, 1, 2, 8, 3, 6, 7]
    assert evicted(groups, places, count=4, rows=1, table=3) == [0, 1, 2, 3]


def test_thinner_groups_stay_where_the_cheapest_may_go() -> None:
    groups = [*[0] * 3, *[1] * 3, *[2] * 2, *[3] * 2]
    gone = evicted(groups, list(range(10)), count=6, rows=2, table=4)
    assert gone == [0, 1, 2, 3, 4, 5]


def test_what_is_left_of_good_groups_stays_where_the_cheapest_hold_too_many() -> None:
    """Two groups must go with at most seven tokens: the cheapest two hold eight."""
    groups = [0, 1, 2, *[3] * 4, *[4] * 4, *[5] * 5, *[6] * 3]
    places = [16, 17, 18, *range(16)]
    assert evicted(groups, places, count=7, rows=2, table=7) == [3, 4, 5, 6, 16, 17, 18]


def test_where_nothing_cheap_is_small_enough_the_emptiest_groups_go() -> None:
    groups = [0, 1, *[2] * 4, *[3] * 4, *[4] * 4, *[5] * 4]
    places = [16, 17, *range(16)]
    assert evicted(groups, places, count=2, rows=2, table=6) == [0, 1]


def test_every_set_chooses_by_itself() -> None:
    """Of three sets each takes another way: the cheapest groups, thinner ones, the emptiest."""
    sizes = [1, 1, 1, 4, 3, 4, 5], [1, 1, 1, 4, 4, 5, 3], [1, 1, 1, 4, 4, 4, 4]
    groups = [[row for row, size in enumerate(each) for _ in range(size)] for each in sizes]
    places = torch.tensor([[16, 17, 18, *range(16)]] * 3)
    gone = choose_evicted(places, 7, keys_of(groups, 7), 2).tolist()
    assert sorted(gone[0]) == [3, 4, 5, 6, 7, 8, 9]
    assert sorted(gone[1]) == [3, 4, 5, 6, 16, 17, 18]
    assert sorted(gone[2]) == [0, 1, 3, 4, 5, 6, 7]


def test_an_empty_row_needs_no_group_to_go() -> None:
    groups = [0, 0, 1, 1]
    assert evicted(groups, [3, 0, 1, 2], count=2, rows=1, table=3) == [1, 2]


def test_no_group_goes_with_a_token_that_must_stay_while_there_are_others() -> None:
    groups = [0] * 2 + [1] * 2 + [2] * 2
    places = [6, 0, 7, 8, 4, 5]
    assert evicted(groups, places, count=2, rows=1, table=3, guarded=True) == [4, 5]


def test_what_must_stay_stays_where_each_group_has_some_of_it() -> None:
    groups = [0, 0, 1, 1]
    assert evicted(groups, [4, 0, 5, 1], count=2, rows=1, table=2, guarded=True) == [1, 3]


def test_the_emptiest_group_that_goes_has_nothing_that_must_stay() -> None:
    """One group must go with at most three tokens: the cheap ones hold four."""
    groups = [0, *[1] * 4, *[2] * 4, *[3] * 2]
    places = [11, 4, 5, 6, 7, 0, 1, 2, 3, 8, 9]
    assert evicted(groups, places, count=3, rows=1, table=4, guarded=True) == [5, 9, 10]


@settings(deadline=None, max_examples=examples(120))
@given(data=st.data(), size=st.integers(1, 6), table=st.integers(2, 9))
def test_the_group_that_must_go_is_the_one_whose_best_token_is_worst(
    data: st.DataObject, size: int, table: int
) -> None:
    """As long as each holds no more than may go."""
    sizes = data.draw(st.lists(st.integers(1, size), min_size=table, max_size=table))
    groups = data.draw(st.permutations([row for row, n in enumerate(sizes) for _ in range(n)]))
    places = data.draw(st.permutations(range(len(groups))))
    count = data.draw(st.integers(min(size, len(groups)), len(groups)))
    gone = evicted(groups, places, count, 1, table=table)
    best = [max(p for p, g in zip(places, groups, strict=True) if g == row) for row in range(table)]
    worst = best.index(min(best))
    members = {slot for slot, row in enumerate(groups) if row == worst}
    assert len(set(gone)) == count
    assert members <= set(gone)
    others = sorted(set(range(len(groups))) - members, key=lambda slot: places[slot])
    assert set(gone) - members == set(others[: count - len(members)])


@settings(deadline=None, max_examples=examples(120))
@given(
    seed=st.integers(0, 2**31),
    tokens=st.integers(1, 12),
    size=st.integers(1, 6),
    frames=st.integers(1, 4),
    persistence=st.sampled_from([0.0, 0.5, 1.0]),
    disfavour=st.sampled_from([0.0, 1.0]),
)
def test_rows_for_the_next_frame_are_always_empty(
    seed: int, tokens: int, size: int, frames: int, persistence: float, disfavour: float
) -> None:
    """With as many rows as counting asks for, at any scores, and where full groups score lowest."""
    generator = torch.Generator().manual_seed(seed)
    opened = -(-tokens // size)
    table = frames * opened
    groups = [frame * opened + token // size for frame in range(frames) for token in range(tokens)]
    scores = torch.rand(len(groups), generator=generator)
    for _ in range(8):
        fresh = torch.rand(len(groups), generator=generator)
        scores = persistence * scores + (1 - persistence) * fresh
        fullness = torch.tensor([float(groups.count(row)) for row in groups])
        places = (scores - disfavour * fullness).argsort().argsort().tolist()
        gone = evicted(groups, places, tokens, opened, table=table)
        assert len(set(gone)) == tokens
        left = {row for slot, row in enumerate(groups) if slot not in gone}
        empty = [row for row in range(table) if row not in left]
        assert len(empty) >= opened
        for new, slot in enumerate(gone):
            groups[slot] = empty[new // size]


@pytest.mark.parametrize("rows", [0, 1])
def test_places_alone_decide_where_every_token_is_a_group(rows: int) -> None:
    assert evicted([0, 1, 2, 3], [2, 0, 3, 1], count=2, rows=rows, table=4) == [1, 3]
