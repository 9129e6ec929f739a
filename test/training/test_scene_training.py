# SPDX-License-Identifier: Apache-2.0
"""Training on rendered worlds: a memory behind a mask is a stream, a run is continued."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run
from need_benchmark import streamed
from present import present

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import CheckpointError, ConfigurationError
from xsvggt_ros.geometry.rigid import invert
from xsvggt_ros.model.checkpoint import load_network, random_network, read_checkpoint
from xsvggt_ros.model.config import preset
from xsvggt_ros.model.layers import CausalSequence
from xsvggt_ros.model.network import Prediction, StreamVggt
from xsvggt_ros.stream.reconstructor import Reconstructor, ReconstructorSettings
from xsvggt_ros.synthetic.scenes import (
    SEEDS,
    SUITES,
    Streams,
    suite_named,
    suite_plan,
    suite_settings,
    suite_streams,
)
from xsvggt_ros.synthetic.sequence import FIRST_HELD_OUT_SEED
from xsvggt_ros.training.__main__ import main
from xsvggt_ros.training.forgetting import (
    MaskedSequence,
    PrunedSequence,
    causal,
    forgetful,
    over_tokens,
    window,
)
from xsvggt_ros.training.log import LossMeter
from xsvggt_ros.training.recipes import (
    RoomTraining,
    SceneRunSettings,
    SceneStage,
    recipe_named,
    training_named,
)
from xsvggt_ros.training.scene_run import SceneRun
from xsvggt_ros.training.scene_trainer import SceneTrainer
from xsvggt_ros.training.scores import errors_of, stream_errors
from xsvggt_ros.training.settings import TrainingSettings
from xsvggt_ros.training.state import MOST_BYTES, load_parts, save_parts
from xsvggt_ros.training.trainer import Trainer

CPU = torch.device("cpu")
SIZE = 28
TOKENS = 4 + 5


@pytest.fixture(scope="module")
def network() -> StreamVggt:
    return random_network(preset("tiny"), 0).eval()


@pytest.fixture(scope="module")
def streams() -> Streams:
    suite = replace(suite_named("landmarks_100_lap50"), frames=7, lap=4)
    return suite_streams(suite, suite_settings(suite, SIZE, SIZE), 2)


def behind(
    network: StreamVggt, images: torch.Tensor, mask: torch.Tensor, cameras: torch.Tensor
) -> Prediction:
    memory = MaskedSequence(images.shape[1], mask, cameras)
    with torch.inference_mode():
        prediction: Prediction = network(images, memory, ("camera", "depth"))
    return prediction


def test_a_causal_mask_is_the_function_that_was_trained(
    network: StreamVggt, streams: Streams
) -> None:
    seen = causal(7)
    found = behind(network, streams.images, over_tokens(seen, TOKENS), seen)
    with torch.inference_mode():
        wanted = network.forward_sequence(streams.images, ("camera", "depth"))
    assert torch.allclose(present(found.pose_encodings), present(wanted.pose_encodings), atol=1e-5)
    assert torch.allclose(present(found.depth), present(wanted.depth), atol=1e-5)


@pytest.mark.parametrize("budget", [2, 3, 0])
def test_a_window_behind_a_mask_is_a_stream(
    network: StreamVggt, streams: Streams, budget: int
) -> None:
    seen = window(7, budget) if budget else causal(7)
    found = behind(network, streams.images, over_tokens(seen, TOKENS), seen)
    cameras, depth = streamed(network, streams.images, budget)
    assert torch.allclose(present(found.pose_encodings)[:, :, -1], cameras, atol=1e-5)
    assert torch.allclose(present(found.depth), depth, atol=1e-5)


@pytest.mark.parametrize("budget", [2, 3])
def test_a_window_is_what_the_engines_cache_does_at_16_bits(
    network: StreamVggt, streams: Streams, budget: int
) -> None:
    images = (streams.images[:1] * 255).round() / 255
    cameras, _ = streamed(network, images, budget)
    settings = CacheSettings(
        policy="sliding_window", budget_tokens=budget * TOKENS, key_bits=16, value_bits=16,
        camera_frames=1000,
    )  # fmt: skip
    engine = Reconstructor(network, ReconstructorSettings(SIZE, settings))
    rendered = (images[0] * 255).round().byte().movedim(1, -1).numpy()
    for image in rendered:
        result = engine.step(np.ascontiguousarray(image))
    # The camera head remembers more in the engine: tokens are compared by what depth they lead to.
    _, depth = streamed(network, images, budget)
    assert result.depth == pytest.approx(depth[0, -1].numpy(), rel=1e-3)
    assert cameras.shape == (1, 7, 9)


@pytest.mark.parametrize("budget", [2, 3, 4])
def test_a_pruned_sequence_is_what_the_engines_cache_does_at_16_bits(
    network: StreamVggt, streams: Streams, budget: int
) -> None:
    images = (streams.images * 255).round() / 255
    memory = PrunedSequence(7, budget, special=network.config.special_tokens)
    with torch.inference_mode():
        together = network(images, memory, ("depth", "camera"))
    for stream, depth in zip(images, present(together.depth), strict=True):
        settings = CacheSettings(
            policy="xstreamvggt", budget_tokens=budget * TOKENS, key_bits=16, value_bits=16
        )
        engine = Reconstructor(network, ReconstructorSettings(SIZE, settings))
        for image, wanted in zip(stream, depth, strict=True):
            result = engine.step(
                np.ascontiguousarray((image * 255).round().byte().movedim(0, -1).numpy())
            )
            assert result.depth == pytest.approx(wanted.numpy(), rel=1e-4)


def test_gradients_pass_through_what_a_pruned_sequence_keeps() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, 2, 6 * 4, 8, generator=generator, requires_grad=True) for _ in range(3)
    )
    memory = PrunedSequence(6, 2, special=1)
    attended = memory.attend(0, query, key, value)
    assert attended.shape == query.shape
    whole = CausalSequence(6).attend(0, query, key, value)
    # Three frames are there for the third one: nothing has been forgotten until then.
    assert torch.allclose(attended[:, :, :12], whole[:, :, :12], atol=1e-6)
    assert not torch.allclose(attended[:, :, 12:], whole[:, :, 12:], atol=1e-3)
    attended[:, :, -4:].sum().backward()
    gradient = present(value.grad).abs().sum(dim=(1, 3)).reshape(2, 6, 4)
    assert (gradient[:, [0, 4, 5]] > 0).all()
    assert (gradient[:, 1:4] == 0).all()


def test_what_is_forgotten_stays_so_and_anchor_and_neighbour_stay() -> None:
    for seed in range(12):
        memory = forgetful(9, 3, 4, 1.0, torch.Generator().manual_seed(seed))
        for mask in memory._mask:
            frames = mask.view(9, 3, 9, 3)
            assert frames[:, :, 0].all()
            for frame in range(9):
                assert frames[frame, :, frame].all()
                assert frame == 0 or frames[frame, :, frame - 1].all()
                assert not frames[frame, :, frame + 1 :].any()
                gone = ~frames[frame, 0, 1 : max(frame, 1)]
                assert not (frames[frame:, 0, 1 : max(frame, 1)] & gone).any()


def test_equal_seeds_forget_equally() -> None:
    one, same, other = (
        forgetful(9, 3, 4, 1.0, torch.Generator().manual_seed(seed))._mask for seed in (5, 5, 6)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_share_of_the_sequences_forgets() -> None:
    generator = torch.Generator().manual_seed(0)
    whole = over_tokens(causal(12), 3).expand(4, -1, -1)
    kept = [torch.equal(forgetful(12, 3, 4, 0.25, generator)._mask, whole) for _ in range(200)]
    assert 0.65 < np.mean(kept) < 0.85


def test_true_answers_have_no_error(streams: Streams) -> None:
    errors = stream_errors(streams.truth.encodings, 3 * streams.truth.depth, streams)
    for name in ("ate_sim3_percent", "rotations_deg", "rpe_rotation_mean_deg", "abs_rel_median"):
        assert np.abs(getattr(errors, name)).max() < 0.05, name
    moved = streams.truth.encodings.clone()
    moved[..., :3] *= 2.5
    assert stream_errors(moved, streams.truth.depth, streams).ate_sim3_percent.max() < 0.05
    assert errors.standing_ate_sim3_percent.min() > 10


def test_standing_still_has_the_error_of_standing_still(streams: Streams) -> None:
    still = streams.truth.encodings[:, :1].expand_as(streams.truth.encodings)
    errors = stream_errors(still, streams.truth.depth, streams)
    assert errors.ate_sim3_percent == pytest.approx(errors.standing_ate_sim3_percent, rel=1e-3)
    relative = [invert(poses[0].double().numpy()) @ poses[1].double().numpy()
                for poses in streams.poses]  # fmt: skip
    angles = [np.degrees(np.arccos((np.trace(each[:3, :3]) - 1) / 2)) for each in relative]
    assert errors.rotations_deg[:, 1] == pytest.approx(angles, abs=0.1)


def test_suites_are_the_same_every_time_and_seeds_are_held_out() -> None:
    suite = suite_named("house_100_lap50")
    settings = suite_settings(suite, SIZE, SIZE)
    whole, part = suite_plan(suite, settings, 3), suite_plan(suite, settings, slice(1, 3))
    assert torch.equal(whole.poses[1:], part.poses)
    assert torch.equal(whole.scenes.box_center[1:], part.scenes.box_center)
    seeds = [each.first_seed + index for each in SUITES.values() for index in range(SEEDS)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= FIRST_HELD_OUT_SEED


@pytest.mark.parametrize(("streams", "said"), [(0, "0 streams"), (SEEDS + 1, "1 to 64")])
def test_a_suite_has_so_many_streams(streams: int, said: str) -> None:
    suite = suite_named("room_100_lap50")
    with pytest.raises(ConfigurationError, match=said):
        suite_plan(suite, suite_settings(suite), streams)


def test_places_come_back_after_a_lap() -> None:
    suite = suite_named("landmarks_100_lap50")
    places = suite_plan(suite, suite_settings(suite), 16).poses[:, :, :3, 3]
    extent = (places.amax(dim=1) - places.amin(dim=1)).norm(dim=-1)
    back = (places[:, 50] - places[:, 0]).norm(dim=-1) / extent
    away = (places[:, 25] - places[:, 0]).norm(dim=-1) / extent
    assert float(back.mean()) < 0.08
    assert float(away.mean()) > 0.4


@pytest.mark.slow
def test_a_training_learns() -> None:
    trainer = SceneTrainer(recipe_named("test_scenes"), 0, CPU)
    losses = [float(trainer.take_step(0.3)["total"]) for _ in range(40)]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert trainer.step == 40


def test_a_network_with_a_window_learns_from_first_passes_windows_and_key_frames() -> None:
    stages = (SceneStage(1.0, 6, 2, (1.0, 0.0, 0.0, 0.0), gaps=0.5, dense=1, dense_frames=2),)
    recipe = replace(recipe_named("test_scenes"), preset="tiny_lingbot", stages=stages)
    trainer = SceneTrainer(recipe, 0, CPU)
    config = trainer.network.config
    kinds = set()
    for _ in range(40):
        memory = trainer._memory(stages[0], 0)
        assert memory.begin_pass(6) == config.stream.anchor_frames == 3
        kinds.add(tuple(memory.times(6, CPU).int().tolist()))
    # Every frame is stored, or of those after the first pass every second or third one.
    assert kinds == {(0, 1, 2, 3, 4, 5), (0, 1, 2, 3, 4, 4)}
    parts = trainer.take_step(0.3)
    assert "points" not in parts
    assert all(torch.isfinite(each) for each in parts.values())


def test_a_share_of_the_steps_prunes_with_budgets_that_follow_from_seed_and_step() -> None:
    stage = SceneStage(1.0, 5, 2, (1.0, 0.0, 0.0, 0.0), pruned=0.5, budgets=(2, 3), dense=1)
    recipe = replace(recipe_named("test_scenes"), stages=(stage,))

    def budgets(seed: int) -> list[int]:
        trainer = SceneTrainer(recipe, seed, CPU)
        found = []
        for step in range(60):
            trainer.step = step
            found.append(trainer._drawn_budget(stage))
        return found

    assert budgets(0) == budgets(0) != budgets(1)
    assert set(budgets(0)) == {0, 2, 3}
    assert 15 < budgets(0).count(0) < 45
    trainer = SceneTrainer(recipe, 0, CPU)
    assert isinstance(trainer._memory(stage, 2), PrunedSequence)
    assert isinstance(trainer._memory(stage, 0), MaskedSequence)
    for _ in range(3):
        assert all(torch.isfinite(each) for each in trainer.take_step(0.3).values())


def test_losses_that_a_graph_fills_again_with_each_step_are_not_mixed_up() -> None:
    meter, loss = LossMeter(), torch.zeros(())
    for value in (1.0, 2.0, 6.0):
        loss.fill_(value)
        meter.add({"total": loss}, 1)
    loss.fill_(torch.nan)  # as by another graph in the same memory
    assert meter.means() == {"total": 3.0}


def test_a_gradient_that_is_not_finite_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = SceneTrainer(recipe_named("test_scenes"), 0, CPU)
    trainer.take_step(0.3)
    before = {name: each.detach().clone() for name, each in trainer.parameters().items()}
    draw = trainer.draw_streams

    def without_numbers(stage: SceneStage) -> Streams:
        return replace(draw(stage), images=torch.full_like(draw(stage).images, torch.nan))

    monkeypatch.setattr(trainer, "draw_streams", without_numbers)
    trainer.take_step(0.3)
    assert all(torch.equal(before[name], each) for name, each in trainer.parameters().items())


TOGETHER = """
import sys, torch
from pathlib import Path
from xsvggt_ros.training.learning import Ranks
from xsvggt_ros.training.recipes import recipe_named
from xsvggt_ros.training.scene_trainer import SceneTrainer
torch.set_num_threads(1)
ranks = Ranks(torch.device("cpu"))
trainer = SceneTrainer(recipe_named("test_scenes"), 0, torch.device("cpu"), ranks=ranks)
streams = trainer.draw_streams(trainer.recipe.stages[0])
for step in range(3):
    trainer.take_step(0.5)
found = {
    "agreed": ranks.agreed(0.25 + ranks.rank, ranks.first),
    "image": float(streams.images.mean()),
    "weights": [float(each.detach().double().sum()) for each in trainer.parameters().values()],
}
Path(sys.argv[1], f"{ranks.rank}.json").write_text(__import__("json").dumps(found))
ranks.end()
"""


@pytest.mark.slow
def test_two_processes_learn_one_network_from_streams_of_their_own(tmp_path: Path) -> None:
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
               "2", str(script), str(tmp_path)]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one["weights"] == two["weights"]
    assert one["image"] != two["image"]
    assert one["agreed"] == two["agreed"] == [0.25, True]
    alone = SceneTrainer(recipe_named("test_scenes"), 0, CPU)
    for _ in range(3):
        alone.take_step(0.5)
    sums = [float(each.detach().double().sum()) for each in alone.parameters().values()]
    assert sums != one["weights"]


@pytest.fixture(scope="module")
def piece(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SceneRunSettings, list[str]]:
    directory = tmp_path_factory.mktemp("piece")
    lines: list[str] = []
    settings = SceneRunSettings(
        recipe="test_scenes", output=directory, minutes=0.05, total_minutes=1.0, streams=1,
        device="cpu",
    )  # fmt: skip
    SceneRun(settings, lines.append).run(lambda: False)
    return directory, settings, lines


@pytest.mark.slow
def test_a_piece_leaves_weights_state_and_what_memory_is_worth(
    piece: tuple[Path, SceneRunSettings, list[str]],
) -> None:
    directory, _, lines = piece
    assert {path.name for path in directory.iterdir()} >= {"weights.safetensors", "need.json"}
    assert all(path.stat().st_size < 16 * 2**20 for path in directory.iterdir())
    network = load_network(str(directory / "weights.safetensors"), device="cpu")
    assert network.config == preset("tiny")
    need = json.loads((directory / "need.json").read_text())
    assert set(need["landmarks_100_lap100"]) == {"2", "4", "8", "16", "0", "pruned to 8"}
    assert any("frames_per_second" in line for line in lines)


@pytest.mark.slow
def test_the_next_piece_goes_on(
    piece: tuple[Path, SceneRunSettings, list[str]], tmp_path: Path
) -> None:
    directory, settings, _ = piece
    steps = json.loads((directory / "state.json").read_text())["step"]
    lines: list[str] = []
    following = SceneRun(replace(settings, state=directory, output=tmp_path), lines.append)
    assert following.trainer.step == steps > 0
    assert following.progress > 0
    tensors, _ = present(load_parts(directory, CPU))
    for name, each in following.trainer.parameters().items():
        assert torch.equal(each, tensors[f"now.{name}"].float())
        moments = following.trainer.optimizer.state[each]
        assert torch.equal(moments["exp_avg"], tensors[f"first.{name}"].float())
        assert moments["exp_avg_sq"].shape == each.shape
    # As they are in the file: for inference gains are multiplied into the weights before them.
    weights = read_checkpoint(str(directory / "weights.safetensors")).tensors
    for name, each in following.trainer.average.state_dict().items():
        assert each.dtype == torch.float32
        assert torch.equal(each, weights[name].float())
    following.run(lambda: False)
    assert json.loads((tmp_path / "state.json").read_text())["step"] > steps
    assert lines[0].startswith(f"continues at step {steps}")


@pytest.mark.slow
def test_another_recipe_or_seed_does_not_go_on(
    piece: tuple[Path, SceneRunSettings, list[str]],
) -> None:
    directory, settings, _ = piece
    with pytest.raises(ConfigurationError, match="has seed 0, not 1"):
        SceneRun(replace(settings, output=directory, seed=1), print)


def test_a_recipe_that_goes_on_from_weights_asks_for_them(tmp_path: Path) -> None:
    settings = SceneRunSettings(recipe="demo12_pruned", output=tmp_path, device="cpu")
    with pytest.raises(ConfigurationError, match="--start landmarks"):
        SceneRun(settings, print)
    trainer = SceneRun(replace(settings, start="landmarks"), print).trainer
    assert trainer.recipe.stages[0].pruned == 0.8


@pytest.mark.slow
def test_a_training_starts_from_the_weights_of_another_one(
    piece: tuple[Path, SceneRunSettings, list[str]], tmp_path: Path
) -> None:
    directory, settings, _ = piece
    weights = read_checkpoint(str(directory / "weights.safetensors")).tensors
    for start in (directory, directory / "weights.safetensors"):
        asked = replace(settings, output=tmp_path, start=str(start))
        trainer = SceneRun(asked, print).trainer
        assert trainer.step == 0
        for part in (trainer.network, trainer.average):
            assert all(
                torch.equal(each, weights[name].float()) for name, each in part.state_dict().items()
            )
    SceneRun(asked, print).run(lambda: False)
    assert SceneRun(asked, print).trainer.step > 0
    with pytest.raises(ConfigurationError, match="has start .*weights.safetensors, not nothing"):
        SceneRun(replace(asked, start=""), print)
    with pytest.raises(CheckpointError, match="not of this network"):
        SceneRun(replace(settings, output=tmp_path / "new", start="landmarks"), print)
    with pytest.raises(CheckpointError, match="'nowhere' does not exist; .* landmarks"):
        SceneRun(replace(settings, output=tmp_path / "new", start="nowhere"), print)
    with pytest.raises(CheckpointError, match="holds no weights; start from"):
        SceneRun(replace(settings, output=tmp_path / "new", start=str(tmp_path / "new")), print)


@pytest.mark.slow
def test_a_state_of_which_a_part_is_missing_is_named(
    piece: tuple[Path, SceneRunSettings, list[str]], tmp_path: Path
) -> None:
    directory, _, _ = piece
    (tmp_path / "state.json").write_bytes((directory / "state.json").read_bytes())
    with pytest.raises(CheckpointError, match="bring all of its files"):
        load_parts(tmp_path, CPU)


def test_parts_are_small_and_whole(tmp_path: Path) -> None:
    tensors = {f"t{i}": torch.full((2**20,), float(i)) for i in range(9)}
    for step in (1, 2):
        save_parts(tmp_path, tensors, {"step": step})
    parts = sorted(tmp_path.glob("part-*"))
    assert len(parts) == 3
    assert all(path.stat().st_size < MOST_BYTES + 2**16 for path in parts)
    found, facts = present(load_parts(tmp_path, CPU))
    assert facts["step"] == 2
    assert all(torch.equal(found[name], each) for name, each in tensors.items())


@pytest.mark.parametrize(
    "option", ["--minutes=0", "--total-minutes=-1", "--streams=0", "--seed=-1"]
)
def test_numbers_that_cannot_work_are_refused(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--recipe", "test_scenes", "--output", str(tmp_path), option]) == 1
    assert "must" in capsys.readouterr().err


def test_memory_that_is_not_there_shows_in_the_errors(
    network: StreamVggt, streams: Streams
) -> None:
    everything, nothing = (errors_of(network, streams, budget) for budget in (0, 2))
    assert np.allclose(everything.rotations_deg[:, :3], nothing.rotations_deg[:, :3], atol=1e-3)
    assert not np.allclose(everything.rotations_deg[:, 4:], nothing.rotations_deg[:, 4:], atol=1e-6)


# One way to train


def test_a_recipe_decides_what_is_trained_on() -> None:
    rooms = training_named("demo", Path("training"), {"steps": 5, "minutes": 2.0})
    assert isinstance(rooms, RoomTraining)
    assert (rooms.settings.recipe, rooms.settings.steps, rooms.schedule.minutes) == ("demo", 5, 2.0)
    scenes = training_named("demo12", Path("training"), {"total_minutes": 30.0})
    assert scenes == SceneRunSettings("demo12", Path("training"), total_minutes=30.0)


@pytest.mark.parametrize(
    ("recipe", "options", "said"),
    [
        ("school", {}, "recipe 'school' is unknown; choose one of demo"),
        ("demo12", {"steps": 5}, "trains on scenes and takes no --steps; it takes --device"),
        ("demo", {"total_minutes": 3.0}, "trains on rooms and takes no --total-minutes"),
    ],
)
def test_an_option_of_the_other_kind_is_refused(
    recipe: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        training_named(recipe, Path("training"), options)


def test_rooms_and_scenes_do_not_share_a_directory(
    piece: tuple[Path, SceneRunSettings, list[str]], tmp_path: Path
) -> None:
    directory, _, _ = piece
    rooms = TrainingSettings(preset="tiny", recipe="test", device="cpu")
    with pytest.raises(CheckpointError, match="holds a training on scenes"):
        Trainer(rooms, directory)
    Trainer(rooms, tmp_path).save()
    scenes = SceneRunSettings(recipe="test_scenes", output=tmp_path, device="cpu")
    with pytest.raises(CheckpointError, match="holds a training on rooms"):
        SceneRun(scenes, print)


def test_the_command_trains_on_scenes(tmp_path: Path) -> None:
    options = ["train", "-o", str(tmp_path), "--recipe", "test_scenes", "--device", "cpu"]
    done = run(*options, "--minutes", "0.02", "--streams", "1")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "need.json").is_file()
    refused = run(*options, "--steps", "3")
    assert refused.exit_code == 1
    assert "takes no --steps" in " ".join(refused.output.split())
