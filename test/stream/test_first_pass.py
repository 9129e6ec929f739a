# SPDX-License-Identifier: Apache-2.0
"""Where the first frames of a session are answered together, each still gets its own result."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xsvggt_ros.cache.adaptation import LONGEST_INTERVAL, KeyframeSchedule
from xsvggt_ros.cache.kv_cache import KvCache
from xsvggt_ros.cache.settings import POLICIES, CacheSettings
from xsvggt_ros.errors import ConfigurationError, FrameError
from xsvggt_ros.geometry.cameras import inverted, world_to_camera
from xsvggt_ros.model.checkpoint import random_network
from xsvggt_ros.model.config import PRESETS
from xsvggt_ros.model.network import Prediction, StreamVggt
from xsvggt_ros.stream import memory
from xsvggt_ros.stream.chain import ChainedReconstructor
from xsvggt_ros.stream.frame import Frame, FrameResult, ImageArray
from xsvggt_ros.stream.health import Counters, Health
from xsvggt_ros.stream.memory import check_memory, first_pass_bytes
from xsvggt_ros.stream.pipeline import FramePipeline, PipelineHooks
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings
from xsvggt_ros.stream.step_runner import cache_layout
from xsvggt_ros.stream.worker import reconstruct

CONFIG = PRESETS["tiny_lingbot"]
ANCHORS = CONFIG.stream.anchor_frames
WIDTH = 56


@pytest.fixture(scope="module")
def lingbot() -> StreamVggt:
    return random_network(CONFIG, 1).freeze()


def engine(network: StreamVggt, **cache: Any) -> Reconstructor:
    return Reconstructor(network, ReconstructorSettings(WIDTH, CacheSettings(**cache)))


def images(count: int, rows: int = 42, columns: int = 56) -> list[ImageArray]:
    generator = np.random.default_rng(0)
    return list(generator.integers(0, 256, (count, rows, columns, 3), np.uint8))


def frames(count: int) -> Iterator[Frame]:
    for index, image in enumerate(images(count)):
        yield Frame(10 + index, "eye", partial(np.asarray, image))


def stamps(results: list[FrameResult]) -> list[int]:
    return [result.stamp for result in results]


def test_each_frame_of_the_first_pass_has_its_own_result(lingbot: StreamVggt) -> None:
    own = engine(lingbot)
    taken = [own.take(image, stamp=10 + k) for k, image in enumerate(images(6))]
    assert [stamps(each) for each in taken] == [[], [], [10, 11, 12], [13], [14], [15]]
    assert own.waiting_frames == 0
    first = taken[ANCHORS - 1]
    assert [each.index for each in first] == [0, 1, 2]
    for each, image in zip(first, images(6), strict=False):
        assert np.array_equal(each.color, image)
        assert each.timings.network > 0
    assert np.allclose(first[0].camera_to_world, np.eye(4))
    assert not np.allclose(first[0].depth, first[1].depth)


def test_poses_are_taken_in_the_convention_of_the_network(
    lingbot: StreamVggt, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    encoding = rng.normal(size=9).astype(np.float32)
    turned = inverted(encoding)
    both = world_to_camera(encoding.astype(float)) @ world_to_camera(turned.astype(float))
    assert np.allclose(both, np.eye(4), atol=1e-5)
    assert np.linalg.norm(turned[3:7]) == pytest.approx(np.linalg.norm(encoding[3:7]))
    assert np.array_equal(turned[7:], encoding[7:])
    for useless in (np.zeros(9), np.full(9, np.nan)):
        assert np.array_equal(inverted(useless), useless, equal_nan=True)
    own = engine(lingbot)
    seen: list[Prediction] = []
    whole = own._runner.run

    def run(batch: torch.Tensor) -> Prediction:
        seen.append(whole(batch))
        return seen[-1]

    monkeypatch.setattr(own._runner, "run", run)
    results = [result for image in images(3) for result in own.take(image)]
    encodings = seen[0].pose_encodings
    assert encodings is not None
    first, second = (world_to_camera(row.double().numpy()) for row in encodings[0, :2, -1])
    assert np.allclose(results[1].camera_to_world, np.linalg.inv(first) @ second, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_recording_may_end_before_the_first_pass_is_full(lingbot: StreamVggt, count: int) -> None:
    own = engine(lingbot)
    refused: list[int] = []
    results = list(reconstruct(frames(count), own, lambda frame, error: refused.append(0)))
    assert stamps(results) == list(range(10, 10 + count))
    assert not refused
    assert own.finish() == []


def test_an_image_of_another_size_is_not_waited_with(lingbot: StreamVggt) -> None:
    own = engine(lingbot)
    wide, high = images(2), images(2, rows=56)
    assert own.take(wide[0], stamp=1) == []
    results = own.take(high[0], stamp=2)
    assert stamps(results) == [1, 2]
    assert [each.depth.shape for each in results] == [(42, 56), (56, 56)]
    assert stamps(own.take(wide[1], stamp=3)) == [3]


def test_frames_whose_session_ends_before_are_refused_by_name(lingbot: StreamVggt) -> None:
    refused: list[tuple[int, str]] = []
    updates: list[int] = []
    hooks = PipelineHooks(
        report=lambda update: updates.append(update.frame.stamp),
        report_refusal=lambda frame, error: refused.append((frame.stamp, str(error))),
    )
    pipeline = FramePipeline(engine(lingbot), hooks)
    stream = list(frames(8))
    assert pipeline.process(stream[0]) is None
    assert pipeline.process(stream[1]) is None
    assert pipeline.waiting_frames == 2
    pipeline.reconstructor.reset("somebody asked for it")
    pipeline.refuse_lost_frames()
    assert [stamp for stamp, _ in refused] == [10, 11]
    assert "before the first pass" in refused[0][1]
    answered = [pipeline.process(frame) for frame in stream[2:6]]
    assert [update and update.frame.stamp for update in answered] == [None, None, 14, 15]
    assert updates == [12, 13, 14, 15]
    assert (pipeline.processed, pipeline.refused, pipeline.waiting_frames) == (4, 2, 0)


def test_a_damaged_image_leaves_those_that_wait_alone(lingbot: StreamVggt) -> None:
    own = engine(lingbot)
    own.take(images(1)[0], stamp=1)
    with pytest.raises(FrameError, match="uint8 RGB"):
        own.take(np.zeros((4, 4), np.uint8), stamp=2)
    assert own.waiting_frames == 1


def test_a_first_pass_that_fails_refuses_all_of_its_frames(
    lingbot: StreamVggt, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[int] = []
    hooks = PipelineHooks(report_refusal=lambda frame, error: refused.append(frame.stamp))
    pipeline = FramePipeline(engine(lingbot), hooks)

    def fail(batch: torch.Tensor) -> None:
        raise RuntimeError("device lost")

    monkeypatch.setattr(pipeline.reconstructor._runner, "run", fail)
    for frame in frames(3):
        assert pipeline.process(frame) is None
    assert refused == [10, 11, 12]
    assert pipeline.waiting_frames == pipeline.reconstructor.waiting_frames == 0


def test_while_frames_wait_the_state_is_warming_up() -> None:
    health = Health(clock=lambda: 0.0)
    assert health.state(Counters(2, 0, 0, 0, 2, 2), timeout=5) == "warming up"
    health.note_result(())
    assert health.state(Counters(9, 8, 0, 0, 1, 0), timeout=5) == "running"
    assert health.state(Counters(10, 8, 0, 0, 2, 2), timeout=5) == "warming up"


def test_frames_that_wait_do_not_hide_that_no_more_come() -> None:
    now = [0.0]
    health = Health(clock=lambda: now[0])
    counters = Counters(2, 0, 0, 0, 2, 2)
    assert health.state(counters, timeout=5) == "warming up"
    now[0] = 6.0
    assert health.state(counters, timeout=5) == "waiting"


def test_step_says_what_to_use_instead(lingbot: StreamVggt) -> None:
    with pytest.raises(ConfigurationError, match="first 3 frames.*take\\(\\) and finish\\(\\)"):
        engine(lingbot).step(images(1)[0])
    assert engine(lingbot, anchor_frames=1).step(images(1)[0]).index == 0


def test_where_the_first_pass_does_not_fit_fewer_anchors_are_proposed(
    lingbot: StreamVggt, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = CacheSettings(window_frames=1, trajectory_frames=0)
    tokens = CONFIG.tokens_per_frame(42, 56)
    needed = first_pass_bytes(lingbot, cache.settled(cache_layout(lingbot)), tokens)
    monkeypatch.setattr(memory, "free_memory", lambda device: needed - 1)
    with pytest.raises(ConfigurationError, match="first pass takes 3 frames") as refusal:
        check_memory(lingbot, WIDTH, cache)
    named = re.search(r"set cache.anchor_frames to at most (\d+)", str(refusal.value))
    assert named is not None
    assert named[1] == "2"


def test_where_the_window_does_not_fit_a_shorter_one_is_proposed(
    lingbot: StreamVggt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 2 * 2**20)
    with pytest.raises(ConfigurationError, match="the cache needs") as refusal:
        check_memory(lingbot, WIDTH, CacheSettings(window_frames=4096))
    named = re.search(r"set cache.window_frames to at most (\d+)", str(refusal.value))
    assert named is not None
    check_memory(lingbot, WIDTH, CacheSettings(window_frames=int(named[1])))


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "none"])
@pytest.mark.parametrize("changes", [{}, {"budget_mib": 1.0}, {"index_sets": "head"}])
def test_every_policy_runs_in_bounded_memory(
    lingbot: StreamVggt, policy: str, changes: dict[str, Any]
) -> None:
    own = engine(
        lingbot, policy=policy, budget_tokens=90, window_frames=2, trajectory_frames=2, **changes
    )
    results = [result for image in images(14) for result in own.take(image)]
    assert len(results) == 14
    assert results[-1].cache.tokens <= results[-1].cache.budget_tokens
    held = {(each.cache.nbytes, each.cache.scratch_nbytes) for each in results[9:]}
    assert len(held) == 1
    assert all(np.isfinite(each.camera_to_world).all() for each in results)


def test_a_network_without_a_first_pass_takes_no_anchors() -> None:
    network = random_network(PRESETS["tiny"], 1).freeze()
    with pytest.raises(ConfigurationError, match="anchor_frames is 4.*single frame"):
        KvCache(CacheSettings(anchor_frames=4), cache_layout(network))
    assert KvCache(CacheSettings(), cache_layout(network)).settings.policy == "xstreamvggt"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"compatibility": "published", "policy": "none"}, "published reproduces the code for"),
        ({"camera_frames": 4}, "camera_frames is 4; beside 3 anchor frames"),
    ],
)
def test_what_does_not_suit_the_network_is_refused(
    lingbot: StreamVggt, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        KvCache(CacheSettings(**changes), cache_layout(lingbot))


@given(
    interval=st.integers(1, 5),
    cameras=st.lists(st.sampled_from("abc"), min_size=1, max_size=60),
)
def test_one_of_so_many_frames_of_each_camera_is_stored(interval: int, cameras: list[str]) -> None:
    schedule = KeyframeSchedule(interval, 320)
    stored: dict[str, list[int]] = {}
    counts: dict[str, int] = {}
    for camera in cameras:
        if schedule.is_due(camera):
            stored.setdefault(camera, []).append(counts.get(camera, 0))
        schedule.note(camera)
        counts[camera] = counts.get(camera, 0) + 1
    for camera, count in counts.items():
        assert stored[camera] == list(range(0, count, interval))
    assert schedule.stored == sum(map(len, stored.values()))


def test_fewer_and_fewer_frames_are_stored_by_themselves() -> None:
    schedule = KeyframeSchedule(0, 320)
    schedule.note("", 8, anchors=True)
    stored_after = {}
    for index in range(8, 36000):
        schedule.note("")
        stored_after[index + 1] = schedule.stored
    assert stored_after[64] == 64
    assert stored_after[1983] < 320 <= stored_after[1985]
    assert stored_after[36000] < 900
    assert schedule.interval == LONGEST_INTERVAL
    every = KeyframeSchedule(0, 0)
    for _ in range(1000):
        every.note("")
    assert every.stored == 1000


def test_a_shorter_interval_counts_at_once() -> None:
    schedule = KeyframeSchedule(100, 320)
    schedule.note("")
    assert not schedule.is_due("")
    schedule.change(1)
    assert schedule.is_due("")
    schedule.restart()
    assert schedule.stored == 0


def test_protocols_get_each_image_with_its_result(lingbot: StreamVggt) -> None:
    from xsvggt_ros.errors import EvaluationError
    from xsvggt_ros.evaluation.protocols.base import answered

    own = engine(lingbot)
    for count in (2, 5):
        own.reset("next sequence")
        given_images = [(name, lambda i=i: i, k) for k, (name, i) in enumerate(named(count), 1)]
        pairs = list(answered(own, given_images))
        assert [name for name, _ in pairs] == [name for name, _ in named(count)]
        assert stamps([result for _, result in pairs]) == list(range(1, count + 1))
    own.reset("next sequence")
    damaged = [("good", lambda: images(1)[0], 7), ("bad", lambda: np.zeros((2, 2), np.uint8), 8)]
    with pytest.raises(EvaluationError, match="frame of stamp 8 failed"):
        list(answered(own, damaged))


def named(count: int) -> list[tuple[str, ImageArray]]:
    return [(f"image {k}", image) for k, image in enumerate(images(count))]


def test_a_point_head_that_is_not_there_is_told_before_anything_runs(lingbot: StreamVggt) -> None:
    with pytest.raises(ConfigurationError, match="no point head; take points from depth and pose"):
        Reconstructor(lingbot, ReconstructorSettings(WIDTH, point_head=True))
    settings = ReconstructorSettings(WIDTH)
    with pytest.raises(ConfigurationError, match="refinement is on.*set it to off or auto"):
        ChainedReconstructor(lingbot, settings, refinement="on")
    chained = ChainedReconstructor(lingbot, settings, refinement="auto")
    with pytest.raises(ConfigurationError, match="set it to off or auto"):
        chained.set_refinement("on")
    results = [each for k, image in enumerate(images(5)) for each in chained.take(image, stamp=k)]
    assert stamps(results) == list(range(5))
    assert all(each.points is None for each in results)


@torch.inference_mode()
def test_the_official_window_at_four_bits_takes_what_the_documentation_says() -> None:
    with torch.device("meta"):
        network = StreamVggt(PRESETS["lingbot"]).set_precision(torch.bfloat16)
    config, layout = network.config, cache_layout(network)
    cache = KvCache(CacheSettings(key_bits=4, value_bits=4), layout)
    tokens = config.tokens_per_frame(392, 518)
    for frames in (config.stream.anchor_frames, 1):
        cache.begin_pass(frames)
        shape = (1, layout.token.heads, frames * tokens, layout.token.channels)
        new = torch.empty(shape, dtype=torch.bfloat16, device="meta")
        for layer in range(layout.layers):
            cache.attend(layer, new, new, new)
            cache.absorb(layer, torch.empty(1, frames * tokens, 1, device="meta"))
        cache.end_frame()
    assert (cache.settings.window_frames, cache.settings.trajectory_frames) == (64, 256)
    # All of it is allocated once the first pass is over.
    assert cache.nbytes / 2**30 == pytest.approx(2.02, abs=0.005)
