# SPDX-License-Identifier: Apache-2.0
"""The cache's own operations, each one call to PyTorch's dispatcher.

Each is defined here in plain PyTorch, and launched by `packing_kernels.py` or
`measuring_kernels.py` where Triton runs (see the package `cuda`).

- ``decode_layer``: one layer's tokens side by side, decoded;
- ``append_newest``: the newest frame behind them, and where it waits for its rounding;
- ``write_tokens``: tokens of a group of layers into slots, rounded;
- ``find_camera_place``: where the camera tokens of a frame go;
- ``attend_camera``: a camera token into its place, then attention over the places taken;
- ``query_products``: how much a frame asks for each key;
- ``key_similarity``: how like the mean direction each key is;
- ``unit_range``: rows brought to 0..1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from xsvggt_ros.cache.quantization import (
    UNQUANTIZED,
    decode_keys,
    decode_values,
    encode_keys,
    encode_values,
)
from xsvggt_ros.cache.token_storage import SKIPPED, TENSORS, TokenStorage, take, write_rows
from xsvggt_ros.cuda import operation

_PACKING, _MEASURING = "xsvggt_ros.cache.packing_kernels", "xsvggt_ros.cache.measuring_kernels"


@dataclass(frozen=True, slots=True)
class Parts:
    """Keys or values of the segments of one layer, as ``decode_layer`` takes them."""

    tensors: list[Tensor]
    bits: list[int]

    @classmethod
    def of(cls, storages: Sequence[TokenStorage], *, in_place: bool) -> Parts:
        """Describe ``storages``; those ``in_place`` are not read."""
        return cls(
            [tensor for storage in storages for tensor in storage.tensors],
            [SKIPPED if in_place else storage.bits for storage in storages],
        )


class Decoding(NamedTuple):
    """What ``decode_layer`` is given.

    Attributes:
        key_tensors: where the keys of each segment lie, see :class:`Parts`.
        key_bits: their widths.
        value_tensors: the same of the values.
        value_bits: likewise.
        lengths: tokens of each segment.
        keys: written to, [heads, sum of lengths or more, channels]; tokens that are stored there
            already stay as they are.
        values: the same.

    """

    key_tensors: list[Tensor]
    key_bits: list[int]
    value_tensors: list[Tensor]
    value_bits: list[int]
    lengths: list[int]
    keys: Tensor
    values: Tensor


@operation(writes=("keys", "values"), kernels=_PACKING)
def decode_layer(given: Decoding) -> None:
    """Lay a layer's tokens side by side, decoded."""
    start = 0
    for index, length in enumerate(given.lengths):
        part = slice(start, start + length)
        own = slice(index * TENSORS, (index + 1) * TENSORS)
        start += length
        if not length:
            continue
        bits, out = given.key_bits[index], given.keys
        codes, scale, minimum, rows = given.key_tensors[own]
        if bits == UNQUANTIZED:
            out[:, part] = codes[:, :length]
        elif bits != SKIPPED:
            decode_keys(codes, scale, minimum, rows, bits, out[:, part])
        bits, out = given.value_bits[index], given.values
        codes, scale, minimum, _ = given.value_tensors[own]
        if bits == UNQUANTIZED:
            out[:, part] = codes[:, :length]
        elif bits != SKIPPED:
            decode_values(codes, scale, minimum, bits, out[:, part])


@operation(writes=("keys", "values", "held_keys", "held_values"), kernels=_PACKING)
def append_newest(
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    held_keys: Tensor,
    held_values: Tensor,
) -> None:
    """Copy a layer's newest frame behind its other tokens, and to where it waits.

    Args:
        key: of the newest frame, [heads, frame, channels].
        value: the same.
        keys: written to, of the same shape.
        values: the same.
        held_keys: written to, room in which the newest frame waits for its rounding, like ``key``;
            an empty tensor where it waits in ``keys``.
        held_values: the same.

    """
    for newest, out, held in ((key, keys, held_keys), (value, values, held_values)):
        out.copy_(newest)
        if held.numel():
            held.copy_(newest)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Some tokens on their way into slots.

    Attributes:
        keys: where their keys lie, among others, [lanes, m, channels].
        values: the same of their values.
        numbers: place in the stream of each of the ``m``, modulo 2^32, int32 [sets, m].
        scores: the policy's, float32 [sets, m].
        insertions: what the policy wants to remember of them, float16 [sets, m].
        order: which of the ``m`` are meant, in which order, int64 [sets, n].

    """

    keys: Tensor
    values: Tensor
    numbers: Tensor
    scores: Tensor
    insertions: Tensor
    order: Tensor

    def __len__(self) -> int:
        return self.order.shape[1]

    def pick(self, chosen: Tensor) -> Tokens:
        """Return the tokens at ``chosen`` of these, int64 [sets, k]; nothing else moves."""
        return replace(self, order=self.order.gather(1, chosen))

    def by_score(self) -> Tokens:
        """Return the same tokens, the best ones first."""
        scores = self.scores.gather(1, self.order)
        return self.pick(scores.argsort(dim=1, descending=True, stable=True))

    def span(self, start: int, stop: int) -> Tokens:
        """Return the tokens from ``start`` to ``stop`` of these."""
        return replace(self, order=self.order[:, start:stop])


class Writing(NamedTuple):
    """What ``write_tokens`` is given, see :meth:`of` and :class:`Tokens`.

    Tensors of a storage are those of :attr:`TokenStorage.tensors`; widths may be ``SKIPPED``.
    """

    keys: Tensor
    values: Tensor
    numbers: Tensor
    scores: Tensor
    insertions: Tensor
    order: Tensor
    slots: Tensor
    rows: Tensor
    group_size: int
    key_bits: int
    key_codes: Tensor
    key_scale: Tensor
    key_minimum: Tensor
    row_of_slot: Tensor
    value_bits: int
    value_codes: Tensor
    value_scale: Tensor
    value_minimum: Tensor
    number_of_slot: Tensor
    score_of_slot: Tensor
    insertion_of_slot: Tensor

    @classmethod
    def of(
        cls,
        tokens: Tokens,
        slots: Tensor,
        rows: Tensor,
        keys: TokenStorage | None,
        values: TokenStorage | None,
        beside: tuple[Tensor, Tensor, Tensor],
        group_size: int,
    ) -> Writing:
        """Return what is to be written where.

        Args:
            tokens: runs of ``group_size`` of them share the grids of packed keys.
            slots: where each goes, int64 [sets, n].
            rows: for packed keys, the table row of each run, int64 [sets, runs].
            keys: written to; None = leave the keys alone.
            values: written to; None = leave the values alone.
            beside: written to, numbers, scores and insertions of the slots, [sets, slots] each.
            group_size: keys of a run.

        """
        empty = slots[:0]
        nothing = empty, empty, empty, empty
        key_tensors = nothing if keys is None else keys.tensors
        value_tensors = nothing if values is None else values.tensors
        return cls(
            tokens.keys, tokens.values, tokens.numbers, tokens.scores, tokens.insertions,
            tokens.order, slots, rows, group_size,
            SKIPPED if keys is None else keys.bits, *key_tensors,
            SKIPPED if values is None else values.bits, *value_tensors[:3], *beside,
        )  # fmt: skip


_STORED = (
    "key_codes", "key_scale", "key_minimum", "row_of_slot", "value_codes", "value_scale",
    "value_minimum", "number_of_slot", "score_of_slot", "insertion_of_slot",
)  # fmt: skip


@operation(writes=_STORED, kernels=_PACKING)
def write_tokens(given: Writing) -> None:
    """Round tokens into slots."""
    order, slots, rows = given.order, given.slots, given.rows
    for stored, came in (
        (given.number_of_slot, given.numbers),
        (given.score_of_slot, given.scores),
        (given.insertion_of_slot, given.insertions),
    ):
        stored.scatter_(1, slots, came.gather(1, order))
    # Copies first: tokens that came may lie where others are to go.
    if given.key_bits == UNQUANTIZED:
        write_rows(given.key_codes, slots, take(given.keys, order))
    elif given.key_bits != SKIPPED:
        size = given.group_size
        codes, grid = encode_keys(take(given.keys, order), size, given.key_bits)
        write_rows(given.key_codes, slots, codes)
        write_rows(given.key_scale, rows, grid.scale)
        write_rows(given.key_minimum, rows, grid.minimum)
        row_of_token = rows.repeat_interleave(size, dim=1)[:, : slots.shape[1]]
        given.row_of_slot.scatter_(1, slots, row_of_token.to(given.row_of_slot.dtype))
    if given.value_bits == UNQUANTIZED:
        write_rows(given.value_codes, slots, take(given.values, order))
    elif given.value_bits != SKIPPED:
        codes, grid = encode_values(take(given.values, order), given.value_bits)
        write_rows(given.value_codes, slots, codes)
        write_rows(given.value_scale, slots, grid.scale)
        write_rows(given.value_minimum, slots, grid.minimum)


@operation(
    writes=("keys", "values", "attention"),
    shapes=lambda query, *others: torch.empty_like(query),
    kernels=_MEASURING,
)
def attend_camera(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    place: Tensor,
    held: Tensor,
    keys: Tensor,
    values: Tensor,
    attention: Tensor,
) -> Tensor:
    """Put a token into its place, then attend over the places that are taken.

    Args:
        query: of the token, [1, heads, 1, head_dim].
        key: the same.
        value: the same.
        place: where it goes, int64 [1].
        held: how many places are taken then, from the front, int64 [1].
        keys: written to, [heads, room, head_dim].
        values: written to, the same.
        attention: written to, what each place draws, float32 [heads, room].

    Returns:
        [1, heads, 1, head_dim].

    """
    keys.index_copy_(1, place, key[0])
    values.index_copy_(1, place, value[0])
    logits = query[0].float() @ keys.float().transpose(-2, -1) * query.shape[-1] ** -0.5
    free = torch.arange(keys.shape[1], device=keys.device) >= held
    weights = logits.masked_fill(free, -torch.inf).softmax(dim=-1)
    attention.copy_(weights[:, 0])
    mixed: Tensor = (weights.to(values.dtype) @ values)[None]
    return mixed


class CameraPlaces(NamedTuple):
    """What ``find_camera_place`` is given; see ``CameraMemory``.

    Attributes:
        keys: written to, [caches, heads, room + 1, head_dim]; the last place is none of these.
        values: written to, the same.
        numbers: of the tokens in the stream, written to, int64 [caches, room + 1].
        drawn: attention that each token draws in the mean, written to, float32 [caches, room + 1].
        attention: what it drew in the newest frame, float32 [caches, heads, room + 1].
        seen: tokens that have come so far, written to, int64 [1].
        place: written to, where the next ones go, int64 [1].
        held: places that are taken, written to, int64 [1].
        anchors: places in front that are never given away.
        recent: places at the end that go round among the most recent tokens.
        fading: how much of ``drawn`` the newest frame decides.

    """

    keys: Tensor
    values: Tensor
    numbers: Tensor
    drawn: Tensor
    attention: Tensor
    seen: Tensor
    place: Tensor
    held: Tensor
    anchors: int
    recent: int
    fading: float


def note_attention(drawn: Tensor, attention: Tensor, held: Tensor, fading: float) -> None:
    """Average the attention that each token draws, relative to an equal share; see above."""
    drawn.lerp_(attention.mean(dim=1) * held, fading)


@operation(
    writes=("keys", "values", "numbers", "drawn", "seen", "place", "held"), kernels=_MEASURING
)
def find_camera_place(given: CameraPlaces) -> None:
    """Find the place of a frame's camera tokens.

    The next free place, or that of the oldest of the recent tokens, which may win the place of
    another one.
    """
    keys, values, numbers, drawn, attention, count, place, held, anchors, recent, fading = given
    room = drawn.shape[1] - 1
    note_attention(drawn, attention, held, fading)
    full = count >= room
    oldest = (count - room) % recent + (room - recent)
    torch.where(full, oldest, count, out=place)
    if room > anchors + recent:
        own = drawn.index_select(1, place)
        least, loser = drawn[:, anchors : room - recent].min(dim=1, keepdim=True)
        target = torch.where(full & (own > least), loser + anchors, place)
        drawn.scatter_(1, target, own)
        numbers.scatter_(1, target, numbers.index_select(1, place))
        for tokens in (keys, values):
            moved = tokens.index_select(2, place)
            tokens.scatter_(2, target[:, :, None, None].expand(moved.shape), moved)
    drawn.index_fill_(1, place, 0.0)
    numbers.index_copy_(1, place, count.expand(len(numbers), 1))
    count += 1
    torch.clamp(count, max=room, out=held)


@operation(
    shapes=lambda query, keys, weights: keys.new_empty(keys.shape[1:2], dtype=torch.float32),
    kernels=_MEASURING,
)
def query_products(query: Tensor, keys: Tensor, weights: Tensor) -> Tensor:
    """Return each key's product with a weighted sum of queries, both the mean over heads.

    Args:
        query: [heads, frame, channels].
        keys: [heads, tokens, channels].
        weights: of the queries, float32 [frame].

    Returns:
        float32 [tokens].

    """
    pooled = weights @ query.mean(dim=0, dtype=torch.float32)
    return keys.mean(dim=0, dtype=torch.float32) @ pooled


@operation(
    shapes=lambda keys, anchor: keys.new_empty(keys.shape[:2], dtype=torch.float32),
    kernels=_MEASURING,
)
def key_similarity(keys: Tensor, anchor: int) -> Tensor:
    """Return each key's similarity to the mean direction of all that may go.

    Args:
        keys: [heads, tokens, channels]; the first ``anchor`` of them have no part in the mean.
        anchor: tokens of the first frame.

    Returns:
        float32 [heads, tokens], at most 1: the product with the mean of the normalised keys; NaN
        for keys that are no numbers.

    """
    directions = functional.normalize(keys.float(), dim=-1)
    rest = directions[:, anchor:] if directions.shape[1] > anchor else directions
    # One key that is no number must not make all of them alike.
    rest = rest.nan_to_num(nan=0.0)
    return (directions @ rest.mean(dim=1)[..., None]).squeeze(-1)


@operation(shapes=torch.empty_like, kernels=_MEASURING)
def unit_range(values: Tensor) -> Tensor:
    """Bring float32 rows [n, m] to 0..1; what is not finite becomes NaN and has no part in it."""
    finite = values.isfinite()
    lowest = values.masked_fill(~finite, torch.inf).amin(dim=1, keepdim=True)
    extent = values.masked_fill(~finite, -torch.inf).amax(dim=1, keepdim=True) - lowest
    shares = (values - lowest) / extent.clamp(min=torch.finfo(values.dtype).tiny)
    return shares.masked_fill(~finite, torch.nan)
