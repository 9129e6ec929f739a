# SPDX-License-Identifier: Apache-2.0
"""What continued trainings are compared with, what trainings start from, and may replace."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from present import present
from safetensors.torch import save_file

from xsvggt_ros.errors import CheckpointError, ConfigurationError, OutputError
from xsvggt_ros.model import config as network_config
from xsvggt_ros.model.checkpoint import read_checkpoint
from xsvggt_ros.model.config import PRESETS
from xsvggt_ros.training import settings as settings_module
from xsvggt_ros.training.batches import MOST_BYTES, ClipSettings, TrainingData, kept_clips
from xsvggt_ros.training.settings import CURRICULA, Schedule, TrainingSettings
from xsvggt_ros.training.state import (
    StartSettings,
    differences,
    load_start,
    load_state,
    resolved_start,
    save_state,
)
from xsvggt_ros.training.trainer import Trainer

CPU = torch.device("cpu")
TINY = TrainingSettings(
    preset="tiny", recipe="test", steps=2, warmup=2, device="cpu", learning_rate=1e-3
)
QUICK = Schedule(score="short")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a training that has learned something."""
    directory = tmp_path_factory.mktemp("trainings") / "first"
    Trainer(TINY, directory).save()
    return directory


def resaved(directory: Path, **changes: Any) -> None:
    save_state(directory, replace(present(load_state(directory, CPU)), **changes))


# What is compared


def test_settings_that_were_saved_before_a_field_existed_count_as_its_default(
    tmp_path: Path,
) -> None:
    Trainer(TINY, tmp_path).save()
    settings = present(load_state(tmp_path, CPU)).settings
    del settings["start"], settings["average"]
    settings["weights"] = {
        name: value for name, value in settings["weights"].items() if name != "auxiliary"
    }
    resaved(tmp_path, settings=settings, data={}, start_digest="")
    Trainer(TINY, tmp_path)
    with pytest.raises(ConfigurationError, match=r"average was 0\.998, is 0\.9[^0-9]"):
        Trainer(replace(TINY, average=0.9), tmp_path)
    with pytest.raises(ConfigurationError, match="start was nothing, is /"):
        Trainer(replace(TINY, start="other"), tmp_path)


def test_other_contents_of_a_curriculum_are_another_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trainer(TINY, tmp_path).save()
    stages = CURRICULA["test"].stages
    changed = replace(
        CURRICULA["test"], stages=(stages[0], replace(stages[1], gaps=0.25)), steps_per_clip=3
    )
    monkeypatch.setitem(settings_module.CURRICULA, "test", changed)
    with pytest.raises(ConfigurationError) as told:
        Trainer(TINY, tmp_path)
    assert "curriculum.stages.1.gaps was 0.5, is 0.25" in str(told.value)
    assert "curriculum.steps_per_clip was 2, is 3" in str(told.value)


def test_other_motions_of_the_clips_are_another_training(tmp_path: Path) -> None:
    Trainer(TINY, tmp_path).save()
    data = present(load_state(tmp_path, CPU)).data
    assert data == json.loads(json.dumps(asdict(TrainingData(TINY, CPU).settings)))
    data["clips"]["motions"] = ("pan",)
    resaved(tmp_path, data=data)
    with pytest.raises(ConfigurationError, match=r"clips\.motions was \('pan',\), is \('drift'"):
        Trainer(TINY, tmp_path)


def test_differences_are_named_to_the_leaf() -> None:
    data = TrainingData(TINY, CPU).settings
    saved = asdict(data)
    assert differences(saved, data) == []
    del saved["curriculum"]["stages"][1]["gaps"]  # saved before there were any
    assert differences(saved, data) == ["curriculum.stages.1.gaps was 0.0, is 0.5"]
    fewer = replace(data, curriculum=replace(data.curriculum, stages=data.curriculum.stages[:1]))
    assert "curriculum.stages.1.name was short, is nothing" in differences(asdict(data), fewer)


def test_one_start_has_many_names(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "second"
    Trainer(replace(TINY, start=str(first)), directory).save()
    monkeypatch.chdir(first.parent)
    for name in ("first", "./first/", "first/state.json", str(first)):
        Trainer(replace(TINY, start=name), directory)
    with pytest.raises(ConfigurationError, match="start was .*first, is .*third"):
        Trainer(replace(TINY, start="third"), directory)
    shutil.copytree(first, tmp_path / "moved")
    Trainer(replace(TINY, start=str(tmp_path / "moved")), directory)
    with pytest.raises(ConfigurationError, match="start was .*first, is nothing"):
        Trainer(TINY, directory)


def test_clips_are_kept_as_far_as_memory_reaches() -> None:
    assert kept_clips(ClipSettings(frames=48)) == 2000
    long = ClipSettings(frames=80)
    assert kept_clips(long) == 1201
    assert kept_clips(replace(long, width=1120, height=840)) == 12
    clips = TrainingData(TINY, CPU).clips
    size = sum(each.nbytes for each in vars(_shot(clips)).values()) - 4 * 16 * 8
    assert size == 5 * 28 * 28 * 4
    assert kept_clips(replace(clips, frames=MOST_BYTES)) == 1


def _shot(clips: Any) -> Any:
    from xsvggt_ros.training.batches import render_clip

    return render_clip(clips, 0, CPU)


# What it starts from


def test_the_bundled_weights_win_over_a_directory_of_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    learner = load_start(StartSettings("demo", "chart", 0, "demo"))
    bundled = read_checkpoint("demo").tensors
    for name, value in learner.network.state_dict().items():
        assert value.equal(bundled[name].float())
    assert resolved_start("demo") == "demo"


def test_nothing_is_asked_of_the_network_unless_a_file_there_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # importing it fails
    for start in ("no/such", "nowhere", "no/such.safetensors", "/no:such"):
        with pytest.raises(CheckpointError, match=f"'{start}' does not exist; start from"):
            load_start(StartSettings("tiny", "chart", 0, start))
    with pytest.raises(ImportError):
        load_start(StartSettings("tiny", "chart", 0, "owner/name:file.safetensors"))


def test_sizes_that_show_in_no_shape_are_compared(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = first / "weights.safetensors"
    turned = replace(PRESETS["tiny"], rope_base=50.0)
    monkeypatch.setitem(network_config.PRESETS, "turned", turned)
    for start in (weights, first):
        with pytest.raises(CheckpointError, match="not those of preset 'turned'"):
            load_start(StartSettings("turned", "chart", 0, str(start)))
    plain = tmp_path / "plain.safetensors"
    save_file(dict(read_checkpoint(str(weights)).tensors), plain)  # says nothing about its sizes
    load_start(StartSettings("turned", "chart", 0, str(plain)))


def test_auxiliary_heads_that_do_not_fit_are_named(first: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'chart'.*'rich': room_camera\.bias, "):
        load_start(StartSettings("tiny", "rich", 0, str(first)))


# What it may replace


@pytest.mark.parametrize("name", ["losses.csv", "scores.jsonl", "weights.safetensors"])
def test_files_of_others_are_not_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("step,mine\n1,2\n")
    with pytest.raises(OutputError, match=f"holds {name}, but no training"):
        Trainer(TINY, tmp_path)
    assert (tmp_path / name).read_text() == "step,mine\n1,2\n"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [("losses.csv", "a,b\n1,2\n"), ("scores.jsonl", "[1]\n"), ("scores.jsonl", "no json\n")],
)
def test_a_log_that_is_none_is_refused(tmp_path: Path, name: str, text: str) -> None:
    Trainer(TINY, tmp_path).save()
    (tmp_path / name).write_text(text)
    with pytest.raises(OutputError, match="no log of a training"):
        Trainer(TINY, tmp_path)
    assert (tmp_path / name).read_text() == text


def test_logs_are_cut_where_a_training_goes_on_and_say_nothing_twice(tmp_path: Path) -> None:
    outcome = Trainer(TINY, tmp_path).train(QUICK)
    scored = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert [line["step"] for line in scored] == [2]
    assert Trainer(TINY, tmp_path).train(QUICK).scores == outcome.scores
    again = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert again == scored
    with (tmp_path / "losses.csv").open("a") as stream:
        stream.write("9,clips,0.5,,,,,1e-3,1.0,0\n10,cli")  # the machine went down
    with (tmp_path / "scores.jsonl").open("a") as stream:
        stream.write(json.dumps({**scored[0], "step": 9}) + "\n")
    trainer = Trainer(TINY, tmp_path)
    trainer.log.truncate_after(trainer.step)
    assert [row["step"] for row in trainer.log.rows()] == ["2"]
    assert [json.loads(line) for line in (tmp_path / "scores.jsonl").open()] == scored


def test_checkpoints_and_evaluations_come_as_often_as_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves, evaluations = [], []
    for seconds, expected in ((0.0, [1, 2]), (1e9, [])):
        trainer = Trainer(TINY, tmp_path / str(seconds))
        save = Trainer.save

        def saved(self: Trainer, save: Callable[[Trainer], Path] = save) -> Path:
            saves.append(self.step)
            return save(self)

        def evaluated(self: Trainer, longest: str) -> None:
            evaluations.append((self.step, longest))

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "save", saved)
            patch.setattr(Trainer, "evaluate", evaluated)
            trainer.train(Schedule(None, seconds, seconds, "short"))
        assert saves == [0, *expected, 2]  # before the first step, and at the end
        assert evaluations == [*((step, "short") for step in expected), (2, "short")]
        saves.clear()
        evaluations.clear()


def test_times_that_are_none_are_refused() -> None:
    for name in ("minutes", "checkpoint_seconds", "evaluation_seconds"):
        for value in (-5.0, float("nan")):
            chosen: dict[str, Any] = {name: value}
            with pytest.raises(ConfigurationError, match=f"{name} is {value}; it must be"):
                Schedule(**chosen)
    with pytest.raises(ConfigurationError, match="weight_decay is nan"):
        TrainingSettings(weight_decay=float("nan"))
