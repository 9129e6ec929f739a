# SPDX-License-Identifier: Apache-2.0
"""Captured steps: when they are taken and thrown away, and that results stay the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from dispatch_recorder import WAITING, Recorder
from selection import first_is_quick

from xsvggt_ros.cache.kv_cache import KvCache
from xsvggt_ros.cache.settings import POLICIES, WIDTHS, CacheSettings
from xsvggt_ros.model.checkpoint import random_network
from xsvggt_ros.model.config import PRESETS, NetworkConfig
from xsvggt_ros.model.network import Head, Prediction, StreamVggt
from xsvggt_ros.stream import step_runner
from xsvggt_ros.stream.step_runner import MOST_CAPTURES, StepRunner, _Capture, cache_layout

HEADS: tuple[Head, ...] = ("camera", "depth")
SETTINGS = CacheSettings(budget_tokens=60, camera_frames=6, window_frames=2, trajectory_frames=1)
WIDE, HIGH = (42, 56), (56, 42)


def image(seed: int, size: tuple[int, int] = WIDE, device: str = "cpu") -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 1, 3, *size, generator=generator).to(device)


class Played:
    """Stands in for a CUDA graph: does on replay what the step does, but for the host's counts."""

    def __init__(self, network: StreamVggt, cache: KvCache, images: torch.Tensor) -> None:
        self.network, self.cache, self.images = network, cache, images
        self.outputs: Prediction | None = None
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        counts = self.cache.counts()
        found = self.network(self.images, self.cache, HEADS)
        self.cache.restore(counts)
        for name in ("pose_encodings", "depth", "depth_confidence"):
            getattr(self.outputs, name).copy_(getattr(found, name))


class OnCpu(StepRunner):
    """A runner whose captures are played by Python."""

    taken = 0

    def _take(self, images: torch.Tensor) -> _Capture:
        self.taken += 1
        graph = Played(self._network, self._cache, images.clone())
        size = images.shape[-2:]
        graph.outputs = Prediction(
            pose_encodings=torch.zeros(1, 1, self._network.config.camera.iterations, 9),
            depth=torch.zeros(1, 1, *size),
            depth_confidence=torch.zeros(1, 1, *size),
        )
        self._cache.replayed(self._tokens(images))  # as a capture leaves the host
        tokens = self._tokens(images)
        return step_runner._Capture(graph, graph.images, graph.outputs, tokens, [])


@pytest.fixture
def pair(network: StreamVggt, monkeypatch: pytest.MonkeyPatch) -> tuple[OnCpu, StepRunner]:
    """A runner with captures and one without, each over a cache of its own."""
    monkeypatch.setattr(step_runner, "_hindrance", lambda device, graphs: "" if graphs else "off")
    layout = cache_layout(network)
    return (
        OnCpu(network, KvCache(SETTINGS, layout), HEADS, graphs=True),
        StepRunner(network, KvCache(SETTINGS, layout), HEADS, graphs=False),
    )


def modes(
    pair: tuple[OnCpu, StepRunner], frames: int, start: int = 0, size: tuple[int, int] = WIDE
) -> list[str]:
    """Run frames through both runners; compare their results; return how the first one ran."""
    found: list[str] = []
    with torch.inference_mode():
        for seed in range(start, start + frames):
            both = [runner.run(image(seed, size)) for runner in pair]
            for name in ("pose_encodings", "depth"):
                assert torch.equal(getattr(both[0], name), getattr(both[1], name))
            for runner in pair:
                runner._cache.end_frame()
            found.append(pair[0].execution.mode)
            assert pair[0]._cache.statistics() == pair[1]._cache.statistics()
            numbers = [[layer.numbers for layer in runner._cache.layers] for runner in pair]
            assert all(torch.equal(*layers) for layers in zip(*numbers, strict=True))
    return found


def test_a_step_is_captured_once_the_budget_is_full_and_stays_the_same(
    pair: tuple[OnCpu, StepRunner],
) -> None:
    ran = modes(pair, 14)
    full = ran.index("cuda graph")
    assert 4 <= full <= 7
    assert set(ran[full:]) == {"cuda graph"}
    assert pair[0].taken == 1
    assert pair[0].execution.reason == ""


@pytest.mark.parametrize(
    "changes",
    [{"budget_tokens": 50}, {"budget_tokens": 80}, {"key_bits": 2}, {"policy": "balanced"},
     {"camera_frames": 4}, {"window_bits": 16}, {"attention_backend": "math"}],
    ids=str,
)  # fmt: skip
def test_a_live_change_throws_captures_away_until_the_step_is_the_same_again(
    pair: tuple[OnCpu, StepRunner], changes: dict[str, Any]
) -> None:
    assert modes(pair, 10)[-1] == "cuda graph"
    with torch.inference_mode():
        for runner in pair:
            runner._cache.configure(replace(runner._cache.settings, **changes))
    ran = modes(pair, 10, start=10)
    assert ran[0] == "eager"
    assert ran[-1] == "cuda graph"
    assert pair[0].taken == 2


def test_a_new_session_begins_eager(pair: tuple[OnCpu, StepRunner]) -> None:
    assert modes(pair, 10)[-1] == "cuda graph"
    with torch.inference_mode():
        for runner in pair:
            runner._cache.clear()
    ran = modes(pair, 10, start=10)
    assert ran[0] == "eager"
    assert ran[-1] == "cuda graph"


def test_each_image_size_has_a_capture_of_its_own(pair: tuple[OnCpu, StepRunner]) -> None:
    for seed in range(8):
        modes(pair, 1, start=seed, size=(WIDE, HIGH)[seed % 2])
    assert pair[0].taken == 2
    played = [capture.graph for capture in pair[0]._captures.values()]
    assert all(graph.replays for graph in played)


def test_a_size_never_seen_is_laid_out_before_it_is_captured(
    pair: tuple[OnCpu, StepRunner],
) -> None:
    assert modes(pair, 10)[-1] == "cuda graph"
    larger = modes(pair, 4, start=10, size=(56, 56))
    assert larger[0] == "eager"
    assert larger[-1] == "cuda graph"


def test_a_size_is_captured_only_after_a_frame_of_it_was_stored(network: StreamVggt) -> None:
    # What is kept for a size is made when its first frame is stored, and not within a capture.
    large = (56, 56)
    cache = KvCache(replace(SETTINGS, keyframe_interval=2), cache_layout(network))
    found = []
    with torch.inference_mode():
        for seed, size in enumerate([WIDE, WIDE, large, large]):
            found.append((cache.stores_next, size))
            network(image(seed, size), cache, HEADS)
            cache.end_frame()
            if size == large:
                tokens = network.config.tokens_per_frame(*large)
                stored = any(stores for stores, each in found if each == large)
                assert cache.knows(tokens) == stored
    assert {stores for stores, size in found if size == large} == {True, False}


def test_steps_run_on_the_card_that_has_their_images(
    network: StreamVggt, monkeypatch: pytest.MonkeyPatch
) -> None:
    current: list[torch.device | None] = [None]

    @contextmanager
    def device_of(images: torch.Tensor) -> Iterator[None]:
        current.append(images.device)
        yield
        current.pop()

    class Watched:
        config, device = network.config, network.device

        def __call__(self, *given: Any) -> Prediction:
            assert current[-1] == torch.device("cpu")
            prediction: Prediction = network(*given)
            return prediction

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    runner = StepRunner(network, KvCache(SETTINGS, cache_layout(network)), HEADS)
    monkeypatch.setattr(runner, "_network", Watched())
    with torch.inference_mode():
        runner.run(image(0))
    assert current == [None]


def test_as_many_sizes_as_may_be_captured_keep_their_constants(network: StreamVggt) -> None:
    sizes = [(height, 28) for height in range(28, 28 + 14 * MOST_CAPTURES, 14)]
    kept = []
    with torch.inference_mode():
        for _ in range(2):
            for size in sizes:
                network(image(0, size), KvCache(SETTINGS, cache_layout(network)), HEADS)
            kept.append(sorted(tensor.data_ptr() for tensor in network.constants()))
    assert kept[0] == kept[1]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"policy": "none"}, "the cache grows with the session"),
        ({"adaptive": "scene"}, "budgets adapt"),
        ({"policy": "xstreamvggt", "compatibility": "published"}, "the released code's cache"),
        ({"budget_tokens": 4000}, "the budget is not full yet"),
    ],
)
def test_an_eager_step_says_why(
    network: StreamVggt, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], reason: str
) -> None:
    monkeypatch.setattr(step_runner, "_hindrance", lambda device, graphs: "")
    cache = KvCache(replace(SETTINGS, **settings), cache_layout(network))
    runner = OnCpu(network, cache, HEADS)
    with torch.inference_mode():
        for seed in range(8):
            runner.run(image(seed))
            cache.end_frame()
    assert runner.execution.mode == "eager"
    assert runner.execution.reason.startswith(reason)


def test_without_a_gpu_steps_are_eager_and_say_so(network: StreamVggt) -> None:
    runner = StepRunner(network, KvCache(SETTINGS, cache_layout(network)), HEADS)
    with torch.inference_mode():
        runner.run(image(0))
    assert runner.execution.mode == "eager"
    assert runner.execution.reason == "CUDA graphs need a CUDA device, not cpu"


class RefusingGraph:
    """Stands in for a capture that fails at its end, when the host has counted the frame."""

    capturing = False

    def __init__(self, *values: RefusingGraph, **named: Any) -> None:
        pass

    def __enter__(self) -> None:
        RefusingGraph.capturing = True

    def __exit__(self, *error: object | None) -> None:
        RefusingGraph.capturing = False
        raise RuntimeError("operation not permitted when stream is capturing\ndetails")


class Capturable:
    """A network of which a capture leaves no trace but the host's counts."""

    def __init__(self, network: StreamVggt, tokens: Callable[[torch.Tensor], int]) -> None:
        self.network, self.tokens, self.config = network, tokens, network.config

    def __call__(
        self, images: torch.Tensor, cache: KvCache, heads: tuple[Head, ...]
    ) -> Prediction | None:
        if RefusingGraph.capturing:
            cache.replayed(self.tokens(images))
            return None
        prediction: Prediction = self.network(images, cache, heads)
        return prediction


def test_a_capture_that_fails_leaves_the_stream_as_it_was(
    pair: tuple[OnCpu, StepRunner],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    runner = pair[0]
    monkeypatch.setattr(torch.cuda, "CUDAGraph", RefusingGraph)
    monkeypatch.setattr(torch.cuda, "graph", RefusingGraph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(OnCpu, "_take", StepRunner._take)
    monkeypatch.setattr(runner, "_network", Capturable(runner._network, runner._tokens))
    assert set(modes(pair, 12)) == {"eager"}
    assert "operation not permitted when stream is capturing" in runner.execution.reason
    assert caplog.text.count("steps stay eager") == 1


META = NetworkConfig(
    image_size=56, embed_dim=64, depth=3, num_heads=2, mlp_ratio=1.0,
    encoder=PRESETS["tiny"].encoder, camera=PRESETS["tiny"].camera,
    dense=replace(PRESETS["tiny"].dense, layers=(0, 1, 1, 2)),
)  # fmt: skip


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "none"])
@pytest.mark.parametrize("bits", first_is_quick(WIDTHS))
def test_a_full_step_is_the_same_for_ever_and_reads_nothing_back(policy: str, bits: int) -> None:
    """What a capture needs, proven on the meta device, where nothing can be read."""
    with torch.device("meta"):
        network = StreamVggt(META).eval().requires_grad_(False)
    settings = replace(SETTINGS, policy=policy, key_bits=bits, value_bits=bits)
    cache = KvCache(settings, cache_layout(network))
    recorded, states, addresses = [], [], []
    with torch.inference_mode():
        for _ in range(10):
            images = torch.empty(1, 1, 3, *WIDE, device="meta")
            with Recorder() as recorder:
                network(images, cache, HEADS)
            cache.end_frame()
            recorded.append(recorder.operations)
            states.append(cache.state)
            addresses.append([tensor.untyped_storage()._cdata for tensor in cache.tensors])
    assert states[-1] is not None
    assert states[-1] == states[-2] == states[-3]
    assert recorded[-1] == recorded[-2]
    assert addresses[-1] == addresses[-2] == addresses[-3]
    assert not WAITING & {name for name, _ in recorded[-1]}


@pytest.mark.gpu
@pytest.mark.parametrize("policy", ["balanced", "xstreamvggt", "value_aware", "random"])
@pytest.mark.parametrize("bits", [4, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_graph_gives_what_eager_steps_give(policy: str, bits: int, dtype: torch.dtype) -> None:
    network = random_network(PRESETS["tiny"], 1).eval().requires_grad_(False)
    network = network.to("cuda").set_precision(dtype)
    settings = replace(SETTINGS, policy=policy, key_bits=bits, value_bits=bits)
    runners = [
        StepRunner(network, KvCache(settings, cache_layout(network)), HEADS, graphs=graphs)
        for graphs in (True, False)
    ]
    ran = []
    with torch.inference_mode():
        for seed in range(40):
            if seed == 20:
                for runner in runners:
                    runner._cache.configure(replace(settings, budget_tokens=75))
            both = [runner.run(image(seed, device="cuda")) for runner in runners]
            for name in ("pose_encodings", "depth"):
                torch.testing.assert_close(getattr(both[0], name), getattr(both[1], name))
            for runner in runners:
                runner._cache.end_frame()
            ran.append(runners[0].execution.mode)
    assert runners[0]._hindrance == ""
    assert ran[19] == ran[-1] == "cuda graph"
    assert ran[20] == "eager"
    for layers in zip(*(runner._cache.layers for runner in runners), strict=True):
        assert torch.equal(*(layer.numbers for layer in layers))


@pytest.mark.parametrize("interval", [1, 3])
def test_a_full_window_steps_alike_whether_frames_are_stored_or_not(interval: int) -> None:
    with torch.device("meta"):
        network = StreamVggt(PRESETS["tiny_lingbot"]).eval().requires_grad_(False)
    settings = CacheSettings(window_frames=2, trajectory_frames=1, keyframe_interval=interval)
    cache = KvCache(settings, cache_layout(network))
    recorded: dict[bool, list[Any]] = {True: [], False: []}
    states, addresses = [], []
    with torch.inference_mode():
        for index in range(24):
            frames = 1 if index else network.config.stream.anchor_frames
            images = torch.empty(1, frames, 3, *WIDE, device="meta")
            stores = cache.stores_next
            with Recorder() as recorder:
                network(images, cache, HEADS)
            cache.end_frame()
            recorded[stores].append(recorder.operations)
            states.append(cache.state)
            addresses.append([tensor.untyped_storage()._cdata for tensor in cache.tensors])
    assert states[-1] is not None
    assert len(set(states[-6:])) == 1
    assert all(each == addresses[-1] for each in addresses[-6:])
    assert recorded[True][-1] == recorded[True][-2]
    assert not WAITING & {name for name, _ in recorded[True][-1]}
    if interval > 1:
        assert recorded[False][-1] == recorded[False][-2] != recorded[True][-1]
        assert not WAITING & {name for name, _ in recorded[False][-1]}
