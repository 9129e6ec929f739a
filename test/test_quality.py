# SPDX-License-Identifier: Apache-2.0
"""The bundled model on held-out rooms: it reconstructs, and what breaks it is noticed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.model.aggregator import Aggregator
from xsvggt_ros.model.checkpoint import load_network
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.model.rotary import rotation_for as _rotation_for
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings
from xsvggt_ros.synthetic.held_out import held_out
from xsvggt_ros.synthetic.scores import Scores, compare
from xsvggt_ros.synthetic.sequence import Sequence, SyntheticFrame

FULL = CacheSettings(policy="none", key_bits=16, value_bits=16)
BUDGET_FRAMES = 8
_special_tokens = Aggregator.special_tokens


@dataclass(frozen=True)
class Limits:
    """What a run must stay below, or above for ``depth_below_1_25``."""

    depth_abs_rel: float
    depth_below_1_25: float
    path_error: float
    turn_error: float

    def broken_by(self, scores: Scores) -> list[str]:
        """Return which limits the scores break."""
        too_high = [
            name
            for name in ("depth_abs_rel", "path_error", "turn_error")
            if not getattr(scores, name) <= getattr(self, name)
        ]
        too_low = scores.depth_below_1_25 < self.depth_below_1_25
        return [*too_high, *(["depth_below_1_25"] if too_low else [])]


WALK = Limits(depth_abs_rel=0.065, depth_below_1_25=0.97, path_error=0.036, turn_error=0.6)
SHAKY = Limits(depth_abs_rel=0.09, depth_below_1_25=0.94, path_error=0.06, turn_error=1.6)
"""Above what was measured by more than rounding changes, and below what damage does."""


@cache
def frames_of(name: str) -> tuple[SyntheticFrame, ...]:
    return tuple(Sequence(held_out(name)))


@pytest.fixture(scope="module")
def network() -> StreamVggt:
    return load_network("demo", device="cpu")


def compressed(network: StreamVggt, **changes) -> CacheSettings:
    tokens = network.config.tokens_per_frame(84, 112)
    return CacheSettings(**{"budget_tokens": BUDGET_FRAMES * tokens, **changes})


def run(network: StreamVggt, settings: CacheSettings, name: str, count: int = 1000) -> Scores:
    frames = frames_of(name)[:count]
    engine = Reconstructor(network, ReconstructorSettings(112, settings))
    results = [engine.step(frame.color) for frame in frames]
    first = np.linalg.inv(frames[0].camera_to_world)
    return compare(
        np.stack([each.depth for each in results]).astype(np.float64),
        np.stack([frame.depth for frame in frames]),
        np.stack([each.camera_to_world for each in results]),
        np.stack([first @ frame.camera_to_world for frame in frames]),
    )


@pytest.mark.parametrize(("name", "limits"), [("medium_walk", WALK), ("medium_handheld", SHAKY)])
def test_it_reconstructs_rooms_it_has_never_seen(network, name, limits):
    scores = run(network, FULL, name)
    assert limits.broken_by(scores) == [], scores.line()
    assert scores.path_error < 0.25 * scores.standing_error
    assert scores.turn_error < 0.5 * scores.standing_turn


@pytest.mark.parametrize("bits", [4, 2])
def test_a_small_packed_cache_does_not_hurt(network, bits):
    full = run(network, FULL, "medium_walk")
    packed = run(network, compressed(network, key_bits=bits, value_bits=bits), "medium_walk")
    assert packed.depth_abs_rel <= 1.1 * full.depth_abs_rel
    assert packed.path_error <= full.path_error + 0.05
    assert packed.turn_error <= 1.5 * full.turn_error


def test_streaming_is_the_masked_forward_on_trained_weights(network):
    frames = frames_of("short_walk")
    images = torch.from_numpy(np.stack([frame.color for frame in frames]))
    with torch.inference_mode():
        whole = network.forward_sequence(images.movedim(-1, 1).float()[None] / 255)
    engine = Reconstructor(network, ReconstructorSettings(112, FULL))
    depth = np.stack([engine.step(frame.color).depth for frame in frames])
    np.testing.assert_allclose(depth, whole.depth[0].numpy(), rtol=2e-4, atol=2e-4)


def _without_rotary(network, patch):
    patch.setattr(
        "xsvggt_ros.model.aggregator.rotation_for",
        lambda positions, dim, base: _rotation_for(torch.zeros_like(positions), dim, base),
    )


def _with_first_frame_tokens_everywhere(network, patch):
    patch.setattr(
        type(network.aggregator),
        "special_tokens",
        lambda self, frames, first: _special_tokens(self, frames, True),
    )


def _without_refinement(network, patch):
    patch.setattr(network.camera_head, "iterations", 1)


def _with_a_disturbed_depth_head(network, patch):
    weight = network.depth_head.state_dict()["scratch.output_conv1.weight"]
    weight.copy_(weight.flip(0).clone())


@pytest.mark.parametrize(
    "damage",
    [
        _without_rotary,
        _with_first_frame_tokens_everywhere,
        _without_refinement,
        _with_a_disturbed_depth_head,
    ],
)
def test_the_limits_notice_what_is_broken(damage):
    with pytest.MonkeyPatch.context() as patch:
        network = load_network("demo", device="cpu")
        damage(network, patch)
        scores = run(network, FULL, "medium_walk")
    assert WALK.broken_by(scores), scores.line()


def test_a_cache_that_forgets_the_first_frame_is_noticed(network):
    """The anchor fixes the world: a stream that loses it loses its path."""
    scores = []
    for frames in (0, 50):
        engine = Reconstructor(network, ReconstructorSettings(112, FULL))
        for frame in frames_of("medium_walk")[frames : frames + 1]:
            engine.step(frame.color)
        scores.append(engine.step(frames_of("medium_walk")[50].color).camera_to_world)
    assert np.linalg.norm(scores[0][:3, 3] - scores[1][:3, 3]) > 0.1
