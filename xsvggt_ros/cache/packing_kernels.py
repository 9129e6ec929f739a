# SPDX-License-Identifier: Apache-2.0
"""Launches in Triton: tokens into packed codes and back, bit for bit as `quantization.py` does it.

What rounds here rounds as there: minima down and scales up to float16, codes to the nearest, halves
to even, divisions exact. Products of codes and scales are exact in float32, so that the compiler
may fuse the addition behind them.
"""

import triton
import triton.language as tl
from torch import Tensor

from xsvggt_ros.cache.ops import Decoding, Writing
from xsvggt_ros.cache.quantization import UNQUANTIZED
from xsvggt_ros.cache.token_storage import SKIPPED, TENSORS, take, write_rows

_NATIVE = tl.constexpr(16)
_HALF_STEP = tl.constexpr(2.0**-10)
_LEAST_HALF = tl.constexpr(2.0**-24)
_MOST_HALF = tl.constexpr(65504.0)
_TO_WHOLE = tl.constexpr(12582912.0)  # 1.5 * 2^23: adding it leaves no bit behind the point


@triton.jit
def _decode_segment(  # type: ignore[no-untyped-def]
    key_codes, key_scale, key_minimum, key_rows, keys,
    value_codes, value_scale, value_minimum, values,
    length, lanes_per_set,
    key_codes_lane, key_grid_lane, key_rows_set, keys_lane,
    value_codes_lane, value_grid_lane, values_lane,
    CHANNELS: tl.constexpr, KEY_BITS: tl.constexpr, VALUE_BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Decode ``BLOCK`` slots of one lane; the outputs begin where the segment's tokens go."""
    lane = tl.program_id(1).to(tl.int64)
    slots = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = slots < length
    if KEY_BITS > 0:
        rows = slots
        if KEY_BITS < _NATIVE:
            set_rows = key_rows + (lane // lanes_per_set) * key_rows_set
            rows = tl.load(set_rows + slots, mask=inside, other=0).to(tl.int32)
        _decode_side(
            key_codes + lane * key_codes_lane, key_scale + lane * key_grid_lane,
            key_minimum + lane * key_grid_lane, keys + lane * keys_lane,
            slots, rows, inside, CHANNELS, KEY_BITS, True,
        )  # fmt: skip
    if VALUE_BITS > 0:
        _decode_side(
            value_codes + lane * value_codes_lane, value_scale + lane * value_grid_lane,
            value_minimum + lane * value_grid_lane, values + lane * values_lane,
            slots, slots, inside, CHANNELS, VALUE_BITS, False,
        )  # fmt: skip


@triton.jit
def _decode_side(  # type: ignore[no-untyped-def]
    codes, scale, minimum, out, slots, rows, inside,
    CHANNELS: tl.constexpr, BITS: tl.constexpr, PER_CHANNEL: tl.constexpr,
):  # fmt: skip
    """Decode keys (a grid for each channel of a row) or values (one for each slot)."""
    if BITS == _NATIVE:
        channels = tl.arange(0, triton.next_power_of_2(CHANNELS))[None, :]
        taken = inside[:, None] & (channels < CHANNELS)
        places = slots[:, None] * CHANNELS + channels
        tl.store(out + places, tl.load(codes + places, mask=taken), mask=taken)
    else:
        WIDTH: tl.constexpr = (CHANNELS * BITS + 7) // 8
        columns = tl.arange(0, triton.next_power_of_2(WIDTH))[None, :]
        held = inside[:, None] & (columns < WIDTH)
        packed = tl.load(codes + slots[:, None] * WIDTH + columns, mask=held, other=0).to(tl.int32)
        for plane in tl.static_range(8 // BITS):
            channels = columns + plane * WIDTH
            taken = held & (channels < CHANNELS)
            if PER_CHANNEL:
                grid = rows[:, None] * CHANNELS + channels
            else:
                grid = rows[:, None] + channels * 0
            step = tl.load(scale + grid, mask=taken, other=0.0).to(tl.float32)
            least = tl.load(minimum + grid, mask=taken, other=0.0).to(tl.float32)
            code = ((packed >> (plane * BITS)) & ((1 << BITS) - 1)).to(tl.float32)
            decoded = (least + code * step).to(out.dtype.element_ty)
            tl.store(out + slots[:, None] * CHANNELS + channels, decoded, mask=taken)


@triton.jit
def _copy_newest(  # type: ignore[no-untyped-def]
    key, value, keys, values, held_keys, held_values, frame,
    key_lane, key_token, value_lane, value_token, keys_lane, values_lane,
    CHANNELS: tl.constexpr, HOLD_KEYS: tl.constexpr, HOLD_VALUES: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Copy ``BLOCK`` tokens of the newest frame behind the decoded ones, and where they wait."""
    lane = tl.program_id(1).to(tl.int64)
    tokens = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK))[:, None]
    channels = tl.arange(0, triton.next_power_of_2(CHANNELS))[None, :]
    inside = (tokens < frame) & (channels < CHANNELS)
    dense = tokens * CHANNELS + channels
    came = tl.load(key + lane * key_lane + tokens * key_token + channels, mask=inside)
    tl.store(keys + lane * keys_lane + dense, came, mask=inside)
    if HOLD_KEYS:
        tl.store(held_keys + lane * frame * CHANNELS + dense, came, mask=inside)
    came = tl.load(value + lane * value_lane + tokens * value_token + channels, mask=inside)
    tl.store(values + lane * values_lane + dense, came, mask=inside)
    if HOLD_VALUES:
        tl.store(held_values + lane * frame * CHANNELS + dense, came, mask=inside)


@triton.jit
def _write_keys(  # type: ignore[no-untyped-def]
    keys, order, slots, rows, codes, scale, minimum, row_of_slot,
    count, lanes_per_set, keys_lane, keys_token, order_set, slots_set, rows_set,
    codes_lane, grid_lane, row_of_slot_set,
    GROUP: tl.constexpr, CHANNELS: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Round one run of ``GROUP`` keys of one lane, each channel by a grid of its own."""
    run = tl.program_id(0)
    lane = tl.program_id(1).to(tl.int64)
    own_set = lane // lanes_per_set
    places = tl.arange(0, BLOCK)
    numbers = run * GROUP + places
    inside = (places < GROUP) & (numbers < count)
    token = tl.load(order + own_set * order_set + numbers, mask=inside, other=0)
    slot = tl.load(slots + own_set * slots_set + numbers, mask=inside, other=0)
    row = tl.load(rows + own_set * rows_set + run)
    WIDTH: tl.constexpr = (CHANNELS * BITS + 7) // 8
    columns = tl.arange(0, triton.next_power_of_2(WIDTH))
    packed = tl.zeros((BLOCK, triton.next_power_of_2(WIDTH)), dtype=tl.int32)
    for plane in tl.static_range(8 // BITS):
        channels = columns + plane * WIDTH
        known = (columns < WIDTH) & (channels < CHANNELS)
        taken = inside[:, None] & known[None, :]
        where = keys + lane * keys_lane + token[:, None] * keys_token + channels[None, :]
        came = tl.load(where, mask=taken, other=0.0).to(tl.float32)
        least, most = _range(came, taken, 0)
        step, low = _grid(least, most, BITS)
        place = lane * grid_lane + row * CHANNELS + channels
        tl.store(scale + place, step, mask=known)
        tl.store(minimum + place, low, mask=known)
        packed |= _code(came, step[None, :], low[None, :], taken, BITS) << (plane * BITS)
    stored = inside[:, None] & (columns < WIDTH)[None, :]
    where = codes + lane * codes_lane + slot[:, None] * WIDTH + columns[None, :]
    tl.store(where, packed.to(tl.uint8), mask=stored)
    first = inside & (lane % lanes_per_set == 0)
    kept = (row + places * 0).to(row_of_slot.dtype.element_ty)
    tl.store(row_of_slot + own_set * row_of_slot_set + slot, kept, mask=first)


@triton.jit
def _write_values(  # type: ignore[no-untyped-def]
    values, order, slots, codes, scale, minimum,
    count, lanes_per_set, values_lane, values_token, order_set, slots_set, codes_lane, grid_lane,
    CHANNELS: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Round ``BLOCK`` values of one lane, each by a grid of its own."""
    lane = tl.program_id(1).to(tl.int64)
    own_set = lane // lanes_per_set
    numbers = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = numbers < count
    token = tl.load(order + own_set * order_set + numbers, mask=inside, other=0)
    slot = tl.load(slots + own_set * slots_set + numbers, mask=inside, other=0)
    rows = values + lane * values_lane + token[:, None] * values_token
    channels = tl.arange(0, triton.next_power_of_2(CHANNELS))[None, :]
    taken = inside[:, None] & (channels < CHANNELS)
    least, most = _range(tl.load(rows + channels, mask=taken, other=0.0).to(tl.float32), taken, 1)
    step, low = _grid(least, most, BITS)
    tl.store(scale + lane * grid_lane + slot, step, mask=inside)
    tl.store(minimum + lane * grid_lane + slot, low, mask=inside)
    WIDTH: tl.constexpr = (CHANNELS * BITS + 7) // 8
    columns = tl.arange(0, triton.next_power_of_2(WIDTH))[None, :]
    packed = tl.zeros((BLOCK, triton.next_power_of_2(WIDTH)), dtype=tl.int32)
    for plane in tl.static_range(8 // BITS):
        channels = columns + plane * WIDTH
        taken = inside[:, None] & (columns < WIDTH) & (channels < CHANNELS)
        came = tl.load(rows + channels, mask=taken, other=0.0).to(tl.float32)
        packed |= _code(came, step[:, None], low[:, None], taken, BITS) << (plane * BITS)
    stored = inside[:, None] & (columns < WIDTH)
    where = codes + lane * codes_lane + slot[:, None] * WIDTH + columns
    tl.store(where, packed.to(tl.uint8), mask=stored)


@triton.jit
def _write_beside(  # type: ignore[no-untyped-def]
    numbers, scores, insertions, order, slots, number_of_slot, score_of_slot, insertion_of_slot,
    count, numbers_set, scores_set, insertions_set, insertions_token, order_set, slots_set,
    stored_set,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write number, score and insertion of ``BLOCK`` tokens of one set into their slots."""
    own_set = tl.program_id(1).to(tl.int64)
    places = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = places < count
    token = tl.load(order + own_set * order_set + places, mask=inside, other=0)
    slot = tl.load(slots + own_set * slots_set + places, mask=inside, other=0)
    target = own_set * stored_set + slot
    number = tl.load(numbers + own_set * numbers_set + token, mask=inside, other=0)
    tl.store(number_of_slot + target, number, mask=inside)
    score = tl.load(scores + own_set * scores_set + token, mask=inside, other=0.0)
    tl.store(score_of_slot + target, score, mask=inside)
    insertion = tl.load(
        insertions + own_set * insertions_set + token * insertions_token, mask=inside, other=0.0
    )
    tl.store(insertion_of_slot + target, insertion, mask=inside)


@triton.jit
def _range(came, taken, AXIS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the least and the largest along an axis; NaN where one of them is no number."""
    unknown = tl.max(((came != came) & taken).to(tl.int32), axis=AXIS) > 0
    least = tl.min(tl.where(taken, came, float("inf")), axis=AXIS)
    most = tl.max(tl.where(taken, came, float("-inf")), axis=AXIS)
    return tl.where(unknown, float("nan"), least), tl.where(unknown, float("nan"), most)


@triton.jit
def _grid(least, most, BITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return scale and minimum, float16, as `quantization.fit_grid` does."""
    low = _within_half(least)
    minimum = low.to(tl.float16)
    below = (low - tl.abs(low) * _HALF_STEP - _LEAST_HALF).to(tl.float16)
    minimum = tl.where(minimum.to(tl.float32) > low, below, minimum)
    LEVELS: tl.constexpr = (1 << BITS) - 1
    extent = _within_half(most) - minimum.to(tl.float32)
    step = tl.div_rn(extent, extent * 0.0 + LEVELS)
    scale = step.to(tl.float16)
    above = (step + tl.abs(step) * _HALF_STEP + _LEAST_HALF).to(tl.float16)
    return tl.where(scale.to(tl.float32) < step, above, scale), minimum


@triton.jit
def _within_half(numbers):  # type: ignore[no-untyped-def]
    """Clamp to what float16 can hold; what is no number stays so."""
    held = tl.minimum(tl.maximum(numbers, -_MOST_HALF), _MOST_HALF)
    return tl.where(numbers == numbers, held, numbers)


@triton.jit
def _code(came, step, low, taken, BITS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return the nearest codes, int32, as `quantization.encode` does; 0 outside of ``taken``."""
    scale = step.to(tl.float32)
    inverse = tl.where(
        scale > 0, tl.div_rn(scale * 0.0 + 1.0, tl.where(scale > 0, scale, 1.0)), 0.0
    )
    exact = (came - low.to(tl.float32)) * inverse
    LEVELS: tl.constexpr = (1 << BITS) - 1
    exact = tl.minimum(tl.maximum(exact, 0.0), LEVELS * 1.0)
    code = ((exact + _TO_WHOLE) - _TO_WHOLE).to(tl.int32)
    return tl.where(taken & (exact == exact), code, 0)


_TOKENS = 64
"""Tokens that one program of a kernel handles at a time."""
_BESIDE = 256
"""The same, where a token is only a few numbers."""


def decode_layer(given: Decoding) -> None:
    """Launch one kernel for each segment that holds tokens."""
    heads, _, channels = given.keys.shape
    start = 0
    for index, length in enumerate(given.lengths):
        bits = given.key_bits[index], given.value_bits[index]
        if length and bits != (SKIPPED, SKIPPED):
            own = slice(index * TENSORS, (index + 1) * TENSORS)
            codes, scale, minimum, rows = given.key_tensors[own]
            value_codes, value_scale, value_minimum, _ = given.value_tensors[own]
            out, value_out = given.keys[:, start:], given.values[:, start:]
            _decode_segment[triton.cdiv(length, _TOKENS), heads](
                codes, scale, minimum, rows, out,
                value_codes, value_scale, value_minimum, value_out,
                length, heads // rows.shape[0] if rows.numel() else 1,
                codes.stride(0), _lane(scale), _lane(rows), out.stride(0),
                value_codes.stride(0), _lane(value_scale), value_out.stride(0),
                channels, *bits, _TOKENS,
            )  # fmt: skip
        start += length


def append_newest(
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    held_keys: Tensor,
    held_values: Tensor,
) -> None:
    """Launch one kernel for keys and values [heads, frame, channels]; see `ops.py`."""
    heads, frame, channels = key.shape
    _copy_newest[triton.cdiv(frame, _TOKENS), heads](
        key, value, keys, values, held_keys, held_values, frame,
        key.stride(0), key.stride(1), value.stride(0), value.stride(1),
        keys.stride(0), values.stride(0),
        channels, held_keys.numel() > 0, held_values.numel() > 0, _TOKENS,
    )  # fmt: skip


def _lane(tensor: Tensor) -> int:
    return tensor.stride(0) if tensor.numel() else 0


def write_tokens(given: Writing) -> None:
    """Launch one kernel for keys, one for values, and one for what stands beside them."""
    keys, values, order, slots, rows = (
        given.keys,
        given.values,
        given.order,
        given.slots,
        given.rows,
    )
    numbers, scores, insertions = given.numbers, given.scores, given.insertions
    lanes, _, channels = keys.shape
    sets, count = slots.shape
    _write_beside[triton.cdiv(count, _BESIDE), sets](
        numbers, scores, insertions, order, slots,
        given.number_of_slot, given.score_of_slot, given.insertion_of_slot,
        count, numbers.stride(0), scores.stride(0), insertions.stride(0), insertions.stride(1),
        order.stride(0), slots.stride(0), given.number_of_slot.stride(0), _BESIDE,
    )  # fmt: skip
    if given.key_bits == UNQUANTIZED:
        write_rows(given.key_codes, slots, take(keys, order))
    elif given.key_bits != SKIPPED:
        size = given.group_size
        _write_keys[triton.cdiv(count, size), lanes](
            keys, order, slots, rows,
            given.key_codes, given.key_scale, given.key_minimum, given.row_of_slot,
            count, lanes // sets, keys.stride(0), keys.stride(1),
            order.stride(0), slots.stride(0), rows.stride(0),
            given.key_codes.stride(0), given.key_scale.stride(0), given.row_of_slot.stride(0),
            size, channels, given.key_bits, triton.next_power_of_2(size),
        )  # fmt: skip
    if given.value_bits == UNQUANTIZED:
        write_rows(given.value_codes, slots, take(values, order))
    elif given.value_bits != SKIPPED:
        _write_values[triton.cdiv(count, _TOKENS), lanes](
            values, order, slots, given.value_codes, given.value_scale, given.value_minimum,
            count, lanes // sets, values.stride(0), values.stride(1),
            order.stride(0), slots.stride(0),
            given.value_codes.stride(0), given.value_scale.stride(0),
            channels, given.value_bits, _TOKENS,
        )  # fmt: skip
