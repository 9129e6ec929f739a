# SPDX-License-Identifier: Apache-2.0
"""The training: losses worked out by hand, gradients, resumption, what it leaves behind."""

from __future__ import annotations

import copy
import csv
import math
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from present import present
from torch._dynamo.testing import CompileCounterWithBackend
from typer.testing import CliRunner

from xsvggt_ros import cli
from xsvggt_ros.errors import CheckpointError, ConfigurationError
from xsvggt_ros.geometry.cameras import inverted, unproject, world_to_camera
from xsvggt_ros.geometry.rigid import invert
from xsvggt_ros.model.checkpoint import load_network, read_checkpoint
from xsvggt_ros.model.config import preset
from xsvggt_ros.model.heads import inverse_encoding
from xsvggt_ros.model.layers import CausalSequence
from xsvggt_ros.model.network import Prediction
from xsvggt_ros.synthetic.cameras import Truth, intrinsics_for, truth_of
from xsvggt_ros.synthetic.motion import MotionSettings
from xsvggt_ros.synthetic.sequence import Sequence, SequenceSettings
from xsvggt_ros.training import batches
from xsvggt_ros.training.__main__ import main
from xsvggt_ros.training.auxiliary_heads import RoomHeads
from xsvggt_ros.training.batches import (
    Batch,
    ClipCache,
    clip_settings,
    clips_at,
    draw_batch,
    render_clip,
    stream_indices,
)
from xsvggt_ros.training.forgetting import (
    LONGEST,
    MOST_APART,
    SHORTEST,
    GappySequence,
    MaskedSequence,
    drawn_window,
    windowed,
)
from xsvggt_ros.training.learning import (
    LossWeights,
    camera_loss,
    dense_loss,
    fresh_network,
    gradient_loss,
    losses,
    nearer_sign,
    spelled_for,
)
from xsvggt_ros.training.scores import camera_poses, sequence_scores
from xsvggt_ros.training.settings import (
    CURRICULA,
    Schedule,
    Stage,
    TrainingSettings,
    curriculum_named,
    stage_at,
)
from xsvggt_ros.training.state import StartSettings, fresh_auxiliary, load_start
from xsvggt_ros.training.trainer import MOST_SKIPPED, Trainer

CPU = torch.device("cpu")
TINY = TrainingSettings(
    preset="tiny", recipe="test", steps=6, warmup=2, device="cpu", learning_rate=1e-3
)
QUICK = Schedule(score="short")


CLIPS = clip_settings("chart", 0, 28, 28, 4)


def pair(seed: int = 0) -> tuple[Batch, Stage]:
    clips = replace(CLIPS, seed=seed)
    cache = ClipCache(clips, CPU, 10)
    batch = draw_batch(cache, 3, 2, 2, clips.intrinsics, (seed, 0), CPU)
    return batch, CURRICULA["test"].stages[0]


# LossCounter


def test_dense_loss_by_hand() -> None:
    error = torch.tensor([[0.5, -0.5], [0.5, -0.5]]).reshape(1, 1, 2, 2, 1)
    confidence = torch.tensor([[1.0, 2.0], [1.0, 2.0]]).reshape(1, 1, 2, 2)
    value = (1 * 0.5 + 2 * 0.5) / 2 - 0.2 * math.log(2) / 2
    across, down = 1.0 * 2.0, 0.0
    assert float(dense_loss(error, confidence, 0.2)) == pytest.approx(value + (across + down) / 2)


def test_dense_loss_of_points_takes_distances() -> None:
    error = torch.zeros(1, 1, 2, 2, 3)
    error[..., :] = torch.tensor([3.0, 4.0, 0.0])
    assert float(dense_loss(error, torch.ones(1, 1, 2, 2), 0.2)) == pytest.approx(5.0)


def test_gradients_of_a_constant_error_are_nothing_and_scales_are_averaged() -> None:
    assert float(gradient_loss(torch.full((1, 1, 8, 8, 1), 3.0), torch.ones(1, 1, 8, 8))) == 0
    ramp = torch.arange(8.0).expand(8, 8).reshape(1, 1, 8, 8, 1)
    # Across 1, 2 and 4 pixels the ramp climbs as much; down it does not climb.
    expected = (1 + 0 + 2 + 0 + 4 + 0) / 6
    assert float(gradient_loss(ramp, torch.ones(1, 1, 8, 8))) == pytest.approx(expected)


def test_confidence_is_worth_its_price_at_the_right_error() -> None:
    """Minus alpha log c plus c e is least at c = alpha / e."""
    confidence = torch.full((1, 1, 2, 2), 2.0, requires_grad=True)
    dense_loss(torch.full((1, 1, 2, 2, 1), 0.1), confidence, 0.2).backward()
    assert present(confidence.grad).abs().max() == pytest.approx(0, abs=1e-7)


def test_camera_loss_by_hand() -> None:
    truth = torch.zeros(1, 1, 9)
    encodings = torch.zeros(1, 1, 2, 9)
    encodings[0, 0, 0, 0] = 0.05  # within delta 0.1: 0.5 * 0.05^2 / 0.1
    encodings[0, 0, 1, 8] = 0.5  # beyond: 0.5 - 0.05
    expected = (0.6 * 0.0125 + 1.0 * 0.45) / 1.6
    assert float(camera_loss(encodings, truth, 0.1)) == pytest.approx(expected)


def test_only_the_first_camera_sets_the_scale() -> None:
    depth = torch.full((1, 2, 2, 2), 4.0)
    points = torch.zeros(1, 2, 2, 2, 3)
    points[:, 0, ..., 2], points[:, 1, ..., 2] = 4.0, 400.0
    encodings = torch.zeros(1, 2, 9)
    encodings[..., 0], encodings[..., 7] = 2.0, 1.0
    normal = Truth(depth, points, encodings).normalized()
    assert normal.depth.unique().tolist() == [1.0]
    assert normal.points[0, :, 0, 0, 2].tolist() == [1.0, 100.0]
    assert normal.encodings[0, 0].tolist() == [0.5, 0, 0, 0, 0, 0, 0, 1.0, 0]


def test_perfect_predictions_cost_only_what_confidence_earns() -> None:
    batch, _ = pair()
    truth = batch.truth.normalized()
    sure = torch.full_like(truth.depth, math.e)
    found = Prediction(truth.encodings.unsqueeze(2), truth.depth, sure, truth.points, sure)
    parts = losses(found, truth, LossWeights())
    assert float(parts["depth"]) == pytest.approx(-0.2, abs=1e-6)
    assert float(parts["points"]) == pytest.approx(-0.2, abs=1e-6)
    assert float(parts["camera"]) == 0
    assert float(parts["total"]) == pytest.approx(-0.4, abs=1e-6)


# Data


def test_points_poses_and_depth_of_a_batch_agree() -> None:
    batch, _ = pair()
    assert batch.images.shape == (2, 2, 3, 28, 28)
    assert 0 <= float(batch.images.min()) <= float(batch.images.max()) <= 1
    for stream in range(2):
        for frame in range(2):
            encoding = batch.truth.encodings[stream, frame].double().numpy()
            pose = invert(world_to_camera(encoding))
            own = unproject(batch.truth.depth[stream, frame].numpy(), CLIPS.intrinsics)
            points = own @ pose[:3, :3].T + pose[:3, 3]
            np.testing.assert_allclose(points, batch.truth.points[stream, frame], atol=1e-4)
            room = (
                np.linalg.inv(batch.poses[stream, 0].numpy()) @ batch.poses[stream, frame].numpy()
            )
            np.testing.assert_allclose(room, pose, atol=1e-4)
        np.testing.assert_allclose(
            batch.truth.encodings[stream, 0, :7], [0, 0, 0, 0, 0, 0, 1], atol=1e-6
        )
    assert batch.truth.encodings[0, 0, 8] == pytest.approx(math.radians(75), abs=1e-5)
    assert batch.truth.encodings[:, 1, :3].norm(dim=-1).min() > 1e-3


def test_colours_of_a_chart_tell_the_place() -> None:
    """What the demo network lives on: a straight line from colour to place, in every room."""
    clips = replace(CLIPS, width=56, height=42)
    colours, places = [], []
    for index in range(6):
        clip = render_clip(clips, index, CPU)
        for k in range(len(clip)):
            own = unproject(clip.depth[k].astype(np.float32), clips.intrinsics)
            pose = clip.poses[k]
            places.append((own @ pose[:3, :3].T + pose[:3, 3]).reshape(-1, 3))
            colours.append(clip.images[k].reshape(3, -1).T / 255)
    known = np.concatenate(colours)
    rows = np.concatenate([known, np.ones((len(known), 1))], axis=1)
    wanted = np.concatenate(places)
    half = len(rows) // 2
    line = np.linalg.lstsq(rows[:half], wanted[:half], rcond=None)[0]
    error = np.linalg.norm(rows[half:] @ line - wanted[half:], axis=1)
    assert np.median(error) < 0.15


def test_clips_depend_on_seed_and_number_alone() -> None:
    one, again, other = (render_clip(CLIPS, index, CPU) for index in (3, 3, 4))
    np.testing.assert_array_equal(one.images, again.images)
    np.testing.assert_array_equal(one.depth, again.depth)
    assert np.abs(one.depth - other.depth).mean() > 0.01
    assert np.abs(one.depth - render_clip(replace(CLIPS, seed=1), 3, CPU).depth).mean() > 0.01


def test_a_clip_cache_keeps_the_newest_and_renders_what_is_missing() -> None:
    cache = ClipCache(CLIPS, CPU, capacity=2)
    clips = [render_clip(CLIPS, index, CPU) for index in range(3)]
    for index, clip in enumerate(clips):
        cache.add(index, clip)
    rng = np.random.default_rng(0)
    drawn = [cache.draw(3, rng) for _ in range(20)]
    assert {id(each) for each in drawn} == {id(clips[1]), id(clips[2])}
    empty = ClipCache(CLIPS, CPU, capacity=2)
    drawn = [empty.draw(3, rng) for _ in range(20)]
    assert len({id(each) for each in drawn}) == 2  # rendered once each
    assert any(np.array_equal(each.images, clips[2].images) for each in drawn)
    assert not any(np.array_equal(each.images, clips[0].images) for each in drawn)


def test_clips_become_more_with_the_steps() -> None:
    assert [clips_at(step, 5, 2) for step in (0, 1, 2, 3, 10)] == [5, 5, 6, 6, 10]


@given(st.integers(2, 60), st.integers(1, 130), st.integers(0, 2**32 - 1))
def test_cuts_are_evenly_spaced_and_stay_on_the_clip(length: int, frames: int, seed: int) -> None:
    chosen = stream_indices(length, frames, np.random.default_rng(seed))
    assert chosen.shape == (frames,)
    assert 0 <= chosen.min() <= chosen.max() < length
    steps = np.abs(np.diff(chosen))
    assert (steps <= 3).all()
    if 3 * frames <= length:  # no turning back
        assert len(set(np.diff(chosen))) <= 1
        assert len(set(chosen)) == frames


def test_a_clip_of_one_image_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="1 frames"):
        stream_indices(1, 4, np.random.default_rng(0))
    crowded = replace(CLIPS, room=replace(CLIPS.room, least=(2.5, 2.5, 2.4), most=(2.5, 2.5, 2.4),
                                          furniture=(60, 60)))  # fmt: skip
    clip = render_clip(crowded, 0, CPU)  # furniture that finds no place is left out
    assert len(clip) == 4


def test_clips_are_rendered_at_once_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of a GPU, on a CPU: all frames of a clip in one batch."""
    world, poses = batches._plan(CLIPS, 2)
    one = batches._rendered(world, poses, CLIPS)
    monkeypatch.setattr(batches, "_by_frame", lambda device: False)
    other = batches._rendered(world, poses, CLIPS)
    torch.testing.assert_close(one.depth, other.depth, atol=1e-4, rtol=1e-4)
    assert ((one.light - other.light).abs() > 0.01).float().mean() < 0.01


@pytest.mark.slow
def test_data_made_by_other_processes_is_the_same(tmp_path: Path) -> None:
    settings = replace(TINY, steps=3)
    here = list(Trainer(settings, tmp_path / "a").data.batches(0))
    there = list(Trainer(replace(settings, workers=1), tmp_path / "b").data.batches(0))
    assert len(here) == len(there) == 3
    for (one, stage), (other, _) in zip(here, there, strict=True):
        torch.testing.assert_close(one.images, other.images, rtol=0, atol=0)
        assert one.images.shape[:2] == (stage.streams, stage.frames)


def test_stages_follow_their_shares() -> None:
    stages = CURRICULA["demo"].stages
    names = [stage_at(stages, step, 1000).name for step in range(1000)]
    assert [names.count(stage.name) for stage in stages] == [450, 250, 200, 100]
    assert names == sorted(names, key=[stage.name for stage in stages].index)
    with pytest.raises(ConfigurationError, match="demo"):
        curriculum_named("school")


def test_the_demo_network_is_small_and_has_the_real_head_size() -> None:
    config = preset("demo")
    assert config.head_dim == 64
    count = sum(each.numel() for each in fresh_network("demo", 0).parameters())
    assert 2 * count < 16 * 2**20


def test_a_quaternion_and_its_negative_cost_the_same() -> None:
    rng = torch.Generator().manual_seed(0)
    truth = torch.randn(2, 3, 9, generator=rng)
    encodings = torch.randn(2, 3, 4, 9, generator=rng)
    turned = truth.clone()
    turned[..., 3:7] *= -1
    loss = camera_loss(encodings, truth, 0.1)
    torch.testing.assert_close(camera_loss(encodings, turned, 0.1), loss)
    said_otherwise = encodings.clone()
    said_otherwise[..., 3:7] *= -1
    torch.testing.assert_close(camera_loss(said_otherwise, truth, 0.1), loss)
    moved = truth.clone()
    moved[..., :3] *= -1
    assert float(camera_loss(truth.unsqueeze(2), moved, 0.1)) > 1


def test_between_two_signs_the_nearer_one_is_wanted() -> None:
    encodings = torch.tensor([0.0, 0, 0, 0.1, 0, 0, -0.1, 1, 1])
    for truth in ([0.0, 0, 0, 1, 0, 0, 0, 1, 1], [0.0, 0, 0, -1, 0, 0, 0, 1, 1]):
        assert nearer_sign(torch.tensor(truth), encodings)[3] == 1


# Memory with gaps


def gappy(seed: int = 0, frames: int = 6, tokens: int = 5) -> tuple[GappySequence, int, int]:
    return GappySequence(frames, torch.Generator().manual_seed(seed)), frames, tokens


@given(st.integers(0, 2**31), st.integers(2, 12), st.integers(1, 6))
def test_first_and_newest_frames_are_never_forgotten_and_nothing_comes_back(
    seed: int, frames: int, tokens: int
) -> None:
    memory, *_ = gappy(seed, frames, tokens)
    forgotten = memory._forgotten(frames * tokens, tokens)
    seen = torch.arange(frames * tokens) // tokens
    assert (forgotten[:tokens] == torch.inf).all()
    # Until the frame after it, each token is there; later it is gone for good.
    assert (forgotten > seen + 1).all()


def test_a_memory_with_gaps_attends_to_what_is_left_and_to_nothing_later() -> None:
    memory, frames, tokens = gappy()
    rng = torch.Generator().manual_seed(1)
    query, key, value = torch.randn(3, 1, 2, frames * tokens, 8, generator=rng).unbind()
    found = memory.attend(0, query, key, value)
    again, *_ = gappy()
    forgotten = again._forgotten(frames * tokens, tokens)
    for index in range(frames * tokens):
        frame = index // tokens
        there = (torch.arange(frames * tokens) // tokens <= frame) & (forgotten > frame)
        weight = (query[:, :, index : index + 1] @ key[:, :, there].transpose(-1, -2)) / 8**0.5
        expected = weight.softmax(-1) @ value[:, :, there]
        torch.testing.assert_close(found[:, :, index : index + 1], expected)
    assert not forgotten.isinf().all()


def test_blocks_forget_differently_and_some_memories_forget_sooner() -> None:
    memory, frames, tokens = gappy(3, 40)
    first = memory._forgotten(frames * tokens, tokens)
    assert not torch.equal(first, memory._forgotten(frames * tokens, tokens))
    means = {gappy(seed)[0]._mean for seed in range(20)}
    assert (SHORTEST, LONGEST) == (2.0, 10.0)
    assert SHORTEST <= min(means) < 4 < max(means) <= LONGEST


def test_a_share_of_the_steps_has_gaps(tmp_path: Path) -> None:
    trainer = Trainer(TINY, tmp_path)
    whole, half = CURRICULA["test"].stages
    assert (whole.gaps, half.gaps) == (0, 0.5)
    kinds = []
    images = torch.zeros(1, 3, 3, 28, 28)
    for trainer.step in range(200):
        assert type(trainer._memory(images, whole)) is CausalSequence
        kinds.append(type(trainer._memory(images, half)))
        assert type(trainer._memory(images, half)) is kinds[-1]
    assert 70 < kinds.count(GappySequence) < 130


@pytest.mark.slow
def test_compiled_steps_are_the_same_and_gaps_compile_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = CompileCounterWithBackend("eager")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=compiler))
    plain = Trainer(TINY, tmp_path / "plain")
    compiled = Trainer(replace(TINY, compile=True), tmp_path / "compiled")
    batch, stage = pair()
    graphs = []
    for gaps in (0.0, 0.0, 1.0, 1.0, 1.0, 1.0):
        kind = replace(stage, gaps=gaps, dense_every=1)
        expected, found = (each.take_step(batch, kind) for each in (plain, compiled))
        assert found == pytest.approx(expected, rel=1e-3)
        graphs.append(compiler.frame_count)
    assert 0 < graphs[0] == graphs[1] < graphs[2]
    assert set(graphs[3:]) == {graphs[2]}


# StartSettings with what another training has learned


def test_a_training_starts_from_what_another_one_has_learned(tmp_path: Path) -> None:
    other = Trainer(replace(TINY, steps=2), tmp_path / "other")
    other.train(QUICK)
    settings = replace(TINY, seed=5, start=str(tmp_path / "other"))
    trainer = Trainer(settings, tmp_path / "new")
    assert trainer.step == 0
    for mine, its in ((trainer.network, other.average), (trainer.auxiliary, other.auxiliary)):
        for name, value in its.state_dict().items():
            torch.testing.assert_close(mine.state_dict()[name], value, rtol=0, atol=0)
    frozen = [name for name, each in trainer.network.named_parameters() if not each.requires_grad]
    assert frozen == ["aggregator.patch_embed.mask_token"]


def test_weights_alone_are_a_start_and_auxiliary_heads_are_fresh(tmp_path: Path) -> None:
    other = Trainer(replace(TINY, steps=2), tmp_path / "other")
    other.train(QUICK)
    settings = replace(TINY, start=str(tmp_path / "other" / "weights.safetensors"))
    learner = load_start(StartSettings("tiny", "chart", 0, settings.start))
    for name, value in other.average.state_dict().items():
        torch.testing.assert_close(learner.network.state_dict()[name], value, rtol=1e-3, atol=1e-4)
    fresh = fresh_auxiliary(StartSettings("tiny", "chart", 0))
    torch.testing.assert_close(learner.auxiliary.camera.weight, fresh.camera.weight)


def test_a_resumed_training_does_not_ask_for_its_start_again(tmp_path: Path) -> None:
    Trainer(replace(TINY, steps=2), tmp_path / "other").train(QUICK)
    settings = replace(TINY, start=str(tmp_path / "other"))
    trainer = Trainer(settings, tmp_path / "new")
    trainer.step = 1
    trainer.save()
    (tmp_path / "other" / "state.json").unlink()
    assert Trainer(settings, tmp_path / "new").step == 1
    with pytest.raises(CheckpointError, match="holds no training"):
        Trainer(settings, tmp_path / "third")


def test_what_does_not_fit_is_no_start(tmp_path: Path) -> None:
    Trainer(replace(TINY, steps=2), tmp_path / "other").train(QUICK)
    start = str(tmp_path / "other")
    with pytest.raises(CheckpointError, match="of another shape"):
        load_start(StartSettings("demo", "chart", 0, start))
    with pytest.raises(CheckpointError, match="kind of room, rich"):
        load_start(StartSettings("tiny", "rich", 0, start))
    with pytest.raises(CheckpointError, match="nowhere"):
        load_start(StartSettings("tiny", "chart", 0, str(tmp_path / "nowhere.safetensors")))


# The loop


def test_gradients_reach_every_part(tmp_path: Path) -> None:
    trainer = Trainer(TINY, tmp_path)
    batch, stage = pair()
    before = copy.deepcopy(trainer.network.state_dict())
    # The last layers of the heads start at random, so one step is enough to move all.
    for _ in range(2):
        parts = trainer.take_step(batch, stage)
    assert set(parts) == {"depth", "points", "camera", "auxiliary", "total"}
    after = trainer.network.state_dict()
    still = [name for name in before if torch.equal(before[name], after[name])]
    assert still == ["aggregator.patch_embed.mask_token"]


def test_the_training_forward_is_the_masked_forward(tmp_path: Path) -> None:
    trainer = Trainer(TINY, tmp_path)
    batch, _ = pair()
    with torch.no_grad():
        outputs = trainer.aggregated(batch.images, CausalSequence(2))
        mine = trainer._predict(outputs, batch.images, slice(None), CausalSequence(2))
        its = trainer.network(batch.images, CausalSequence(2))
    for name in ("pose_encodings", "depth", "depth_confidence", "points", "points_confidence"):
        torch.testing.assert_close(getattr(mine, name), getattr(its, name), rtol=0, atol=0)


@pytest.mark.slow
def test_losses_fall_on_one_batch(tmp_path: Path) -> None:
    trainer = Trainer(replace(TINY, learning_rate=3e-3, steps=1000), tmp_path)
    batch, stage = pair()
    values = [trainer.take_step(batch, stage)["total"] for _ in range(40)]
    assert values[-1] < 0.4 * values[0]


def steps_until(trainer: Trainer, last: int) -> None:
    for batch, stage in trainer.data.batches(trainer.step):
        trainer.take_step(batch, stage)
        if trainer.step == last:
            return


def test_a_resumed_training_takes_the_same_steps(tmp_path: Path) -> None:
    whole = Trainer(TINY, tmp_path / "whole")
    steps_until(whole, 6)
    first = Trainer(TINY, tmp_path / "parts")
    steps_until(first, 3)
    first.save()
    second = Trainer(TINY, tmp_path / "parts")
    assert second.step == 3
    steps_until(second, 6)
    for name, tensor in whole.network.state_dict().items():
        torch.testing.assert_close(second.network.state_dict()[name], tensor, rtol=0, atol=0)
    for name, tensor in whole.auxiliary.state_dict().items():
        torch.testing.assert_close(second.auxiliary.state_dict()[name], tensor, rtol=0, atol=0)
    for name, tensor in whole.average.state_dict().items():
        torch.testing.assert_close(second.average.state_dict()[name], tensor, rtol=0, atol=0)


def test_another_training_is_not_continued(tmp_path: Path) -> None:
    Trainer(TINY, tmp_path).save()
    with pytest.raises(ConfigurationError, match="learning_rate was 0.001, is 0.01"):
        Trainer(replace(TINY, learning_rate=0.01), tmp_path)
    Trainer(replace(TINY, workers=1), tmp_path)  # how fast it goes may change
    (tmp_path / "state.json").write_bytes(b"no state")
    with pytest.raises(CheckpointError, match="start again"):
        Trainer(TINY, tmp_path)


def test_a_nan_batch_is_skipped_and_many_end_it(tmp_path: Path) -> None:
    trainer = Trainer(TINY, tmp_path)
    batch, stage = pair()
    trainer.take_step(batch, stage)
    before = copy.deepcopy(trainer.network.state_dict())
    broken = replace(batch, images=torch.full_like(batch.images, math.nan))
    assert trainer.take_step(broken, stage) == {}
    assert (trainer.step, trainer.skipped) == (2, 1)
    for name, tensor in trainer.network.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert trainer.take_step(batch, stage)["total"] > 0
    for _ in range(MOST_SKIPPED - 1):
        trainer.take_step(broken, stage)
    with pytest.raises(ConfigurationError, match="learning rate"):
        trainer.take_step(broken, stage)


def test_the_learning_rate_rises_and_falls() -> None:
    settings = TrainingSettings(steps=1000, warmup=100, learning_rate=1.0)
    rates = [settings.rate_at(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(1.0)
    assert rates[99] == pytest.approx(1.0)
    assert rates[550] == pytest.approx(0.505, abs=0.01)
    assert rates[-1] == pytest.approx(0.01, abs=1e-4)
    with pytest.raises(ConfigurationError, match="medium"):
        Schedule(score="all")
    for wrong in ({"steps": 0}, {"learning_rate": math.nan}, {"average": 1.0}, {"seed": -1}):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            TrainingSettings(**wrong)


def test_what_a_training_leaves_behind(tmp_path: Path) -> None:
    outcome = Trainer(TINY, tmp_path).train(QUICK)
    assert outcome.step == 6
    assert outcome.line().startswith("held-out: AbsRel (median scale) ")
    network = load_network(str(outcome.weights), device="cpu")
    assert network.config == preset("tiny")
    average = Trainer(TINY, tmp_path).average.state_dict()
    written = read_checkpoint(str(outcome.weights)).tensors
    assert written.keys() == average.keys()
    for name, tensor in written.items():
        torch.testing.assert_close(tensor, average[name].half(), rtol=0, atol=0)
    rows = list(csv.DictReader((tmp_path / "losses.csv").open()))
    assert rows[-1]["step"] == "6"
    assert float(rows[-1]["camera"]) > 0
    image = present(cv2.imread(str(next((tmp_path / "evaluation").glob("*.png")))))
    assert image.shape == (4 * 28, 5 * 28, 3)
    curves = present(cv2.imread(str(tmp_path / "losses.png")))
    assert np.all(curves[0, 0] == 255)
    assert np.any(curves < 128)
    scores = (tmp_path / "scores.jsonl").read_text()
    assert '"longest": "short"' in scores
    # A second call has nothing left to do but to score.
    again = Trainer(TINY, tmp_path).train(QUICK)
    assert again.scores == outcome.scores


def test_minutes_end_a_call(tmp_path: Path) -> None:
    outcome = Trainer(replace(TINY, steps=1000), tmp_path).train(replace(QUICK, minutes=0.0))
    assert outcome.step == 1
    assert "step 1 of 1000" in outcome.line()


def test_a_stop_saves_and_does_not_score(tmp_path: Path) -> None:
    trainer = Trainer(TINY, tmp_path)
    outcome = trainer.train(QUICK, stop=lambda: trainer.step > 0)
    assert outcome.scores is None
    assert outcome.line() == "stopped after step 1 of 6; the same command continues"
    assert Trainer(TINY, tmp_path).step == 1


def test_bfloat16_trains_and_heads_stay_in_float32(tmp_path: Path) -> None:
    trainer = Trainer(replace(TINY, bfloat16=True), tmp_path)
    exact = Trainer(TINY, tmp_path / "exact")
    batch, stage = pair()
    with torch.no_grad():
        one, other = (
            each._predict(
                each.aggregated(batch.images, CausalSequence(2)),
                batch.images,
                slice(None),
                CausalSequence(2),
            )
            for each in (trainer, exact)
        )
    rounded, expected = present(one.depth), present(other.depth)
    assert rounded.dtype == torch.float32
    error = float((rounded - expected).norm() / expected.norm())
    assert 1e-6 < error < 0.05
    assert math.isfinite(trainer.take_step(batch, stage)["total"])


def test_a_network_with_a_first_pass_learns_in_its_own_convention(tmp_path: Path) -> None:
    trainer = Trainer(replace(TINY, preset="tiny_lingbot"), tmp_path)
    batch, _ = pair()
    images = batch.images.repeat(1, 4, 1, 1, 1)
    whole, gaps = (replace(each, gaps=each.gaps * 2) for each in CURRICULA["test"].stages)
    plain, streamed = trainer._memory(images, whole), trainer._memory(images, gaps)
    assert type(plain) is CausalSequence
    assert type(streamed) is MaskedSequence
    anchors = trainer.network.config.stream.anchor_frames
    assert plain.begin_pass(8) == streamed.begin_pass(8) == anchors == 3
    before = copy.deepcopy(trainer.network.state_dict())
    for stage in (whole, whole, gaps):
        parts = trainer.take_step(batch, stage)
        assert "points" not in parts
        assert math.isfinite(parts["total"])
    assert trainer.skipped == 0
    after = trainer.network.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert "aggregator.scale_token" in moved
    assert "camera_head.pose_branch.fc2.weight" in moved


def test_a_truth_is_spelled_in_the_convention_of_the_network() -> None:
    batch, _ = pair()
    lingbot = preset("tiny_lingbot")
    truth = batch.truth.normalized()
    assert spelled_for(preset("tiny"), truth) is truth
    spelled = spelled_for(lingbot, truth).encodings
    by_hand = [inverted(each.double().numpy()) for each in truth.encodings.flatten(0, 1)]
    assert np.allclose(spelled.flatten(0, 1), by_hand, atol=1e-6)
    twice = inverse_encoding(2 * spelled)
    assert torch.allclose(twice[..., 3:7], 2 * truth.encodings[..., 3:7], atol=1e-6)
    poses = camera_poses(spelled.double().numpy(), lingbot.pose_convention)
    assert np.allclose(poses, camera_poses(truth.encodings.double().numpy()), atol=1e-6)


@pytest.mark.parametrize("frames", [2, 9])
def test_a_window_that_nothing_leaves_is_the_causal_function(frames: int) -> None:
    network = fresh_network("tiny_lingbot", 0).eval()
    images = torch.rand(1, frames, 3, 28, 42, generator=torch.Generator().manual_seed(0))
    tokens = network.config.tokens_per_frame(28, 42)
    with torch.no_grad():
        memory = windowed(network.config, frames, tokens, window=frames)
        mine = network(images, memory, ("camera", "depth"))
        its = network.forward_sequence(images, ("camera", "depth"))
    for name in ("pose_encodings", "depth", "depth_confidence"):
        torch.testing.assert_close(getattr(mine, name), getattr(its, name), rtol=1e-4, atol=1e-5)


@given(st.integers(0, 2**31), st.integers(1, 12))
def test_windows_and_intervals_are_drawn_within_their_limits(seed: int, frames: int) -> None:
    config = preset("tiny_lingbot")
    window, interval = drawn_window(config, frames, torch.Generator().manual_seed(seed))
    assert 1 <= int(window) <= min(frames, config.stream.window_frames)
    assert 1 <= int(interval) <= MOST_APART


def test_dense_heads_learn_in_turn(tmp_path: Path) -> None:
    """One stream of each step that they learn in, so that the aggregator gets most of the time."""
    trainer = Trainer(TINY, tmp_path)
    batch, stage = pair()
    stage = replace(stage, dense_every=2)
    seen = [set(trainer.take_step(batch, stage)) for _ in range(4)]
    with_dense = [{"depth", "points"} <= each for each in seen]
    assert with_dense in ([True, False] * 2, [False, True] * 2)
    assert all({"camera", "auxiliary", "total"} <= each for each in seen)


def test_auxiliary_heads_that_read_the_truth_cost_nothing() -> None:
    batch, _ = pair()
    config = preset("tiny")
    auxiliary = RoomHeads(config, room=True)
    normal = batch.truth.normalized()
    wanted: dict[str, torch.Tensor] = {}

    class Reading(torch.nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return wanted[self.name].expand(*tokens.shape[:-1], -1)

    pose = batch.poses
    wanted["room_camera"] = torch.cat([pose[..., :3, 3] / 2 - 1, pose[..., :2, :3].flatten(-2)], -1)
    wanted["camera"] = normal.encodings

    def tiles(each: torch.Tensor) -> torch.Tensor:
        return each.reshape(2, 2, 2, 14, 2, 14, -1).mean((3, 5)).flatten(2, 3)

    room = torch.einsum("bij,bfhwj->bfhwi", pose[:, 0, :3, :3], batch.truth.points)
    wanted["room_points"] = tiles(room + pose[:, 0, None, None, None, :3, 3]) / 2 - 1
    wanted["patches"] = torch.cat([tiles(normal.points), tiles(normal.depth[..., None]).log()], -1)
    for name in wanted:
        setattr(auxiliary, name, Reading(name))
    tokens = torch.zeros(2, 2, config.special_tokens + 4, 2 * config.embed_dim)
    outputs = dict.fromkeys(auxiliary.layers, tokens)
    assert float(auxiliary(outputs, batch, normal)) == pytest.approx(0, abs=1e-5)
    wanted["patches"] = wanted["patches"] + 0.5
    assert float(auxiliary(outputs, batch, normal)) == pytest.approx(4 * 0.45, abs=1e-4)


def test_only_charts_have_auxiliary_heads_for_the_room() -> None:
    assert fresh_auxiliary(StartSettings("tiny", "chart", 0)).room_points is not None
    assert fresh_auxiliary(StartSettings("tiny", "rich", 0)).room_points is None


# Scores


def test_scores_of_the_truth_are_perfect_and_scale_does_not_matter() -> None:
    sequence = Sequence(
        SequenceSettings(seed=4, frames=8, width=24, height=18, motion=MotionSettings("handheld"))
    )
    depth = np.stack([sequence.frame(k).depth for k in range(8)])
    poses = np.stack([invert(sequence.poses[0]) @ pose for pose in sequence.poses])
    scaled = poses.copy()
    scaled[:, :3, 3] *= 0.2
    scores = sequence_scores(0.2 * depth.astype(float), depth, scaled, poses)
    assert scores.abs_rel_median == pytest.approx(0, abs=1e-6)
    assert scores.delta_1_median == 1
    assert scores.relative_ate_sim3 == pytest.approx(0, abs=1e-9)
    assert scores.rpe_rotation_mean_deg == pytest.approx(0, abs=1e-6)
    assert scores.standing_rpe_rotation_mean_deg > 0.2
    assert scores.standing_relative_ate_sim3 > 0.1


def test_scores_by_hand() -> None:
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, 0, 3] = 2
    depth = np.array([[[1.0, 1.0, 2.0]]] * 2)
    scores = sequence_scores(
        depth, np.ones((2, 1, 3), np.float32), np.tile(np.eye(4), (2, 1, 1)), poses
    )
    assert scores.abs_rel_median == pytest.approx(1 / 3)
    assert scores.delta_1_median == pytest.approx(2 / 3)
    assert scores.relative_ate_sim3 == scores.standing_relative_ate_sim3 == pytest.approx(0.5)


def test_truth_is_relative_to_the_first_camera() -> None:
    poses = np.tile(np.eye(4), (1, 2, 1, 1))
    poses[0, :, :3, 3] = [[5, 5, 5], [5, 5, 6]]
    truth = truth_of(torch.ones(1, 2, 2, 2), poses, intrinsics_for(2, 2, 90.0))
    assert truth.encodings[0, 1, :3].tolist() == [0, 0, -1]  # world to camera
    assert truth.points[0, 0, 1, 1].tolist() == [0, 0, 1]
    assert truth.points[0, 1, 1, 1].tolist() == [0, 0, 2]


# Commands

OPTIONS = [
    "--preset",
    "tiny",
    "--recipe",
    "test",
    "--steps",
    "2",
    "--device",
    "cpu",
    "--score",
    "short",
]


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["train", "-o", str(tmp_path), *OPTIONS, "--minutes", "0"])
    assert result.exit_code == 0, result.output
    assert "held-out (step 1 of 2): AbsRel (median scale)" in result.output
    assert (tmp_path / "weights.safetensors").is_file()
    wrong = CliRunner().invoke(cli.app, ["train", "-o", str(tmp_path), *OPTIONS, "--seed", "5"])
    assert wrong.exit_code == 1
    assert "seed was 0, is 5" in wrong.output


@pytest.mark.parametrize("threads", ["0", "-1", "many"])
def test_threads_are_at_least_one(threads: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--threads", threads])
    assert ended.value.code == 2
    assert "argument --threads: " in capsys.readouterr().err


def test_minutes_that_are_none_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--output", str(tmp_path), "--minutes", "nan"]) == 1
    assert "minutes is nan; it must be" in capsys.readouterr().err
    result = CliRunner().invoke(cli.app, ["train", "-o", str(tmp_path), "--minutes", "-5"])
    assert result.exit_code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_it_trains_where_only_torch_numpy_and_safetensors_are(tmp_path: Path) -> None:
    program = f"""
import sys
allowed = {{"torch", "numpy", "safetensors"}}
class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {{"cv2", "rich", "typer", "rosbags", "matplotlib", "rclpy",
                                   "huggingface_hub", "scipy", "PIL"}}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Bare())
from xsvggt_ros.training.__main__ import main
sys.exit(main({["--output", str(tmp_path), *OPTIONS, "--threads", "1", "--minutes", "0"]}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("held-out (step 1 of 2): AbsRel (median scale)")
