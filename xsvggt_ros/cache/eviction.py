# SPDX-License-Identifier: Apache-2.0
"""Which slots are given up.

Keys share their grids by groups, and a grid cannot go before the last token of its group. So the
choice is made under two bounds at once: so many tokens must go, and so many groups of the table
must become empty. Tokens that the score alone would have kept may fall with their group; in
exchange no token is ever rounded a second time, and the table stays a little larger than dense
groups would need. Everything here has a shape that depends on counts alone, and nothing waits for
the device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from xsvggt_ros.cache.token_storage import PackedKeys, TokenStorage


def ranks(scores: Tensor) -> Tensor:
    """Return the place of each of ``scores`` [sets, n] among them, int64, 0 = the lowest."""
    order = scores.argsort(dim=1, stable=True)
    places = torch.arange(scores.shape[1], device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def choose_evicted(
    places: Tensor, count: int, keys: TokenStorage, rows: int, *, guarded: bool = False
) -> Tensor:
    """Choose ``count`` slots to give up, so that ``rows`` rows of the table are empty then.

    Args:
        places: :func:`ranks` of the held tokens, int64 [sets, held]; the lowest go first.
        count: tokens to give up.
        keys: where the keys lie; only packed ones have groups.
        rows: table rows that must be empty afterwards, those that are so already included.
        guarded: whether there are places of ``held`` and beyond, which mark tokens that must stay:
            no group falls with one of them in it as long as there are others.

    Returns:
        int64 [sets, count], distinct slots.

    """
    held = places.shape[1]
    if isinstance(keys, PackedKeys) and rows:
        fallen = _tokens_of_fallen_groups(places, count, keys, rows, guarded=guarded)
        if guarded:
            fallen &= places < held
        places = torch.where(fallen, places - held, places)
    return places.topk(count, dim=1, largest=False).indices


def _tokens_of_fallen_groups(
    places: Tensor, count: int, keys: PackedKeys, rows: int, *, guarded: bool
) -> Tensor:
    held = places.shape[1]
    row_of_slot = keys.rows(held)
    occupancy = keys.occupancy()
    # What a group is worth: how far its tokens stand above those that would go anyway. One token
    # that is ranked beyond all others, because it must stay, outweighs any number of these.
    merit = (places - (count - 1)).clamp_(min=0)
    emptiness = occupancy
    if guarded:
        must_stay = (places >= held).long()
        merit += must_stay * held * held
        emptiness = occupancy.scatter_add(1, row_of_slot, must_stay * held)
    # An empty group comes before all others.
    worth = (occupancy.clamp(max=1) - 1).scatter_add_(1, row_of_slot, merit)
    cheapest = worth.topk(rows, dim=1, largest=False).indices
    emptiest = emptiness.topk(rows, dim=1, largest=False).indices
    # The cheapest groups may hold more tokens than may go. The emptiest ones never do: the table
    # is made large enough for that (`segment.table_rows`).
    affordable = occupancy.gather(1, cheapest).sum(1, keepdim=True) <= count
    falling = torch.where(affordable, cheapest, emptiest)
    falls = torch.zeros_like(occupancy, dtype=torch.bool).scatter_(1, falling, True)
    return falls.gather(1, row_of_slot)
