# SPDX-License-Identifier: Apache-2.0
"""Random streams of queries, keys and values, and caches to run them through."""

from __future__ import annotations

from typing import Any

import torch

from xsvggt_ros.cache.kv_cache import KvCache
from xsvggt_ros.cache.layer_group import GroupedLayer
from xsvggt_ros.cache.layout import CacheLayout, TokenShape
from xsvggt_ros.cache.segment import Segment
from xsvggt_ros.cache.settings import CacheSettings

SPECIAL, HEADS, DIM, LAYERS = 5, 2, 8, 2


def layout(
    layers: int = LAYERS,
    heads: int = HEADS,
    dim: int = DIM,
    special: int = SPECIAL,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> CacheLayout:
    token = TokenShape(heads, dim, dtype, torch.device(device))
    return CacheLayout(layers, token, special, camera_blocks=1, camera_iterations=2)


def make_cache(sizes: CacheLayout | None = None, **changes: Any) -> KvCache:
    """Make a cache, unquantized unless told otherwise, whose windows of frames are short."""
    usual: dict[str, Any] = {
        "key_bits": 16,
        "value_bits": 16,
        "window_frames": 2,
        "trajectory_frames": 1,
    }
    return KvCache(CacheSettings(**usual | changes), sizes or layout())


def frame_tensors(
    tokens: int, seed: int, sizes: CacheLayout | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return query, key and value of a frame, float32 [1, heads, tokens, channels] each."""
    token = (sizes or layout()).token
    generator = torch.Generator().manual_seed(seed)
    shape = (1, token.heads, tokens, token.channels)

    def drawn() -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(token.device, token.dtype)

    return drawn(), drawn(), drawn()


def updates(tokens: int, seed: int) -> torch.Tensor:
    """Return what a block's MLP might have added to a frame."""
    return torch.randn(1, tokens, 6, generator=torch.Generator().manual_seed(seed))


def step(
    cache: KvCache,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    update: torch.Tensor | None = None,
    motion: float = 0.0,
) -> torch.Tensor:
    """Run one frame through all layers; return what the last one attended to."""
    update = updates(key.shape[2], 0) if update is None else update
    mixed = query
    for layer in range(cache.layout.layers):
        mixed = cache.attend(layer, query, key, value)
        cache.absorb(layer, update)
    cache.end_frame(motion)
    return mixed


def run(cache: KvCache, sizes: list[int], start: int = 0) -> None:
    """Run random frames of these sizes, seeded from ``start`` on."""
    for seed, tokens in enumerate(sizes, start):
        step(cache, *frame_tensors(tokens, seed, cache.layout), updates(tokens, seed))


def held(cache: KvCache, layer: int = 0, index_set: int = 0) -> list[int]:
    """Return the numbers of the tokens that a layer holds, sorted."""
    return sorted(cache.layers[layer].numbers[index_set].tolist())


def segments(cache: KvCache, layer: int = 0) -> tuple[Segment, ...]:
    """Return anchor, special, history and window of a layer."""
    return grouped_layers(cache)[layer].segments


def grouped_layers(cache: KvCache) -> list[GroupedLayer]:
    """Return the layers of any cache but the published one."""
    found = [layer for layer in cache.layers if isinstance(layer, GroupedLayer)]
    assert len(found) == len(cache.layers)
    return found


def stored(cache: KvCache, layer: int = 0) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Return key and value [heads, channels] of each token held, as decoded, by its number."""
    tokens = {}
    parts = [segment for segment in segments(cache, layer) if len(segment)]
    keys = torch.cat([segment.decoded_keys() for segment in parts], 1)
    values = torch.cat([segment.decoded_values() for segment in parts], 1)
    numbers = cache.layers[layer].numbers
    for place, number in enumerate(numbers[0].tolist()):
        tokens[number] = keys[:, place], values[:, place]
    return tokens


def relative_rms(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the error's root mean square over that of what was expected."""
    return float((actual - expected).square().mean().sqrt() / expected.square().mean().sqrt())
