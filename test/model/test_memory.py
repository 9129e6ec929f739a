# SPDX-License-Identifier: Apache-2.0
"""What does not fit is refused with what would, and a warm-up leaves no trace."""

from __future__ import annotations

import re

import numpy as np
import pytest

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError, FrameError
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.stream import memory
from xsvggt_ros.stream.memory import check_memory, needed_bytes, warm_up
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings

MIB = 2**20
WIDTH = 56


def _free(monkeypatch: pytest.MonkeyPatch, size: float | None) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: size)


def test_the_budget_that_the_refusal_names_fits_and_one_more_token_does_not(
    network: StreamVggt, monkeypatch: pytest.MonkeyPatch
) -> None:
    _free(monkeypatch, MIB)
    with pytest.raises(ConfigurationError, match="1 MiB are free on device 'cpu'") as refusal:
        check_memory(network, WIDTH, CacheSettings(budget_tokens=10**6))
    named = re.search(r"set cache.budget_tokens to at most (\d+)", str(refusal.value))
    assert named is not None
    fitting = int(named[1])
    check_memory(network, WIDTH, CacheSettings(budget_tokens=fitting))
    with pytest.raises(ConfigurationError, match="56x42"):
        check_memory(network, WIDTH, CacheSettings(budget_tokens=fitting + 1))


def test_what_is_reckoned_is_what_a_full_cache_allocates(network: StreamVggt) -> None:
    cache = CacheSettings(budget_tokens=40)
    engine = Reconstructor(network, ReconstructorSettings(WIDTH, cache))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 48, 64, 3), np.uint8)
    allocated = [engine.step(image, stamp=i).cache for i, image in enumerate(images)][-1]
    tokens = network.config.tokens_per_frame(42, 56)
    reckoned = needed_bytes(network, cache, tokens)
    assert allocated.nbytes + allocated.scratch_nbytes <= reckoned
    assert reckoned <= 1.3 * (allocated.nbytes + allocated.scratch_nbytes)


def test_a_budget_in_mib_is_compared_as_it_is(
    network: StreamVggt, monkeypatch: pytest.MonkeyPatch
) -> None:
    _free(monkeypatch, MIB)
    with pytest.raises(ConfigurationError, match="set cache.budget_mib to at most 1"):
        check_memory(network, WIDTH, CacheSettings(budget_mib=3.0))
    check_memory(network, WIDTH, CacheSettings(budget_mib=0.9))


def test_both_caches_of_a_chain_are_counted(
    network: StreamVggt, monkeypatch: pytest.MonkeyPatch
) -> None:
    _free(monkeypatch, MIB)
    with pytest.raises(
        ConfigurationError, match="2 caches, .* or set chain.length to 0"
    ) as refusal:
        check_memory(network, WIDTH, CacheSettings(budget_tokens=10**6), caches=2)
    named = re.search(r"set cache.budget_tokens to at most (\d+)", str(refusal.value))
    assert named is not None
    fitting = CacheSettings(budget_tokens=int(named[1]))
    check_memory(network, WIDTH, fitting, caches=2)
    tokens = network.config.tokens_per_frame(42, 56)
    assert 0.4 * MIB < needed_bytes(network, fitting, tokens) <= 0.5 * MIB
    # MiB are those of both together.
    check_memory(network, WIDTH, CacheSettings(budget_mib=0.9), caches=2)
    with pytest.raises(ConfigurationError, match="set cache.budget_mib to at most 1"):
        check_memory(network, WIDTH, CacheSettings(budget_mib=3.0), caches=2)


def test_where_nothing_fits_images_must_shrink(
    network: StreamVggt, monkeypatch: pytest.MonkeyPatch
) -> None:
    _free(monkeypatch, 1)
    with pytest.raises(ConfigurationError, match="lower input.width"):
        check_memory(network, WIDTH, CacheSettings())


@pytest.mark.parametrize("cache", [CacheSettings(policy="none"), CacheSettings()])
def test_what_cannot_be_judged_passes(
    network: StreamVggt, monkeypatch: pytest.MonkeyPatch, cache: CacheSettings
) -> None:
    _free(monkeypatch, None if cache.bounded else 1)
    check_memory(network, WIDTH, cache)


@pytest.mark.parametrize("policy", ["xstreamvggt", "random", "ffn_residual", "balanced"])
def test_a_warm_up_leaves_no_trace(network: StreamVggt, policy: str) -> None:
    settings = ReconstructorSettings(WIDTH, CacheSettings(budget_tokens=40, policy=policy))
    cold, warm = (Reconstructor(network, settings) for _ in range(2))
    warm_up(warm, WIDTH)
    assert (warm.session, warm.session_frames) == (1, 0)
    rng = np.random.default_rng(0)
    for stamp in range(6):
        image = rng.integers(0, 256, (48, 64, 3), np.uint8)
        one, other = (engine.step(image, stamp=stamp) for engine in (cold, warm))
        np.testing.assert_array_equal(one.depth, other.depth)
        np.testing.assert_array_equal(one.camera_to_world, other.camera_to_world)
        assert one.cache.evicted_total == other.cache.evicted_total


def test_a_warm_up_that_fails_is_an_error_of_configuration(
    network: StreamVggt, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Reconstructor(network, ReconstructorSettings(WIDTH))

    def fail(*_: object, **__: object) -> None:
        engine.reset("the network failed")
        raise FrameError("out of memory")

    monkeypatch.setattr(engine, "take", fail)
    with pytest.raises(ConfigurationError, match="cannot run at input.width 56: out of memory"):
        warm_up(engine, WIDTH)
    assert engine.session == 1
