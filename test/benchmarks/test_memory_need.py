# SPDX-License-Identifier: Apache-2.0
"""What memory buys, held: a network that needs it, through the engine, and caches that are broken.

On one stream of landmarks the bundled network with everything is about three times as good as
without history, and so is a cache of 8 frames at 4 bits that works. A broken one cannot be.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from xsvggt_ros.cache.kv_cache import KvCache
from xsvggt_ros.cache.policies import Importance
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.metrics.trajectory import score_trajectory
from xsvggt_ros.model.checkpoint import load_network
from xsvggt_ros.model.config import LANDMARKS
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings
from xsvggt_ros.synthetic.scenes import SceneSequence
from xsvggt_ros.synthetic.sequence import SyntheticFrame

pytestmark = pytest.mark.slow

STREAM = "landmarks_100_lap100#1"
TOKENS = 53
COMPRESSED = CacheSettings("xstreamvggt", budget_tokens=8 * TOKENS)
BOUGHT = 0.7
"""Share of the error without history that a memory which works stays below."""


@pytest.fixture(scope="module")
def network() -> StreamVggt:
    return load_network(LANDMARKS, device="cpu")


@pytest.fixture(scope="module")
def frames() -> list[SyntheticFrame]:
    return list(SceneSequence(STREAM))


def path_error(network: StreamVggt, frames: list[SyntheticFrame], settings: CacheSettings) -> float:
    """Return the RMS position error after Sim(3), percent of the path's extent."""
    engine = Reconstructor(network, ReconstructorSettings(112, settings))
    found = np.stack([engine.step(frame.color).camera_to_world for frame in frames])
    true = np.stack([frame.camera_to_world for frame in frames])
    return 100 * score_trajectory(found, true, "sim3").relative_ate


@pytest.fixture(scope="module")
def without_history(network: StreamVggt, frames: list[SyntheticFrame]) -> float:
    settings = CacheSettings(
        "sliding_window", budget_tokens=2 * TOKENS, key_bits=16, value_bits=16, camera_frames=2
    )
    return path_error(network, frames, settings)


def test_everything_is_worth_more_than_no_history(
    network: StreamVggt, frames: list[SyntheticFrame], without_history: float
) -> None:
    everything = path_error(network, frames, CacheSettings("none", key_bits=16, value_bits=16))
    assert without_history > 1.5 * everything


def test_eight_frames_at_four_bits_are_worth_more_than_no_history(
    network: StreamVggt, frames: list[SyntheticFrame], without_history: float
) -> None:
    assert path_error(network, frames, COMPRESSED) < BOUGHT * without_history


def keep_the_least_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = Importance.scores
    monkeypatch.setattr(Importance, "scores", lambda self, seen: -scores(self, seen))


def mix_up_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    attend = KvCache.attend
    monkeypatch.setattr(
        KvCache,
        "attend",
        lambda self, layer, query, key, value: attend(
            self, layer, query, torch.roll(key, 3, dims=-1), value
        ),
    )


def hand_out_values_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    attend = KvCache.attend
    monkeypatch.setattr(
        KvCache,
        "attend",
        lambda self, layer, query, key, value: attend(
            self, layer, query, key, torch.roll(value, 11, dims=2)
        ),
    )


def store_keys_that_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    attend = KvCache.attend
    monkeypatch.setattr(
        KvCache,
        "attend",
        lambda self, layer, query, key, value: attend(
            self, layer, query, torch.zeros_like(key), value
        ),
    )


@pytest.mark.parametrize(
    "broken",
    [
        keep_the_least_wanted,
        mix_up_channels,
        hand_out_values_of_others,
        store_keys_that_say_nothing,
    ],
)
def test_a_broken_cache_buys_nothing(
    network: StreamVggt,
    frames: list[SyntheticFrame],
    without_history: float,
    monkeypatch: pytest.MonkeyPatch,
    broken: Callable[[pytest.MonkeyPatch], None],
) -> None:
    broken(monkeypatch)
    assert path_error(network, frames, COMPRESSED) > BOUGHT * without_history
