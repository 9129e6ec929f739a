# SPDX-License-Identifier: Apache-2.0
"""The cache's Triton kernels against their definitions, by Triton's interpreter or on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from inspect import unwrap
from typing import Any

import pytest
import torch
from triton_interpreter import DEVICE, INTERPRETING

from xsvggt_ros.cache import measuring_kernels, ops, packing_kernels
from xsvggt_ros.cache.token_storage import NativeStorage, PackedKeys, PackedValues

CPU = torch.device("cpu")
Stored = tuple[NativeStorage | PackedKeys, NativeStorage | PackedValues]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def biased(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return tokens whose channels have means and widths of their own, as keys have."""
    means, widths = random(shape[-1], seed=seed + 1), random(shape[-1], seed=seed + 2).exp()
    tokens = 5 * means + widths * random(*shape, seed=seed)
    tokens[..., 0] = 4.7  # a constant channel
    return tokens


def permuted(sets: int, size: int, count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(size, generator=generator)[:count] for _ in range(sets)])


def copies(values: Any, device: str) -> Any:
    """Return a copy of all tensors in ``values``."""
    if isinstance(values, torch.Tensor):
        return values.to(device, copy=True)
    return [copies(each, device) for each in values] if isinstance(values, list) else values


def results(
    define: Callable[..., torch.Tensor | None],
    kernel: Callable[..., torch.Tensor | None],
    values: list[Any],
    written: list[int],
    given: Callable[..., Any] | None = None,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield what definition and kernel wrote into ``values`` at these places, and returned.

    ``given`` is the named tuple that they take instead of single arguments. The definition runs on
    the CPU, where divisions are exact; PyTorch's on a GPU are not always.
    """
    found = []
    for function, device in ((define, "cpu"), (kernel, DEVICE)):
        own = copies(values, device)
        returned = function(*own) if given is None else function(given(*own))
        tensors = [own[place] for place in written]
        found.append([each.cpu() for each in [*tensors, returned] if each is not None])
    yield from zip(*found, strict=True)


def storages(
    lanes: int, slots: int, channels: int, key_bits: int, value_bits: int, sets: int, rows: int
) -> Stored:
    """Return empty storages for keys and values."""
    keys: NativeStorage | PackedKeys
    values: NativeStorage | PackedValues
    keys, values = (
        NativeStorage(torch.zeros(lanes, slots, channels), borrowed=False) for _ in range(2)
    )
    if key_bits < 16:
        keys = PackedKeys.allocate(lanes, slots, channels, key_bits, CPU, sets=sets, rows=rows)
    if value_bits < 16:
        values = PackedValues.allocate(lanes, slots, channels, value_bits, CPU)
    for storage in (keys, values):
        storage.tensors[0].zero_()
    return keys, values


def arguments(
    keys: torch.Tensor,
    values: torch.Tensor,
    order: torch.Tensor,
    slots: torch.Tensor,
    rows: torch.Tensor,
    group: int,
    stored: Stored,
) -> list[Any]:
    """Return the arguments of ``write_tokens``."""
    key_storage, value_storage = stored
    sets, tokens, count = len(order), keys.shape[1], value_storage.tensors[0].shape[1]
    numbers = torch.arange(tokens, dtype=torch.int32).expand(sets, -1)
    scores = random(sets, tokens + 30, seed=4)[:, 30:]
    insertions = torch.full((1, 1), 0.25, dtype=torch.float16).expand(sets, tokens)
    beside = [torch.zeros(sets, count, dtype=each.dtype) for each in (numbers, scores, insertions)]
    return [
        keys, values, numbers, scores, insertions, order, slots, rows, group,
        key_storage.bits, *key_storage.tensors, value_storage.bits, *value_storage.tensors[:3],
        *beside,
    ]  # fmt: skip


def assert_written_alike(*values: Any) -> None:
    written = [10, 11, 12, 13, 15, 16, 17, 18, 19, 20]
    both = results(
        unwrap(ops.write_tokens),
        packing_kernels.write_tokens,
        arguments(*values),
        written,
        ops.Writing,
    )
    for expected, actual in both:
        assert torch.equal(actual, expected)


WIDTHS = [(4, 4), (2, 8), (8, 2), (16, 4), (4, 16)]


@pytest.mark.parametrize(("key_bits", "value_bits"), WIDTHS)
@pytest.mark.parametrize(("channels", "group", "sets"), [(64, 64, 2), (6, 10, 6), (7, 24, 2)])
def test_codes_and_grids_are_the_same_to_the_bit(
    key_bits: int, value_bits: int, channels: int, group: int, sets: int
) -> None:
    lanes, frame, slots, count = 6, 70, 100, 67
    runs = -(-count // group)
    assert_written_alike(
        biased(lanes, frame, channels),
        biased(lanes, frame, channels, seed=7),
        permuted(sets, frame, count, 1),
        permuted(sets, slots, count, 2),
        permuted(sets, runs + 3, runs, 3),
        group,
        storages(lanes, slots, channels, key_bits, value_bits, sets, runs + 3),
    )


@pytest.mark.parametrize("size", [0.0, 1e-8, -1e-5, 0.1, 65504.0, 1e6, -1e6, 3.14159e4], ids=str)
@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_grids_at_the_ends_of_float16(size: float, bits: int) -> None:
    tokens = random(1, 40, 8) * size
    tokens[:, :, 3] = size
    everything, rows = torch.arange(40)[None], torch.zeros(1, 1, dtype=torch.int64)
    stored = storages(1, 40, 8, bits, bits, 1, 2)
    assert_written_alike(tokens, tokens, everything, everything, rows, 64, stored)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_what_is_no_number_spoils_its_own_group_alone() -> None:
    tokens = random(1, 128, 16)
    tokens[0, 3, 5] = torch.nan
    everything, rows = torch.arange(128)[None], torch.arange(2)[None]
    stored = storages(1, 128, 16, 4, 4, 1, 2)
    values = arguments(tokens, tokens, everything, everything, rows, 64, stored)
    both = list(
        results(
            unwrap(ops.write_tokens),
            packing_kernels.write_tokens,
            values,
            [11, 12, 16],
            ops.Writing,
        )
    )
    for scale, minimum, value_scale in zip(*both, strict=True):
        assert scale[0, 0].isnan().nonzero().flatten().tolist() == [5]
        assert minimum[0, 0].isnan().nonzero().flatten().tolist() == [5]
        assert not scale[0, 1].isnan().any()
        assert value_scale[0, :, 0].isnan().nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize(("key_bits", "value_bits"), [*WIDTHS, (16, 16)])
@pytest.mark.parametrize(
    ("channels", "sets", "dtype", "in_place"),
    [
        (64, 1, torch.bfloat16, False),
        (64, 3, torch.float16, True),
        (6, 3, torch.float32, False),
        (7, 1, torch.float32, True),
    ],
)
def test_decoded_layers_are_the_same_to_the_bit(
    key_bits: int, value_bits: int, channels: int, sets: int, dtype: torch.dtype, in_place: bool
) -> None:
    heads, slots, lengths = 3, 70, [30, 0, 70]
    parts = [
        filled_storages(heads, slots, channels, key_bits, value_bits, sets, dtype, seed)
        for seed in range(3)
    ]
    native_keys, native_values = in_place and key_bits == 16, in_place and value_bits == 16
    key_parts = ops.Parts.of([keys for keys, _ in parts], in_place=native_keys)
    value_parts = ops.Parts.of([values for _, values in parts], in_place=native_values)
    out = torch.zeros(heads, 130, channels, dtype=dtype)
    values = [
        key_parts.tensors, key_parts.bits, value_parts.tensors, value_parts.bits, lengths,
        out[:, :120], out[:, :120],
    ]  # fmt: skip
    both = results(
        unwrap(ops.decode_layer), packing_kernels.decode_layer, values, [5, 6], ops.Decoding
    )
    for expected, actual in both:
        if dtype == torch.bfloat16 and INTERPRETING:  # which cuts bfloat16 off
            torch.testing.assert_close(actual, expected, rtol=2**-7, atol=0)
        else:
            assert torch.equal(actual, expected)


@pytest.mark.parametrize(
    ("holds_keys", "holds_values"), [(True, True), (False, True), (True, False)]
)
@pytest.mark.parametrize(("channels", "dtype"), [(64, torch.bfloat16), (6, torch.float32)])
def test_the_newest_frame_comes_behind_the_others_and_waits_to_the_bit(
    holds_keys: bool, holds_values: bool, channels: int, dtype: torch.dtype
) -> None:
    heads, frame = 3, 70
    key, value = random(2, frame, heads, channels).to(dtype).transpose(1, 2).unbind()
    context = torch.zeros(heads, 130, channels, dtype=dtype)
    held = torch.zeros(heads, frame, channels, dtype=dtype)
    values = [
        key, value, context[:, 60:], context[:, 60:],
        held if holds_keys else held[:0], held if holds_values else held[:0],
    ]  # fmt: skip
    both = results(unwrap(ops.append_newest), packing_kernels.append_newest, values, [2, 3, 4, 5])
    for expected, actual in both:
        assert torch.equal(actual, expected)


def filled_storages(
    heads: int,
    slots: int,
    channels: int,
    key_bits: int,
    value_bits: int,
    sets: int,
    dtype: torch.dtype,
    seed: int,
) -> Stored:
    stored = storages(heads, slots, channels, key_bits, value_bits, sets, 3)
    everything = torch.arange(slots).expand(sets, -1)
    came = biased(heads, slots, channels, seed=seed), biased(heads, slots, channels, seed=seed + 9)
    rows = torch.arange(2).expand(sets, -1)
    given = arguments(*came, everything, everything, rows, 64, stored)
    unwrap(ops.write_tokens)(ops.Writing(*given))
    keys, values = stored
    return (
        NativeStorage(keys.tensors[0].to(dtype), borrowed=False) if keys.bits == 16 else keys,
        NativeStorage(values.tensors[0].to(dtype), borrowed=False) if values.bits == 16 else values,
    )


@pytest.mark.parametrize(
    ("tokens", "anchor", "channels"), [(300, 40, 64), (40, 40, 6), (5, 0, 64), (2100, 700, 6)]
)
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_similarities(tokens: int, anchor: int, channels: int) -> None:
    keys = biased(2, tokens, channels)
    keys[0, 3] = torch.nan
    keys[1, 4] = 0
    both = results(unwrap(ops.key_similarity), measuring_kernels.key_similarity, [keys, anchor], [])
    for expected, actual in both:
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("count", [1, 7, 1024, 2500])
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_unit_ranges(count: int) -> None:
    values = random(3, count)
    values[0, 0] = torch.nan
    values[1, -1] = torch.inf
    values[2] = 4.0
    for expected, actual in results(
        unwrap(ops.unit_range), measuring_kernels.unit_range, [values], []
    ):
        torch.testing.assert_close(actual, expected, equal_nan=True)


@pytest.mark.parametrize(("frame", "tokens", "channels"), [(150, 333, 64), (3, 64, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_of_keys_with_the_pooled_query(
    frame: int, tokens: int, channels: int, dtype: torch.dtype
) -> None:
    heads = 3
    values = [
        random(frame, heads, channels).to(dtype).transpose(0, 1),
        random(heads, tokens + 2, channels, seed=1).to(dtype)[:, 2:],
        random(frame, seed=2).abs(),
    ]
    both = results(unwrap(ops.query_products), measuring_kernels.query_products, values, [])
    for expected, actual in both:
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("room", "channels"), [(2, 6), (64, 64), (300, 6), (1500, 40), (2100, 40)])
def test_the_camera_heads_attention(room: int, channels: int) -> None:
    heads = 3
    for held in {1, room // 2 + 1, room}:
        values = [
            *random(3, 1, heads, 1, channels, seed=held),
            torch.tensor([held // 2]),
            torch.tensor([held]),
            *random(2, heads, room, channels, seed=9),
            torch.zeros(heads, room),
        ]
        both = results(
            unwrap(ops.attend_camera), measuring_kernels.attend_camera, values, [5, 6, 7]
        )
        for expected, actual in both:
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("room", "anchors", "recent"),
    [(9, 1, 4), (9, 3, 3), (4, 1, 3), (2, 1, 1), (40, 8, 16), (2100, 1, 1050)],
)
@pytest.mark.parametrize("channels", [8, 6])
def test_the_place_of_camera_tokens(room: int, anchors: int, recent: int, channels: int) -> None:
    caches, heads = 3, 2
    for count in (0, 1, room - 1, room, room + 1, 3 * room + 2):
        values = [
            *random(2, caches, heads, room + 1, channels, seed=count),
            torch.arange(caches * (room + 1)).view(caches, room + 1),
            random(caches, room + 1, seed=1).abs(),
            random(caches, heads, room + 1, seed=2).abs(),
            torch.tensor([count]),
            torch.tensor([room]),
            torch.tensor([min(count, room)]),
            anchors,
            recent,
            0.1,
        ]
        both = results(
            unwrap(ops.find_camera_place),
            measuring_kernels.find_camera_place,
            values,
            [0, 1, 2, 3, 5, 6, 7],
            ops.CameraPlaces,
        )
        for expected, actual in both:
            torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)
