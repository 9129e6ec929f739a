# SPDX-License-Identifier: Apache-2.0
"""One piece of a training: takes up the state, learns for some minutes, measures, writes."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xsvggt_ros.errors import CheckpointError, ConfigurationError, first_line
from xsvggt_ros.geometry.files import replacing, require_writable
from xsvggt_ros.model.device import device_named
from xsvggt_ros.synthetic.scenes import Suite, suite_named, suite_settings, suite_streams
from xsvggt_ros.training.learning import WEIGHTS, Ranks, device_of_rank
from xsvggt_ros.training.log import LossMeter
from xsvggt_ros.training.recipes import SceneRunSettings, recipe_named
from xsvggt_ros.training.scene_trainer import SceneTrainer
from xsvggt_ros.training.scores import (
    BUDGETS,
    EVERYTHING,
    PRUNED_BUDGET,
    errors_of,
    pruned_errors_of,
)
from xsvggt_ros.training.state import load_parts, load_weights, resolved_start, save_parts

NEED = "need.json"
_MEASURED = (
    "ate_sim3_percent", "standing_ate_sim3_percent", "rotations_deg", "rpe_rotation_mean_deg",
)  # fmt: skip
_REPORT_SECONDS = 10.0
_RESERVE, _MOST_RESERVED = 0.12, 30.0
"""Share of a piece's minutes, and seconds at most, that are left for measuring and writing."""
_AHEAD = 10
"""Steps that the device may be behind, so that time means something."""


class SceneRun:
    """One call."""

    def __init__(
        self, settings: SceneRunSettings, say: Callable[[str], None], began: float | None = None
    ) -> None:
        """Resume the training there, or start one.

        Args:
            settings: what to do.
            say: takes lines for whoever follows.
            began: when the minutes began to count, as time.monotonic says it; None = now.

        Raises:
            CheckpointError: the training there is damaged, or no weights are where it starts from.
            ConfigurationError: it was another recipe or seed.
            OutputError: the directory takes no files.

        """
        self.settings, self.say = settings, say
        self.began = time.monotonic() if began is None else began
        settings.output.mkdir(parents=True, exist_ok=True)
        require_writable(settings.output)
        self.device = device_of_rank(device_named(settings.device))
        self.ranks = Ranks(self.device)
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        self.trainer = SceneTrainer(
            recipe_named(settings.recipe),
            settings.seed,
            self.device,
            # A step that waits for other processes is not captured.
            graphed=settings.graph and self.device.type == "cuda" and self.ranks.count == 1,
            ranks=self.ranks,
        )
        self.learned_seconds = 0.0
        self.rows: list[dict[str, Any]] = []
        directory = settings.state or settings.output
        found = load_parts(directory, self.device)
        if found:
            self._resume(directory, *found)
        elif settings.start:
            self.trainer.begin_with(settings.start)
        elif self.trainer.recipe.needs_start:
            raise ConfigurationError(
                f"recipe '{settings.recipe}' goes on from trained weights; name them with --start, "
                "such as --start landmarks"
            )
        self._first_step = self.trainer.step
        end = self.began + 60 * settings.minutes
        self.end = end - min(60 * settings.minutes * _RESERVE, _MOST_RESERVED)
        self._total = 60 * (settings.total_minutes or 0.0)
        self._agreed = 0.0

    def _resume(self, directory: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        if "recipe" not in facts:
            raise CheckpointError(
                f"'{directory}' holds a training on rooms; give its recipe to continue it, or take "
                "another directory"
            )
        # A state that names no start is of a time when there was none.
        before = {"start": "", **facts}
        for name, asked in self._identity.items():
            if before[name] != asked:
                raise ConfigurationError(
                    f"the training there has {name} {_in_words(before[name])}, not "
                    f"{_in_words(asked)}; give the same one, or another directory"
                )
        self.trainer.load(tensors, facts["step"])
        load_weights(str(directory / WEIGHTS), self.trainer.recipe.preset, self.trainer.average)
        self.learned_seconds = facts["learned_seconds"]
        self.rows = facts["rows"]
        self.say(
            f"continues at step {facts['step']}, after {self.learned_seconds / 60:.2f} minutes"
        )

    @property
    def _identity(self) -> dict[str, Any]:
        """What a training must have in common with the one that it continues."""
        settings = self.settings
        start = resolved_start(settings.start)
        return {"recipe": settings.recipe, "seed": settings.seed, "start": start}

    @property
    def progress(self) -> float:
        """How much of the whole training is done, from 0 to 1."""
        return min(self.learned_seconds / self._total, 1.0)

    def run(self, stop: Callable[[], bool]) -> None:
        """Learn until the minutes are over, the training is done, or ``stop`` says so."""
        try:
            self._learn(stop)
            if self.ranks.first:
                self.save()
                if not stop():
                    self._measure()
        finally:
            self.ranks.end()

    def _learn(self, stop: Callable[[], bool]) -> None:
        now = saved = validated = time.monotonic()
        self.say(f"begins after {now - self.began:.1f} s, {self.end - now:.1f} s to learn")
        if not self._total:
            self._total = self.learned_seconds + max(self.end - now, 1.0)
        report = LossMeter(_REPORT_SECONDS)
        while self._goes_on(stop):
            self._step(report)
            if not self.ranks.first:
                continue
            now = time.monotonic()
            if report.due(now):
                self._note(report)
            if now - validated > self.settings.validate_seconds:
                self._validate()
                validated = time.monotonic()
                report.restart(validated)
            if now - saved > 120:
                self.save()
                saved = time.monotonic()
        if self.ranks.first and report.steps:
            self._note(report)

    def _goes_on(self, stop: Callable[[], bool]) -> bool:
        """Return whether there is one more step; the first process decides for all.

        Each call takes one step at least: on a busy machine a short one would else never get on.
        """
        in_time = time.monotonic() < self.end or self.trainer.step == self._first_step
        more = in_time and self.progress < 1 and not stop()
        self._agreed, more = self.ranks.agreed(self.progress, more)
        return more

    def _step(self, report: LossMeter) -> None:
        started = time.monotonic()
        stage = self.trainer.recipe.stage_at(self._agreed)
        report.add(self._take_step(), stage.frames * stage.streams * self.ranks.count)
        if report.steps % _AHEAD == 0 and self.device.type == "cuda":
            torch.cuda.synchronize()
        self.learned_seconds += time.monotonic() - started

    def _take_step(self) -> dict[str, Tensor]:
        try:
            return self.trainer.take_step(self._agreed)
        except RuntimeError as error:
            if not self.trainer.graphed or isinstance(error, torch.cuda.OutOfMemoryError):
                raise
            self.say(f"no graph ({first_line(error)}); continues launch by launch")
            torch.cuda.synchronize()
            self.trainer.stop_capturing()
            return self.trainer.take_step(self._agreed)

    def _note(self, report: LossMeter) -> None:
        now = time.monotonic()
        row = {"step": self.trainer.step, "minutes": round(self.learned_seconds / 60, 3),
               "wall": round(now - self.began, 1),
               "frames": self.trainer.recipe.stage_at(self.progress).frames,
               **{name: round(mean, 4) for name, mean in report.means().items()},
               "frames_per_second": round(report.frames_per_second(now), 1)}  # fmt: skip
        self.rows.append(row)
        self.say(json.dumps(row))
        report.restart(now)

    def _validate(self) -> None:
        suite = replace(suite_named("landmarks_100_lap100"), frames=50, lap=50)
        suite = replace(suite, first_seed=suite.first_seed + 32)
        row = {"step": self.trainer.step, "validation": self._errors(suite, 8, (2, EVERYTHING))}
        self.rows.append(row)
        self.say(json.dumps(row))

    def _errors(
        self, suite: Suite, streams: int, budgets: tuple[int, ...]
    ) -> dict[str, dict[str, float]]:
        """Return the means of errors of the averaged network, for each budget, and pruned.

        In bfloat16 on a GPU, as the engine takes it there; without depth, which costs most.
        """
        network = copy.deepcopy(self.trainer.average)
        if self.device.type == "cuda":
            network.set_precision(torch.bfloat16)
        settings = suite_settings(suite, self.trainer.recipe.width, self.trainer.recipe.height)
        found = suite_streams(suite, settings, streams, self.device)
        errors = {str(budget): errors_of(network, found, budget, depth=False) for budget in budgets}
        if not network.config.stream.window_frames:
            pruned = pruned_errors_of(network, found, PRUNED_BUDGET, depth=False)
            errors[f"pruned to {PRUNED_BUDGET}"] = pruned
        return {
            memory: {name: round(float(getattr(each, name).mean()), 3) for name in _MEASURED}
            for memory, each in errors.items()
        }

    def _measure(self) -> None:
        """Write what memory is worth on held-out suites of 100 frames."""
        table: dict[str, dict[str, dict[str, float]]] = {}
        for name in ("landmarks_100_lap100", "landmarks_100_lap50"):
            table[name] = self._errors(suite_named(name), self.settings.streams, BUDGETS)
            self.say(json.dumps({name: table[name]}))
            with replacing(self.settings.output / NEED) as stream:
                stream.write(json.dumps(table, indent=1).encode())

    def save(self) -> None:
        """Write state and weights."""
        facts = {
            **self._identity,
            "step": self.trainer.step,
            "learned_seconds": self.learned_seconds,
            "rows": self.rows,
            "settings": {k: str(v) for k, v in asdict(self.settings).items()},
        }
        save_parts(self.settings.output, self.trainer.tensors(), facts)
        self.trainer.save_average(self.settings.output)


def _in_words(value: object) -> str:
    return "nothing" if value == "" else str(value)
