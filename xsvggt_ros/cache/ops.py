# SPDX-License-Identifier: Apache-2.0
"""The cache's own operations, each one call to PyTorch's dispatcher.

Every operation has an implementation in plain PyTorch (CPU, and CUDA without Triton), one in Triton
(CUDA), and one that only tells shapes (meta), so a step can be counted and checked without a GPU.

- ``decode_layer``: one layer's tokens side by side, decoded, the newest frame behind them;
- ``write_tokens``: tokens of a group of layers into slots, rounded;
- ``attend_few``: attention of few queries over many keys;
- ``attend_camera``: a camera token into its place, then attention over the places taken;
- ``key_similarity``: how like the mean direction each key is;
- ``unit_range``: rows brought to 0..1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

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
from xsvggt_ros.cache.token_storage import SKIPPED, TENSORS, TokenStorage, put, take
from xsvggt_ros.triton_support import triton_runs

_LIBRARY = torch.library.Library("xsvggt", "FRAGMENT")
_LIBRARY.define(
    "decode_layer(Tensor[] key_tensors, int[] key_bits, Tensor[] value_tensors, int[] value_bits, "
    "int[] lengths, Tensor key, Tensor value, Tensor(a!) keys, Tensor(b!) values, "
    "Tensor(c!) held_keys, Tensor(d!) held_values) -> ()"
)
_LIBRARY.define(
    "write_tokens(Tensor keys, Tensor values, Tensor numbers, Tensor scores, Tensor insertions, "
    "Tensor order, Tensor slots, Tensor rows, "
    "int group_size, int key_bits, Tensor(a!) key_codes, Tensor(b!) key_scale, "
    "Tensor(c!) key_minimum, Tensor(d!) row_of_slot, int value_bits, Tensor(e!) value_codes, "
    "Tensor(f!) value_scale, Tensor(g!) value_minimum, Tensor(h!) number_of_slot, "
    "Tensor(i!) score_of_slot, Tensor(j!) insertion_of_slot) -> ()"
)
_LIBRARY.define("attend_few(Tensor query, Tensor keys, Tensor values, Tensor(a!) out) -> ()")
_LIBRARY.define(
    "attend_camera(Tensor query, Tensor key, Tensor value, Tensor place, Tensor held, "
    "Tensor(a!) keys, Tensor(b!) values, Tensor(c!) attention) -> Tensor"
)
_LIBRARY.define("key_similarity(Tensor keys, int anchor) -> Tensor")
_LIBRARY.define("unit_range(Tensor values) -> Tensor")


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


def decode_layer(
    key_parts: Parts,
    value_parts: Parts,
    lengths: Sequence[int],
    newest: tuple[Tensor, Tensor],
    out: tuple[Tensor, Tensor],
    held: tuple[Tensor, Tensor],
) -> None:
    """Lay a layer's tokens side by side, decoded, the newest frame behind them.

    Args:
        key_parts: where the keys of each segment lie.
        value_parts: the same of the values.
        lengths: tokens of each segment.
        newest: keys and values of the newest frame, [heads, frame, channels].
        out: written to, keys and values [heads, sum of lengths + frame, channels]; tokens that are
            stored there already stay as they are.
        held: written to, room in which the newest frame waits for its rounding, like ``newest``;
            an empty tensor where it waits in ``out``.

    """
    torch.ops.xsvggt.decode_layer(
        key_parts.tensors, key_parts.bits, value_parts.tensors, value_parts.bits,
        lengths, *newest, *out, *held,
    )  # fmt: skip


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


def write_tokens(
    tokens: Tokens,
    slots: Tensor,
    rows: Tensor,
    keys: TokenStorage | None,
    values: TokenStorage | None,
    beside: tuple[Tensor, Tensor, Tensor],
    group_size: int,
) -> None:
    """Round tokens into slots.

    Args:
        tokens: runs of ``group_size`` of them share the grids of packed keys.
        slots: where each goes, int64 [sets, n].
        rows: for packed keys, the table row of each run, int64 [sets, runs].
        keys: written to; None = leave the keys alone.
        values: written to; None = leave the values alone.
        beside: written to, numbers, scores and insertions of the slots, [sets, slots] each.
        group_size: keys of a run.

    """
    nothing = (slots[:0],) * TENSORS
    key_tensors = nothing if keys is None else keys.tensors
    value_tensors = nothing if values is None else values.tensors
    torch.ops.xsvggt.write_tokens(
        tokens.keys, tokens.values, tokens.numbers, tokens.scores, tokens.insertions, tokens.order,
        slots, rows, group_size,
        SKIPPED if keys is None else keys.bits, *key_tensors,
        SKIPPED if values is None else values.bits, *value_tensors[:3], *beside,
    )  # fmt: skip


def attend_few(query: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
    """Attend with few queries over many keys, which all of a GPU shares.

    Args:
        query: [heads, rows, head_dim], at most 128 rows.
        keys: [heads, tokens, head_dim].
        values: the same.
        out: written to, like ``query``, of any strides.

    """
    torch.ops.xsvggt.attend_few(query, keys, values, out)


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
        attention: written to, what each place draws, the mean over heads, float32 [room].

    Returns:
        [1, heads, 1, head_dim].

    """
    mixed: Tensor = torch.ops.xsvggt.attend_camera(
        query, key, value, place, held, keys, values, attention
    )
    return mixed


def key_similarity(keys: Tensor, anchor: int) -> Tensor:
    """Return each key's similarity to the mean direction of all that may go.

    Args:
        keys: [heads, tokens, channels]; the first ``anchor`` of them have no part in the mean.
        anchor: tokens of the first frame.

    Returns:
        float32 [heads, tokens], at most 1: the product with the mean of the normalised keys; NaN
        for keys that are no numbers.

    """
    similarity: Tensor = torch.ops.xsvggt.key_similarity(keys, anchor)
    return similarity


def unit_range(values: Tensor) -> Tensor:
    """Bring float32 rows [n, m] to 0..1; what is not finite becomes NaN and has no part in it."""
    scaled: Tensor = torch.ops.xsvggt.unit_range(values)
    return scaled


def decode_layer_in_torch(
    key_tensors: list[Tensor],
    key_bits: list[int],
    value_tensors: list[Tensor],
    value_bits: list[int],
    lengths: list[int],
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    held_keys: Tensor,
    held_values: Tensor,
) -> None:
    """Implement ``decode_layer``."""
    start = 0
    for index, length in enumerate(lengths):
        part = slice(start, start + length)
        own = slice(index * TENSORS, (index + 1) * TENSORS)
        start += length
        if not length:
            continue
        codes, scale, minimum, rows = key_tensors[own]
        if key_bits[index] == UNQUANTIZED:
            keys[:, part] = codes[:, :length]
        elif key_bits[index] != SKIPPED:
            decode_keys(codes, scale, minimum, rows, key_bits[index], keys[:, part])
        codes, scale, minimum, _ = value_tensors[own]
        if value_bits[index] == UNQUANTIZED:
            values[:, part] = codes[:, :length]
        elif value_bits[index] != SKIPPED:
            decode_values(codes, scale, minimum, value_bits[index], values[:, part])
    for newest, out, held in ((key, keys, held_keys), (value, values, held_values)):
        out[:, start:] = newest
        if held.numel():
            held.copy_(newest)


def write_tokens_in_torch(
    keys: Tensor,
    values: Tensor,
    numbers: Tensor,
    scores: Tensor,
    insertions: Tensor,
    order: Tensor,
    slots: Tensor,
    rows: Tensor,
    group_size: int,
    key_bits: int,
    key_codes: Tensor,
    key_scale: Tensor,
    key_minimum: Tensor,
    row_of_slot: Tensor,
    value_bits: int,
    value_codes: Tensor,
    value_scale: Tensor,
    value_minimum: Tensor,
    number_of_slot: Tensor,
    score_of_slot: Tensor,
    insertion_of_slot: Tensor,
) -> None:
    """Implement ``write_tokens``."""
    for stored, came in (
        (number_of_slot, numbers),
        (score_of_slot, scores),
        (insertion_of_slot, insertions),
    ):
        stored.scatter_(1, slots, came.gather(1, order))
    # Copies first: tokens that came may lie where others are to go.
    if key_bits == UNQUANTIZED:
        put(key_codes, slots, take(keys, order))
    elif key_bits != SKIPPED:
        codes, grid = encode_keys(take(keys, order), group_size, key_bits)
        put(key_codes, slots, codes)
        put(key_scale, rows, grid.scale)
        put(key_minimum, rows, grid.minimum)
        row_of_token = rows.repeat_interleave(group_size, dim=1)[:, : slots.shape[1]]
        row_of_slot.scatter_(1, slots, row_of_token.to(row_of_slot.dtype))
    if value_bits == UNQUANTIZED:
        put(value_codes, slots, take(values, order))
    elif value_bits != SKIPPED:
        codes, grid = encode_values(take(values, order), value_bits)
        put(value_codes, slots, codes)
        put(value_scale, slots, grid.scale)
        put(value_minimum, slots, grid.minimum)


def attend_few_in_torch(query: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
    """Implement ``attend_few``.

    Args:
        query: [heads, n, head_dim].
        keys: [heads, tokens, head_dim].
        values: of the shape of ``keys``.
        out: takes the result, of the shape of ``query``.

    """
    out.copy_(functional.scaled_dot_product_attention(query[None], keys[None], values[None])[0])


def attend_camera_in_torch(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    place: Tensor,
    held: Tensor,
    keys: Tensor,
    values: Tensor,
    attention: Tensor,
) -> Tensor:
    """Implement ``attend_camera``.

    Args:
        query: [1, heads, 1, head_dim].
        key: of the newest token, of the same shape.
        value: likewise.
        place: where the newest token is stored, int64 [1].
        held: tokens held, the newest included, int64 [].
        keys: [heads, room, head_dim], changed.
        values: likewise.
        attention: takes the mean attention over heads, float32 [room].

    """
    keys.index_copy_(1, place, key[0])
    values.index_copy_(1, place, value[0])
    logits = query[0].float() @ keys.float().transpose(-2, -1) * query.shape[-1] ** -0.5
    free = torch.arange(keys.shape[1], device=keys.device) >= held
    weights = logits.masked_fill(free, -torch.inf).softmax(dim=-1)
    torch.mean(weights, dim=(0, 1), out=attention)
    mixed: Tensor = (weights.to(values.dtype) @ values)[None]
    return mixed


def key_similarity_in_torch(keys: Tensor, anchor: int) -> Tensor:
    """Implement ``key_similarity``: keys [lanes, tokens, channels] give float32 [lanes, tokens]."""
    directions = functional.normalize(keys.float(), dim=-1)
    rest = directions[:, anchor:] if directions.shape[1] > anchor else directions
    # One key that is no number must not make all of them alike.
    rest = rest.nan_to_num(nan=0.0)
    return (directions @ rest.mean(dim=1)[..., None]).squeeze(-1)


def unit_range_in_torch(values: Tensor) -> Tensor:
    """Implement ``unit_range``: values [rows, count] give the same shape."""
    finite = values.isfinite()
    lowest = values.masked_fill(~finite, torch.inf).amin(dim=1, keepdim=True)
    extent = values.masked_fill(~finite, -torch.inf).amax(dim=1, keepdim=True) - lowest
    shares = (values - lowest) / extent.clamp(min=torch.finfo(values.dtype).tiny)
    return shares.masked_fill(~finite, torch.nan)


def _on_cuda(name: str, in_torch: Any) -> Any:
    def run(*arguments: Any) -> Any:
        if not triton_runs(torch.device("cuda")):
            return in_torch(*arguments)
        from xsvggt_ros.cache.kernels import launch

        return getattr(launch, name)(*arguments)

    return run


for _name, _in_torch in (
    ("decode_layer", decode_layer_in_torch),
    ("write_tokens", write_tokens_in_torch),
    ("attend_few", attend_few_in_torch),
    ("attend_camera", attend_camera_in_torch),
    ("key_similarity", key_similarity_in_torch),
    ("unit_range", unit_range_in_torch),
):
    _LIBRARY.impl(_name, _in_torch, "CPU")
    _LIBRARY.impl(_name, _on_cuda(_name, _in_torch), "CUDA")
for _name in ("decode_layer", "write_tokens", "attend_few"):
    _LIBRARY.impl(_name, lambda *arguments: None, "Meta")
_LIBRARY.impl(
    "key_similarity",
    lambda keys, anchor: keys.new_empty(keys.shape[:2], dtype=torch.float32),
    "Meta",
)
_LIBRARY.impl("attend_camera", lambda query, *others: torch.empty_like(query), "Meta")
_LIBRARY.impl("unit_range", torch.empty_like, "Meta")
