# SPDX-License-Identifier: Apache-2.0
"""The way of a frame: each step once, in order, and nothing ends the stream."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from results import result_of

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import FrameError, TransformMissingError, XsvggtError
from xsvggt_ros.geometry.rigid import Matrix, RobotPose
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.stream import pipeline as module
from xsvggt_ros.stream.frame import Frame, FrameResult, FrameUpdate, ImageArray
from xsvggt_ros.stream.health import MEMORY, ImageWatch, QualityWatch
from xsvggt_ros.stream.pipeline import FramePipeline, PipelineHooks
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings

SECOND = 1_000_000_000


def _mount(height: float) -> Matrix:
    pose = np.eye(4)
    pose[2, 3] = height
    return pose


class Surroundings:
    """Notes each hook that is called; what it is told to raise, it raises."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.raises: dict[str, Exception] = {}
        self.updates: list[FrameUpdate] = []
        self.refusals: list[tuple[int, str]] = []
        self.failures: list[tuple[int, str]] = []

    def note(self, name: str) -> None:
        self.calls.append(name)
        if name in self.raises:
            raise self.raises[name]

    def decode(self) -> ImageArray:
        self.note("decode")
        return np.random.default_rng(len(self.calls)).integers(0, 255, (28, 28, 3), np.uint8)

    def transforms(self, frame: Frame) -> RobotPose:
        self.note("transforms")
        return RobotPose(_mount(1.5))

    def scale(self, result: FrameResult, transforms: RobotPose) -> tuple[FrameResult, bool]:
        self.note("scale")
        assert transforms.carrier_from_camera is not None
        return replace(result, depth=2 * result.depth), result.index == 1

    def map(self, update: FrameUpdate) -> None:
        self.note("map")

    def publish(self, update: FrameUpdate) -> None:
        self.note("publish")

    def report(self, update: FrameUpdate) -> None:
        self.note("report")
        self.updates.append(update)

    def report_refusal(self, frame: Frame, error: XsvggtError) -> None:
        self.refusals.append((frame.stamp, str(error)))
        self.note("report_refusal")

    def report_failure(self, result: FrameResult, error: Exception) -> None:
        self.failures.append((result.stamp, str(error)))
        self.note("report_failure")

    def frame(self, stamp: int, **fields: Any) -> Frame:
        return Frame(stamp, "eye", self.decode, **fields)


@pytest.fixture
def around() -> Surroundings:
    return Surroundings()


@pytest.fixture
def pipeline(network: StreamVggt, around: Surroundings) -> FramePipeline:
    engine = Reconstructor(network, ReconstructorSettings(28, CacheSettings(budget_tokens=64)))
    names = ("transforms", "scale", "map", "publish", "report", "report_refusal", "report_failure")
    return FramePipeline(engine, PipelineHooks(**{name: getattr(around, name) for name in names}))


def test_each_step_runs_once_and_in_order(pipeline: FramePipeline, around: Surroundings) -> None:
    for stamp in (SECOND, 2 * SECOND):
        around.calls.clear()
        assert pipeline.process(around.frame(stamp)) is not None
        assert around.calls == ["decode", "transforms", "scale", "map", "publish", "report"]
    assert (pipeline.processed, pipeline.refused) == (2, 0)
    first, second = around.updates
    assert (first.session.number, first.session.frames) == (1, 1)
    assert (second.session.number, second.session.frames) == (1, 2)
    assert [each.starts_over for each in around.updates] == [True, True]
    assert [each.unit_changed for each in around.updates] == [False, True]


def test_the_transforms_are_those_of_the_frame(
    pipeline: FramePipeline, around: Surroundings
) -> None:
    update = pipeline.process(around.frame(SECOND))
    assert update is not None
    np.testing.assert_array_equal(update.frame.transforms.carrier_from_camera, _mount(1.5))
    # The map begins at the robot's base, whose camera is 1.5 m above.
    np.testing.assert_allclose(update.placement.map_from_camera, _mount(1.5), atol=1e-6)
    np.testing.assert_allclose(update.placement.map_from_carrier, np.eye(4), atol=1e-6)


def test_latency_counts_from_receiving_the_frame(
    pipeline: FramePipeline, around: Surroundings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "monotonic", lambda: 100.0)
    update = pipeline.process(around.frame(SECOND, received_at=99.25))
    assert update is not None
    assert update.total_seconds == 0.75
    assert update.publish_seconds >= 0.0


@pytest.mark.parametrize("step", ["decode", "transforms"])
def test_a_frame_that_is_refused_leaves_stamps_and_session(
    pipeline: FramePipeline, around: Surroundings, step: str
) -> None:
    pipeline.process(around.frame(5 * SECOND))
    around.raises[step] = TransformMissingError("nobody knows")
    assert pipeline.process(around.frame(SECOND)) is None
    around.raises.clear()
    update = pipeline.process(around.frame(6 * SECOND))
    assert update is not None
    assert (update.result.index, pipeline.reconstructor.session) == (1, 1)
    assert around.refusals == [(SECOND, "nobody knows")]
    assert (pipeline.processed, pipeline.refused) == (2, 1)


def test_what_is_unforeseen_is_a_refusal_with_its_name(
    pipeline: FramePipeline, around: Surroundings
) -> None:
    around.raises["transforms"] = KeyError("surprise")
    assert pipeline.process(around.frame(SECOND)) is None
    assert around.refusals == [(SECOND, "unexpected KeyError: 'surprise'")]


@pytest.mark.parametrize("step", ["scale", "map", "publish", "report"])
def test_a_result_that_does_not_come_out_is_told_and_the_next_one_comes(
    pipeline: FramePipeline, around: Surroundings, step: str
) -> None:
    around.raises[step] = ValueError("gone")
    update = pipeline.process(around.frame(SECOND))
    assert update is not None
    assert update.result.stamp == SECOND
    assert around.failures == [(SECOND, "gone")]
    around.raises.clear()
    pipeline.process(around.frame(2 * SECOND))
    assert [each.result.index for each in around.updates] == [1]
    assert pipeline.processed == 2


def test_a_report_that_fails_ends_nothing(
    pipeline: FramePipeline, around: Surroundings, caplog: pytest.LogCaptureFixture
) -> None:
    around.raises = {
        "decode": FrameError("truncated"),
        "report_refusal": ValueError("no status"),
    }
    assert pipeline.process(around.frame(SECOND)) is None
    assert f"the frame of stamp {SECOND} was not reported" in caplog.text
    around.raises = {"publish": ValueError("gone"), "report_failure": ValueError("no status")}
    assert pipeline.process(around.frame(2 * SECOND)) is not None
    assert (pipeline.processed, pipeline.refused) == (1, 1)


def test_a_fault_that_is_known_is_refused_before_anything_is_done(
    pipeline: FramePipeline, around: Surroundings
) -> None:
    assert pipeline.process(around.frame(SECOND, fault="its stamp is no time")) is None
    assert around.calls == ["report_refusal"]


def test_without_hooks_a_frame_still_has_its_result(network: StreamVggt) -> None:
    engine = Reconstructor(network, ReconstructorSettings(28, CacheSettings(budget_tokens=64)))
    image = np.zeros((28, 28, 3), np.uint8)
    update = FramePipeline(engine).process(Frame(1, "eye", lambda: image))
    assert update is not None
    assert update.result.index == 0
    assert update.blind == update.faults[0]
    assert "the image is dark" in update.blind


class _Drifting(Surroundings):
    """A robot that stands, by its wheels, whatever the network says."""

    def transforms(self, frame: Frame) -> RobotPose:
        return RobotPose(_mount(1.5), _mount(0.0))

    def scale(self, result: FrameResult, transforms: RobotPose) -> tuple[FrameResult, bool]:
        return result, False


def test_while_degraded_the_last_correction_of_an_odometry_stays(
    network: StreamVggt, monkeypatch: pytest.MonkeyPatch
) -> None:
    around = _Drifting()
    engine = Reconstructor(network, ReconstructorSettings(28, CacheSettings(budget_tokens=64)))
    pipeline = FramePipeline(engine, PipelineHooks(transforms=around.transforms))
    places = [0.0, 0.1, 0.98, 1.0, *[1.0 + 0.01 * i for i in range(12)]]
    jumps = 2
    faults: list[str] = []

    def take(*_: Any, stamp: int, **__: Any) -> list[FrameResult]:
        index = stamp // SECOND - 1
        pose = np.eye(4)
        pose[0, 3] = places[index]
        faults[:] = ["the pose jumped"] if index == jumps else []
        return [replace(result_of(index, stamp), camera_to_world=pose)]

    monkeypatch.setattr(engine, "take", take)
    monkeypatch.setattr(QualityWatch, "faults_of", lambda *_: tuple(faults))
    monkeypatch.setattr(ImageWatch, "faults_of", lambda *_: ())
    updates = [pipeline.process(around.frame((1 + i) * SECOND)) for i in range(len(places))]
    found = [float(each.placement.map_from_odom[0, 3]) for each in updates if each]
    assert found[:2] == [0.0, pytest.approx(0.1)]
    assert found[2 : 2 + MEMORY] == [pytest.approx(0.1)] * MEMORY
    assert found[2 + MEMORY :] == [pytest.approx(each) for each in places[2 + MEMORY :]]
    for each in updates:
        assert each is not None
        # The robot is where its odometry and the correction say, in every output alike.
        np.testing.assert_allclose(each.placement.map_from_carrier, each.placement.map_from_odom)
        expected = each.placement.map_from_odom @ _mount(1.5)
        np.testing.assert_allclose(each.placement.map_from_camera, expected)
