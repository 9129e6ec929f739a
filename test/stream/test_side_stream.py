# SPDX-License-Identifier: Apache-2.0
"""What runs beside what within a captured step, and that nothing waits for more than it needs."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from xsvggt_ros import cuda
from xsvggt_ros.cache.kv_cache import KvCache
from xsvggt_ros.cache.layer_group import LayerGroup
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.cuda import Kind, SideStreams
from xsvggt_ros.model.checkpoint import random_network
from xsvggt_ros.model.config import PRESETS
from xsvggt_ros.stream.step_runner import cache_layout


class Stream:
    """Stands in for a stream: knows the operations that have ended before what comes on it."""

    def __init__(self) -> None:
        self.before: set[int] = set()

    def wait_stream(self, other: "Stream") -> None:
        self.before |= other.before


class Schedule(TorchDispatchMode):
    """Stands in for a capture; records each operation, its stream, and what it waits for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.streams = [Stream()]
        self.made = [self.streams[0]]
        self.operations: list[tuple[str, Stream, set[int]]] = []

    def make(self, priority: int = 0) -> Stream:
        self.made.append(Stream())
        return self.made[-1]

    def forget(self) -> None:
        self.operations.clear()
        for stream in self.made:
            stream.before.clear()

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        self.streams.append(stream)
        yield
        self.streams.pop()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        stream = self.streams[-1]
        self.operations.append((function._schema.name, stream, set(stream.before)))
        stream.before.add(len(self.operations) - 1)
        return function(*args, **(kwargs or {}))

    def of(self, name: str) -> list[int]:
        return [index for index, each in enumerate(self.operations) if each[0] == name]

    def waits(self, index: int, other: int) -> bool:
        return other in self.operations[index][2]


@pytest.fixture
def schedule(monkeypatch: pytest.MonkeyPatch) -> Schedule:
    """Record the newest of some frames."""
    schedule = Schedule()
    monkeypatch.setattr(cuda, "capturing", lambda: True)
    monkeypatch.setattr(torch.cuda, "Stream", schedule.make)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: schedule.streams[-1])
    monkeypatch.setattr(torch.cuda, "stream", schedule.on)
    network = random_network(PRESETS["tiny"], 0).freeze()
    cache = KvCache(
        CacheSettings("balanced", budget_tokens=40), cache_layout(network), network.side
    )
    with torch.inference_mode():
        for _ in range(4):
            schedule.forget()
            with schedule:
                network(torch.rand(1, 1, 3, 28, 42), cache, ("camera", "depth"))
                cache.join()
            cache.end_frame()
    return schedule


def test_measures_and_decoding_run_beside_the_network(schedule: Schedule) -> None:
    measures = schedule.of("xsvggt::key_similarity")
    appended = schedule.of("xsvggt::append_newest")
    decoded = schedule.of("xsvggt::decode_layer")
    assert len(measures) == len(appended) == len(decoded) > 1
    main = schedule.streams[0]
    attended = [
        next(index for index in schedule.of("aten::scaled_dot_product_attention") if index > newest)
        for newest in appended
    ]
    linear = schedule.of("aten::linear") or schedule.of("aten::addmm")
    products = [index for index in linear if schedule.operations[index][1] is main]
    for layer, (measure, attention) in enumerate(zip(measures, attended, strict=True)):
        assert schedule.operations[measure][1] is not main
        assert schedule.operations[attention][1] is main
        assert not schedule.waits(attention, measure)
        if layer + 1 == len(decoded):
            continue
        ahead = decoded[layer + 1]
        assert schedule.operations[ahead][1] is not main
        assert schedule.waits(ahead, measure)  # which reads what is decoded over
        assert schedule.waits(ahead, attention)
        between = [index for index in products if ahead < index < appended[layer + 1]]
        assert len(between) > 4
        assert not any(schedule.waits(index, ahead) for index in between)
        assert schedule.waits(appended[layer + 1], ahead)


def test_what_runs_beside_the_network_is_kept_until_it_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The query of a layer, which its measure reads when the block is done with it."""
    attend, join = LayerGroup.attend, SideStreams.join
    asked: list[weakref.ref[torch.Tensor]] = []
    waited = []

    def attending(self: LayerGroup, index: int, *tensors: torch.Tensor) -> torch.Tensor:
        mixed = attend(self, index, *tensors)
        asked.append(weakref.ref(tensors[0]))
        return mixed

    def joining(self: SideStreams, kind: Kind) -> None:
        if kind == "cache" and asked:
            waited.append(asked[-1]() is not None)
        join(self, kind)

    monkeypatch.setattr(LayerGroup, "attend", attending)
    monkeypatch.setattr(SideStreams, "join", joining)
    network = random_network(PRESETS["tiny"], 0).freeze()
    cache = KvCache(CacheSettings(budget_tokens=40), cache_layout(network), network.side)
    with torch.inference_mode():
        for _ in range(3):
            network(torch.rand(1, 1, 3, 28, 42), cache, ("camera", "depth"))
            cache.join()
            cache.end_frame()
    assert len(waited) > network.config.depth
    assert all(waited)


def test_levels_of_dense_heads_run_beside_the_blocks_behind_them(schedule: Schedule) -> None:
    main = schedule.streams[0]
    convolutions = schedule.of("aten::conv2d") or schedule.of("aten::convolution")
    beside = [index for index in convolutions if schedule.operations[index][1] is not main]
    later = [index for index in schedule.of("xsvggt::append_newest") if index > beside[0]]
    assert later
    assert not any(schedule.waits(later[0], index) for index in beside)
    joined = [index for index in convolutions if schedule.operations[index][1] is main]
    assert all(schedule.waits(joined[-1], index) for index in beside)


def test_dense_heads_camera_head_and_rounding_run_beside_each_other(schedule: Schedule) -> None:
    (written,) = {schedule.operations[index][1] for index in schedule.of("xsvggt::write_tokens")}
    cameras = schedule.of("xsvggt::attend_camera")
    (camera,) = {schedule.operations[index][1] for index in cameras}
    main = schedule.streams[0]
    assert len({id(written), id(camera), id(main)}) == 3
    assert not any(
        schedule.waits(index, write)
        for index in cameras for write in schedule.of("xsvggt::write_tokens")
    )  # fmt: skip
    convolutions = schedule.of("aten::conv2d") or schedule.of("aten::convolution")
    assert convolutions
    assert not any(schedule.waits(convolutions[-1], index) for index in cameras)
    assert main.before == set(range(len(schedule.operations)))  # a step ends with all of it


def test_after_a_capture_that_failed_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[Stream] = []

    class Watched(Stream):
        def wait_stream(self, other: Stream) -> None:
            waited.append(other)

    main = Watched()
    monkeypatch.setattr(cuda, "capturing", lambda: True)
    monkeypatch.setattr(torch.cuda, "Stream", lambda priority: Watched())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: main)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: Schedule().on(stream))
    network = random_network(PRESETS["tiny"], 0).freeze()
    cache = KvCache(CacheSettings(budget_tokens=40), cache_layout(network), network.side)
    with network.side.fork("camera head"), network.side.fork("dense heads"):
        pass
    cache.restore(cache.counts())
    waited.clear()
    network.side.join("camera head")
    network.side.join("dense heads")
    cache.join()
    assert waited == []


def test_a_side_stream_that_is_not_captured_changes_nothing() -> None:
    side = SideStreams()
    with side.fork("cache"):
        assert not cuda.capturing()
    side.join("cache")
