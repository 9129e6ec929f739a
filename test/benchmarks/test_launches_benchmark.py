# SPDX-License-Identifier: Apache-2.0
"""How many operations a frame launches, and that none of them waits for the device."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

from xsvggt_ros.cache.settings import POLICIES, CacheSettings
from xsvggt_ros.model.config import PRESETS

NETWORK = {
    "encoder": 24 * 8 + 7,
    "frame blocks": 24 * 9,
    "global blocks": 24 * 8,  # and one for the attention, which the cache counts
    "camera head": 136,
    "depth head": 74,
    "between": 12,
}
"""Operations of the network at its official sizes, by stage: what is reached and must stay."""

CACHE = {
    "none": {"attend": 48, "decode": 0, "absorb": 36, "camera cache": 20},
    "xstreamvggt": {"attend": 72, "decode": 24, "absorb": 50, "camera cache": 17},
    "balanced": {"attend": 72, "decode": 24, "absorb": 87, "camera cache": 17},
}
"""The same of the cache, unquantized and at 4/4 bits."""

FRAME = {"none": 933, "xstreamvggt": 992, "balanced": 1029}
"""Operations of a whole frame."""

DECODED_BYTES = {"none": 0, "xstreamvggt": 1.04e9, "balanced": 1.04e9}
"""What decoding moves in a frame: 4.6 bits of each number in, 16 out."""


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("launches")


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "bits"), [("none", 16), ("xstreamvggt", 4), ("balanced", 4)])
def test_operations_of_a_frame_at_the_official_sizes(
    launches: ModuleType, policy: str, bits: int
) -> None:
    settings = CacheSettings(policy=policy, budget_tokens=8192, key_bits=bits, value_bits=bits)
    counts = launches.count(settings, frames=10)
    for stage, limit in (NETWORK | CACHE[policy]).items():
        assert counts.stages[stage] <= limit, (stage, counts.names)
    assert counts.decoded_bytes <= DECODED_BYTES[policy]
    assert counts.total <= FRAME[policy], counts.stages
    assert set(counts.stages) <= set(launches.STAGES)


@pytest.mark.parametrize("bits", [(16, 16), (4, 4), (2, 8)])
@pytest.mark.parametrize("policy", POLICIES)
def test_no_step_reads_from_the_device(
    launches: ModuleType, policy: str, bits: tuple[int, int]
) -> None:
    keys, values = (16, 16) if policy == "none" else bits
    settings = CacheSettings(policy=policy, budget_tokens=40, key_bits=keys, value_bits=values)
    # The meta device has nothing to read: whatever waits for a value fails there.
    counts = launches.count(
        settings,
        config=PRESETS["tiny"],
        size=(28, 42),
        frames=7,
        heads=("camera", "depth", "points"),
        dtype=torch.float16,
    )
    assert counts.total > 0


def test_views_and_allocations_are_free_and_writes_are_not(launches: ModuleType) -> None:
    counting = launches.Launches()
    with counting, counting.stage("attend"):
        tokens = torch.empty(2, 6, device="meta")
        tokens.view(3, 4).transpose(0, 1).to(torch.float32).contiguous()  # the copy alone counts
        tokens[0].zero_()
        tokens.to(torch.bfloat16)
    assert counting.counts.names == {
        ("attend", "clone"): 1,
        ("attend", "zero_"): 1,
        ("attend", "_to_copy"): 1,
    }
    assert counting.counts.total == 3
