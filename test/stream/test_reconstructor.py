# SPDX-License-Identifier: Apache-2.0
"""The engine: every frame answered, sessions bounded, nothing non-finite let out."""

from __future__ import annotations

import dataclasses
import gc
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import reference
import torch
from present import present

from xsvggt_ros.cache.layer_segments import LayerSegments
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError, DeviceFullError, FrameError, NonFiniteOutputError
from xsvggt_ros.geometry.cameras import world_to_camera
from xsvggt_ros.model.network import Prediction, StreamVggt
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings

UNCOMPRESSED = CacheSettings("none", compatibility="published", key_bits=16, value_bits=16)


def images(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return list(generator.integers(0, 256, (count, height, width, 3), np.uint8))


def engine(network: StreamVggt, **cache: Any) -> Reconstructor:
    cache.setdefault("budget_tokens", 64)
    return Reconstructor(network, ReconstructorSettings(56, CacheSettings(**cache)))


def test_results_carry_stamp_frame_size_and_index(network: StreamVggt) -> None:
    reconstructor = engine(network)
    for index, image in enumerate(images(3)):
        result = reconstructor.step(image, stamp=100 + index, frame_id="eye")
        assert (result.index, result.stamp, result.frame_id) == (index, 100 + index, "eye")
        assert result.depth.shape == result.confidence.shape == (42, 56)
        assert result.color.shape == (42, 56, 3)
        assert result.depth.dtype == result.confidence.dtype == np.float32
        assert (result.confidence >= 1).all()
        assert (result.intrinsics.width, result.intrinsics.height) == (56, 42)
        assert result.timings.total > 0


def test_the_engine_equals_the_network_on_the_golden_frames() -> None:
    network = reference.network()
    settings = ReconstructorSettings(reference.CONFIG["width"], UNCOMPRESSED)
    reconstructor = Reconstructor(network, settings)
    golden = reference.tensors("outputs")
    encodings = golden["a_full.pose_enc"].double().numpy()
    first = world_to_camera(encodings[0])
    frames = reference.tensors("inputs")["frames_u8"].permute(0, 2, 3, 1).numpy()
    for index, frame in enumerate(frames):
        result = reconstructor.step(frame)
        expected = golden["a_full.depth.sub"][index, ..., 0]
        step = reference.CONFIG["subsample"]
        actual = torch.from_numpy(result.depth[step // 2 :: step, step // 2 :: step].copy())
        assert reference.deviation(actual, expected) <= reference.TOLERANCE
        relative = first @ np.linalg.inv(world_to_camera(encodings[index]))
        np.testing.assert_allclose(result.camera_to_world, relative, atol=2e-4)


def test_the_first_camera_is_the_world(network: StreamVggt) -> None:
    reconstructor = engine(network)
    for _ in range(2):
        result = reconstructor.step(images(1)[0])
        np.testing.assert_allclose(result.camera_to_world, np.eye(4), atol=1e-6)
        assert not np.allclose(reconstructor.step(images(2)[1]).camera_to_world, np.eye(4))
        reconstructor.reset()


def test_poses_are_rigid(network: StreamVggt) -> None:
    reconstructor = engine(network)
    for image in images(5):
        pose = reconstructor.step(image).camera_to_world
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)
        assert pose[3].tolist() == [0, 0, 0, 1]


def test_a_reset_repeats_the_session_exactly(network: StreamVggt) -> None:
    reconstructor = engine(network)
    first = [reconstructor.step(image) for image in images(6)]
    reconstructor.reset()
    assert (reconstructor.session, reconstructor.session_frames) == (2, 0)
    again = [reconstructor.step(image) for image in images(6)]
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.depth, other.depth)
        assert np.array_equal(one.camera_to_world, other.camera_to_world)
        assert one.cache == other.cache


def test_memory_of_a_session_is_bounded(network: StreamVggt) -> None:
    reconstructor = engine(network, budget_tokens=40, camera_frames=3)
    for image in images(4):
        result = reconstructor.step(image)
    gc.collect()
    before = sum(1 for thing in gc.get_objects() if isinstance(thing, torch.Tensor))
    allocated = result.cache.nbytes
    for image in images(20):
        result = reconstructor.step(image)
        assert result.cache.tokens == 40
        assert result.cache.nbytes == allocated
    gc.collect()
    after = sum(1 for thing in gc.get_objects() if isinstance(thing, torch.Tensor))
    assert after == before


def test_a_change_of_size_is_said_and_the_session_goes_on(
    network: StreamVggt, caplog: pytest.LogCaptureFixture
) -> None:
    reconstructor = engine(network)
    reconstructor.step(images(1)[0])
    result = reconstructor.step(images(1, height=32)[0])
    assert result.depth.shape == (28, 56)
    assert result.index == 1
    assert "changes from 56x42 to 56x28 pixels; the session goes on" in caplog.text


def test_a_budget_without_history_is_said_once_with_the_numbers(
    network: StreamVggt, caplog: pytest.LogCaptureFixture
) -> None:
    reconstructor = engine(network, budget_tokens=34)
    for image in images(3):
        reconstructor.step(image)
    sentence = "a budget of 34 tokens leaves no history: first and newest frame alone take 34"
    assert caplog.text.count(sentence) == 1
    assert "set cache.budget_tokens to 35 or more" in caplog.text


def test_the_cache_changes_between_two_frames(
    network: StreamVggt, caplog: pytest.LogCaptureFixture
) -> None:
    reconstructor = engine(network, key_bits=16, value_bits=16)
    for image in images(4):
        before = reconstructor.step(image).cache
    reconstructor.configure_cache(CacheSettings(budget_tokens=40, key_bits=2, value_bits=4))
    after = reconstructor.step(images(1)[0]).cache
    assert (before.tokens, before.key_bits, after.tokens, after.key_bits) == (64, 16, 40, 2)
    assert after.nbytes < before.nbytes
    assert reconstructor.session == 1
    reconstructor.configure_cache(CacheSettings(budget_tokens=30))
    assert "a budget of 30 tokens leaves no history" in caplog.text
    for settings in (CacheSettings(budget_tokens=9), CacheSettings(budget_mib=0.001)):
        for refuse in (reconstructor.check_cache, reconstructor.configure_cache):
            with pytest.raises(ConfigurationError, match="set it to at least"):
                refuse(settings)
    assert reconstructor.settings.cache == CacheSettings(budget_tokens=30)
    assert reconstructor.step(images(1)[0]).cache.tokens == 30


def test_without_history_is_not_said_again_for_every_change(
    network: StreamVggt, caplog: pytest.LogCaptureFixture
) -> None:
    reconstructor = engine(network, budget_tokens=34)
    for bits in (4, 8, 2):
        reconstructor.step(images(1)[0])
        reconstructor.configure_cache(replace(reconstructor.settings.cache, key_bits=bits))
    reconstructor.reset()
    reconstructor.step(images(1)[0])
    assert caplog.text.count("leaves no history") == 1


def out_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_change_that_runs_out_of_memory_begins_a_new_session_as_before(
    network: StreamVggt, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconstructor = engine(network)
    for image in images(4):
        reconstructor.step(image)
    with monkeypatch.context() as patch:
        patch.setattr(LayerSegments, "_allocate", out_of_memory)
        with pytest.raises(ConfigurationError, match="settings as they were: CUDA out of memory"):
            reconstructor.configure_cache(CacheSettings(budget_tokens=60, key_bits=8))
    assert (reconstructor.session, reconstructor.session_frames) == (2, 0)
    assert reconstructor.settings.cache == CacheSettings(budget_tokens=64)
    result = [reconstructor.step(image) for image in images(5)][-1]
    assert (result.cache.tokens, result.cache.key_bits) == (64, 4)
    reconstructor.configure_cache(CacheSettings(budget_tokens=60, key_bits=8))
    assert reconstructor.step(images(1)[0]).cache.tokens == 60


def test_running_out_of_memory_while_adapting_begins_a_new_session(
    network: StreamVggt, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconstructor = engine(network, budget_tokens=120, adaptive="scene")
    for image in images(10):
        reconstructor.step(image)
    still = images(1)[0]
    with monkeypatch.context() as patch:
        patch.setattr(LayerSegments, "_allocate", out_of_memory)
        with pytest.raises(FrameError, match="ran out of memory on frame .* is now 84"):
            list(map(reconstructor.step, [still] * 60))
    assert reconstructor.session == 2
    assert reconstructor.step(still).index == 0


def test_too_few_bytes_are_refused_before_an_image_is_remembered(network: StreamVggt) -> None:
    reconstructor = engine(network, budget_mib=0.001)
    with pytest.raises(ConfigurationError, match="frames of 17 tokens need at least"):
        reconstructor.step(images(1)[0])
    reconstructor.configure_cache(CacheSettings(budget_mib=1.0))
    assert reconstructor.step(images(1)[0]).index == 0


def test_a_still_camera_lets_an_adaptive_budget_shrink(network: StreamVggt) -> None:
    reconstructor = engine(network, budget_tokens=120, adaptive="scene")
    for image in images(10):
        moving = reconstructor.step(image).cache
    still = images(1)[0]
    for _ in range(60):
        resting = reconstructor.step(still).cache
    assert moving.budget_tokens > 1.5 * resting.budget_tokens
    assert resting.budget_tokens == 60
    assert resting.nbytes < moving.nbytes


def test_an_unusable_image_leaves_the_session_as_it_was(network: StreamVggt) -> None:
    reconstructor, undisturbed = engine(network), engine(network)
    first, second = images(2)
    reconstructor.step(first)
    undisturbed.step(first)
    with pytest.raises(FrameError):
        reconstructor.step(np.zeros((4, 4), np.uint8))
    assert np.array_equal(reconstructor.step(second).depth, undisturbed.step(second).depth)


class Corrupted:
    """A network whose answers are changed while ``active``."""

    def __init__(self, whole: StreamVggt, change: Callable[[Prediction], Prediction]) -> None:
        self.config, self.device, self.dtype = whole.config, whole.device, whole.dtype
        self._whole, self._change = whole, change
        self.active = False

    def __call__(self, *arguments: Any) -> Prediction:
        prediction: Prediction = self._whole(*arguments)
        return self._change(prediction) if self.active else prediction


def corrupted(
    network: StreamVggt, change: Callable[[Prediction], Prediction]
) -> tuple[Reconstructor, Corrupted]:
    """Return an engine whose network's camera head answers what ``change`` makes of its answer."""
    reconstructor = engine(network)
    network_in_use = Corrupted(reconstructor._network, change)
    reconstructor._network = reconstructor._runner._network = cast(StreamVggt, network_in_use)
    return reconstructor, network_in_use


def test_a_non_finite_pose_begins_a_new_session(network: StreamVggt) -> None:
    def poison(prediction: Prediction) -> Prediction:
        poses = present(prediction.pose_encodings).clone()
        poses[..., 0] = torch.nan
        return dataclasses.replace(prediction, pose_encodings=poses)

    reconstructor, network_in_use = corrupted(network, poison)
    reconstructor.step(images(1)[0])
    network_in_use.active = True
    with pytest.raises(NonFiniteOutputError, match="frame 1 .* a new session has begun"):
        reconstructor.step(images(2)[1])
    assert reconstructor.session == 2
    network_in_use.active = False
    assert reconstructor.step(images(1)[0]).index == 0


def test_single_infinite_depths_become_unknown(network: StreamVggt) -> None:
    def poison(prediction: Prediction) -> Prediction:
        depth = present(prediction.depth).clone()
        depth[..., 3, 5] = torch.inf
        return dataclasses.replace(prediction, depth=depth)

    reconstructor, network_in_use = corrupted(network, poison)
    network_in_use.active = True
    depth = reconstructor.step(images(1)[0]).depth
    assert np.isnan(depth[3, 5])
    assert np.isfinite(depth).sum() == depth.size - 1


def test_confidence_is_always_a_number(network: StreamVggt) -> None:
    def poison(prediction: Prediction) -> Prediction:
        confidence = present(prediction.depth_confidence).clone()
        confidence[..., 0, 0] = torch.nan
        confidence[..., 0, 1] = torch.inf
        return dataclasses.replace(prediction, depth_confidence=confidence)

    reconstructor, network_in_use = corrupted(network, poison)
    network_in_use.active = True
    result = reconstructor.step(images(1)[0])
    assert result.confidence[0, 0] == 1
    assert result.confidence[0, 1] == 1e6
    assert np.isnan(result.depth[0, 0])
    assert np.isfinite(result.depth[0, 1])


def undecided(prediction: Prediction) -> Prediction:
    """Shorten the quaternion of a prediction, and turn it anywhere."""
    poses = present(prediction.pose_encodings).clone()
    poses[..., 3:7] = 0.1 * poses[..., 3:7].norm() * torch.tensor([0.5, -0.5, 0.5, 0.5])
    return dataclasses.replace(prediction, pose_encodings=poses)


def test_a_pose_that_the_network_leaves_open_is_held_and_said_once(
    network: StreamVggt, caplog: pytest.LogCaptureFixture
) -> None:
    reconstructor, network_in_use = corrupted(network, undecided)
    still = images(1)[0]
    with caplog.at_level(logging.INFO, "xsvggt_ros.stream.reconstructor"):
        for stamp in range(12):
            last = reconstructor.step(still, stamp=stamp, camera="left")
            assert (last.pose_source, last.camera) == ("predicted", "left")
        network_in_use.active = True
        held = [reconstructor.step(still, stamp=stamp, camera="left") for stamp in (12, 13)]
    assert [each.pose_source for each in held] == ["held", "held"]
    np.testing.assert_allclose(held[0].camera_to_world, last.camera_to_world, atol=0.05)
    said = [r.message for r in caplog.records if "left the rotation of frame" in r.message]
    assert len(said) == 1
    assert "frame 12 open" in said[0]
    reconstructor.reset()
    assert reconstructor.step(still, stamp=20).pose_source == "predicted"


def blind(prediction: Prediction) -> Prediction:
    """Take the field of view from a prediction."""
    poses = present(prediction.pose_encodings).clone()
    poses[..., 7:] = 0
    return dataclasses.replace(prediction, pose_encodings=poses)


def test_a_held_camera_keeps_its_focal_length_in_another_aspect(network: StreamVggt) -> None:
    reconstructor, network_in_use = corrupted(network, blind)
    good = reconstructor.step(images(1)[0])
    network_in_use.active = True
    held = reconstructor.step(images(1, height=32)[0])
    assert held.intrinsics_source == "held"
    assert held.intrinsics.fx == pytest.approx(good.intrinsics.fx)
    assert held.intrinsics.fy == pytest.approx(good.intrinsics.fy)
    assert held.intrinsics.cy == 14
    reconstructor.reset()
    assert reconstructor.step(images(1)[0]).intrinsics_source == "assumed"


def test_a_failure_while_results_are_fetched_begins_a_new_session(
    network: StreamVggt, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconstructor = engine(network)
    reconstructor.step(images(1)[0])

    def fail(prediction: Prediction) -> Prediction:
        raise RuntimeError("device lost")

    with monkeypatch.context() as patch:
        patch.setattr("xsvggt_ros.stream.step_runner.to_host", fail)
        with pytest.raises(FrameError, match="a new session has begun: device lost"):
            reconstructor.step(images(2)[1])
    assert reconstructor.session == 2
    assert reconstructor.step(images(1)[0]).cache.tokens == 17


def test_a_zero_field_of_view_never_becomes_an_infinite_focal_length(
    network: StreamVggt, caplog: pytest.LogCaptureFixture
) -> None:
    reconstructor, network_in_use = corrupted(network, blind)
    network_in_use.active = True
    assumed = reconstructor.step(images(1)[0])
    assert assumed.intrinsics_source == "assumed"
    assert assumed.intrinsics.fx == pytest.approx(28 / np.tan(np.pi / 6))
    assert assumed.intrinsics.fy == pytest.approx(assumed.intrinsics.fx)
    network_in_use.active = False
    good = reconstructor.step(images(2)[1])
    assert good.intrinsics_source == "predicted"
    network_in_use.active = True
    held = reconstructor.step(images(3)[2])
    assert held.intrinsics_source == "held"
    assert held.intrinsics == good.intrinsics
    warnings = [r for r in caplog.records if "the field of view is" in r.message]
    assert [record.levelno for record in warnings] == [logging.WARNING]


def test_a_failing_network_begins_a_new_session(network: StreamVggt) -> None:
    def fail(prediction: Prediction) -> Prediction:
        raise RuntimeError("device lost\ndetails")

    reconstructor, network_in_use = corrupted(network, fail)
    reconstructor.step(images(1)[0])
    network_in_use.active = True
    with pytest.raises(FrameError, match="failed on frame 1 .*: device lost$"):
        reconstructor.step(images(2)[1])
    assert reconstructor.session == 2
    assert reconstructor.session_frames == 0


def test_impossible_settings_are_refused_before_anything_runs(network: StreamVggt) -> None:
    with pytest.raises(ConfigurationError, match="input.width is 57"):
        Reconstructor(network, ReconstructorSettings(57))
    with pytest.raises(ConfigurationError, match="budget_tokens is 3"):
        engine(network, budget_tokens=3)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["gpu", "python", "cpu"],
)
@pytest.mark.parametrize(
    ("cache", "changes"),
    [
        ({}, {"cache.budget_tokens": 44}),
        ({"budget_tokens": 12}, {"cache.budget_tokens": 10}),
        ({"budget_tokens": 10}, {}),
        ({"budget_mib": 1.0}, {"cache.budget_mib": 0.7}),
        ({"policy": "none"}, {}),
    ],
)
def test_a_device_without_memory_shrinks_the_budget_and_goes_on(
    network: StreamVggt,
    monkeypatch: pytest.MonkeyPatch,
    error: torch.OutOfMemoryError | MemoryError | RuntimeError,
    cache: dict[str, Any],
    changes: dict[str, float],
) -> None:
    reconstructor = engine(network, **cache)
    reconstructor.step(images(1)[0])

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("xsvggt_ros.stream.step_runner.to_host", fail)
        with pytest.raises(DeviceFullError, match="frame 1 of the session") as refusal:
            reconstructor.step(images(2)[1])
    assert refusal.value.changes == changes
    for name, value in changes.items():
        assert f"{name} is now {value:g}" in str(refusal.value)
        assert getattr(reconstructor.settings.cache, name.removeprefix("cache.")) == value
    if not changes:
        assert "nothing can be given up; lower input.width" in str(refusal.value)
    assert (reconstructor.session, reconstructor.reset_reason) == (
        2,
        "the device ran out of memory",
    )
    assert [reconstructor.step(image).index for image in images(3)] == [0, 1, 2]


def test_a_budget_in_mib_never_shrinks_below_what_a_frame_needs(
    network: StreamVggt, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconstructor = engine(network, budget_mib=1.0)
    monkeypatch.setattr("xsvggt_ros.stream.step_runner.to_host", out_of_memory)
    image = images(1)[0]
    for _ in range(40):
        with pytest.raises(DeviceFullError):
            reconstructor.step(image)
    monkeypatch.undo()
    assert reconstructor.settings.cache.budget_mib < 0.1
    assert reconstructor.step(image).index == 0
