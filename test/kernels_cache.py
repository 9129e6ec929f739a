# SPDX-License-Identifier: Apache-2.0
"""The Triton kernels against their definitions in PyTorch, by Triton's interpreter or on a GPU."""

import pytest
import torch
from triton_interpreter import DEVICE, INTERPRETING

from xsvggt_ros.cache import ops
from xsvggt_ros.cache.kernels import launch as kernels
from xsvggt_ros.cache.token_storage import NativeStorage, PackedKeys, PackedValues


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


def biased(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return tokens whose channels have means and widths of their own, as keys have."""
    means, widths = random(shape[-1], seed=seed + 1), random(shape[-1], seed=seed + 2).exp()
    tokens = 5 * means + widths * random(*shape, seed=seed)
    tokens[..., 0] = 4.7  # a constant channel
    return tokens.to(dtype)


def empty_storages(
    lanes: int, slots: int, channels: int, key_bits: int, value_bits: int, sets: int, rows: int
):
    device = torch.device(DEVICE)
    keys = values = NativeStorage(
        torch.zeros(lanes, slots, channels, device=device), borrowed=False
    )
    if key_bits < 16:
        keys = PackedKeys.allocate(lanes, slots, channels, key_bits, device, sets=sets, rows=rows)
        keys.tensors[0].zero_()
    if value_bits < 16:
        values = PackedValues.allocate(lanes, slots, channels, value_bits, device)
        values.tensors[0].zero_()
    elif key_bits == 16:
        values = NativeStorage(torch.zeros(lanes, slots, channels, device=device), borrowed=False)
    return keys, values


WIDTHS = [(4, 4), (2, 8), (8, 2), (16, 4), (4, 16)]


@pytest.mark.parametrize(("key_bits", "value_bits"), WIDTHS)
@pytest.mark.parametrize(("channels", "group", "sets"), [(64, 64, 2), (6, 10, 6), (7, 24, 2)])
def test_codes_and_grids_are_the_same_to_the_bit(key_bits, value_bits, channels, group, sets):
    lanes, frame, slots, count = 6, 70, 100, 67
    keys, values = biased(lanes, frame, channels), biased(lanes, frame, channels, seed=7)
    generator = torch.Generator().manual_seed(3)
    order = torch.stack([torch.randperm(frame, generator=generator)[:count] for _ in range(sets)])
    where = torch.stack([torch.randperm(slots, generator=generator)[:count] for _ in range(sets)])
    runs = -(-count // group)
    rows = torch.stack([torch.randperm(runs + 3, generator=generator)[:runs] for _ in range(sets)])
    order, where, rows = order.to(DEVICE), where.to(DEVICE), rows.to(DEVICE)
    found = []
    for write in (ops.write_tokens_in_torch, kernels.write_tokens):
        stored = empty_storages(lanes, slots, channels, key_bits, value_bits, sets, runs + 3)
        key_tensors, value_tensors = stored[0].tensors, stored[1].tensors
        write(keys, values, order, where, rows, group, key_bits, *key_tensors, value_bits,
              *value_tensors[:3])  # fmt: skip
        found.append((*key_tensors, *value_tensors[:3]))
    for expected, actual in zip(*found, strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize(
    "numbers",
    [0.0, 1e-8, -1e-5, 0.1, 65504.0, 1e6, -1e6, 3.14159e4],
    ids=str,
)
@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_grids_at_the_ends_of_float16(numbers, bits):
    tokens = (random(1, 40, 8) * numbers).contiguous()
    tokens[:, :, 3] = numbers
    everything = torch.arange(40, device=DEVICE)[None]
    rows = torch.zeros(1, 1, dtype=torch.int64, device=DEVICE)
    found = []
    for write in (ops.write_tokens_in_torch, kernels.write_tokens):
        keys, values = empty_storages(1, 40, 8, bits, bits, 1, 2)
        write(tokens, tokens, everything, everything, rows, 64, bits, *keys.tensors, bits,
              *values.tensors[:3])  # fmt: skip
        found.append((*keys.tensors, *values.tensors[:3]))
    for expected, actual in zip(*found, strict=True):
        assert torch.equal(actual, expected)


def test_what_is_no_number_spoils_its_own_group_alone():
    tokens = random(1, 128, 16)
    tokens[0, 3, 5] = torch.nan
    everything = torch.arange(128, device=DEVICE)[None]
    rows = torch.arange(2, device=DEVICE)[None]
    for write in (ops.write_tokens_in_torch, kernels.write_tokens):
        keys, values = empty_storages(1, 128, 16, 4, 4, 1, 2)
        write(tokens, tokens, everything, everything, rows, 64, 4, *keys.tensors, 4,
              *values.tensors[:3])  # fmt: skip
        scale, minimum = keys.tensors[1:3]
        assert scale[0, 0].isnan().nonzero().flatten().tolist() == [5]
        assert minimum[0, 0].isnan().nonzero().flatten().tolist() == [5]
        assert not scale[0, 1].isnan().any()
        assert values.tensors[1][0, :, 0].isnan().nonzero().flatten().tolist() == [3]


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
    key_bits, value_bits, channels, sets, dtype, in_place
):
    heads, frame, slots, lengths = 3, 20, 70, [30, 0, 70]
    parts, native_keys, native_values = (
        [],
        in_place and key_bits == 16,
        in_place and value_bits == 16,
    )
    for seed, length in enumerate(lengths):
        stored = empty_storages(heads, slots, channels, key_bits, value_bits, sets, 3)
        if length:
            came = biased(heads, slots, channels, seed=seed), biased(heads, slots, channels)
            everything = torch.arange(slots, device=DEVICE).expand(sets, -1)
            rows = torch.arange(2, device=DEVICE).expand(sets, -1)
            ops.write_tokens((*came, everything), everything, rows, *stored, 64)
        parts.append(stored)
    if dtype != torch.float32:
        parts = [
            tuple(
                NativeStorage(each.tensors[0].to(dtype), borrowed=False)
                if each.bits == 16
                else each
                for each in stored
            )
            for stored in parts
        ]
    key_parts = ops.Parts.of([stored[0] for stored in parts], in_place=native_keys)
    value_parts = ops.Parts.of([stored[1] for stored in parts], in_place=native_values)
    packed = random(3, frame, heads, channels, dtype=dtype)
    newest = packed[1].transpose(0, 1), packed[2].transpose(0, 1)
    found = []
    for decode in (ops.decode_layer_in_torch, kernels.decode_layer):
        out = [torch.zeros(heads, 130, channels, dtype=dtype, device=DEVICE) for _ in range(2)]
        held = [
            torch.zeros((heads, frame, channels) if hold else (0,), dtype=dtype, device=DEVICE)
            for hold in (not native_keys, not native_values)
        ]
        decode(
            key_parts.tensors, key_parts.bits, value_parts.tensors, value_parts.bits, lengths,
            *newest, *(tensor[:, :120] for tensor in out), *held,
        )  # fmt: skip
        found.append((*out, *held))
    for expected, actual in zip(*found, strict=True):
        if dtype == torch.bfloat16 and INTERPRETING:  # which cuts bfloat16 off
            torch.testing.assert_close(actual, expected, rtol=2**-7, atol=0)
        else:
            assert torch.equal(actual, expected)
    assert torch.equal(found[1][0][:, 100:120], newest[0])


@pytest.mark.parametrize(
    ("tokens", "anchor", "channels"), [(300, 40, 64), (40, 40, 6), (5, 0, 64), (2100, 700, 6)]
)
def test_similarities(tokens, anchor, channels):
    keys = biased(2, tokens, channels)
    keys[0, 3] = torch.nan
    keys[1, 4] = 0
    expected = ops.key_similarity_in_torch(keys, anchor)
    actual = kernels.key_similarity(keys, anchor)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("count", [1, 7, 1024, 2500])
def test_unit_ranges(count):
    values = random(3, count)
    values[0, 0] = torch.nan
    values[1, -1] = torch.inf
    values[2] = 4.0
    expected = ops.unit_range_in_torch(values)
    torch.testing.assert_close(kernels.unit_range(values), expected, equal_nan=True)


@pytest.mark.parametrize(("room", "channels"), [(2, 6), (64, 64), (100, 6)])
def test_the_camera_heads_attention(room, channels):
    heads = 3
    for held in {1, room // 2 + 1, room}:
        query, key, value = random(3, 1, heads, 1, channels, seed=held)
        place = torch.tensor([held // 2], device=DEVICE)
        found = []
        for attend in (ops.attend_camera_in_torch, kernels.attend_camera):
            keys, values = random(2, heads, room, channels, seed=9)
            attention = torch.zeros(room, device=DEVICE)
            count = torch.tensor([held], device=DEVICE)
            mixed = attend(query, key, value, place, count, keys, values, attention)
            found.append((mixed, keys, values, attention))
        for expected, actual in zip(*found, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
