# SPDX-License-Identifier: Apache-2.0
"""One piece of a training: takes up the state, learns for some minutes, measures, writes."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
from torch import Tensor

from xsvggt_ros.errors import ConfigurationError, first_line
from xsvggt_ros.geometry.files import replacing, require_writable
from xsvggt_ros.model.checkpoint import save_network
from xsvggt_ros.model.device import device_named
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.synthetic.scene_training.need import BUDGETS, EVERYTHING, errors_of
from xsvggt_ros.synthetic.scene_training.parts import STATE, WEIGHTS, load_parts, save_parts
from xsvggt_ros.synthetic.scene_training.recipes import recipe_named
from xsvggt_ros.synthetic.scene_training.trainer import SceneTrainer
from xsvggt_ros.synthetic.scenes.layouts import WORLDS
from xsvggt_ros.synthetic.scenes.suite import Suite, suite_named, suite_settings, suite_streams

NEED = "need.json"
_REPORT_SECONDS = 10.0
_RESERVE = 0.12
"""Share of a piece's minutes that is left for measuring and writing, at most 40 s."""


@dataclass(frozen=True)
class PieceSettings:
    """What one call does.

    Attributes:
        recipe: what is learned when.
        output: where the state goes.
        state: where the state of the piece before lies; None = in ``output``.
        minutes: of the call.
        total_minutes: of learning, over all calls.
        seed: of a training that begins.
        device: as PyTorch spells it, or ``auto``.
        compile: whether torch.compile is used.
        streams: held-out streams that memory is measured on.
        validate_seconds: from one validation to the next.

    Raises:
        ConfigurationError: numbers that cannot work.

    """

    recipe: str = "demo12"
    output: Path = Path("training_state")
    state: Path | None = None
    minutes: float = 7.0
    total_minutes: float = 15.0
    seed: int = 0
    device: str = "auto"
    compile: bool = False
    streams: int = 16
    validate_seconds: float = 60.0

    def __post_init__(self) -> None:
        for name in ("minutes", "total_minutes", "streams", "validate_seconds"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigurationError(
                    f"training {name} is {getattr(self, name)}; it must be positive"
                )
        if self.seed < 0:
            raise ConfigurationError(f"training seed is {self.seed}; it must not be negative")


class Piece:
    """One call."""

    def __init__(self, settings: PieceSettings, say: Callable[[str], None]) -> None:
        """Take up what lies there, or begin.

        Raises:
            CheckpointError: what lies there is damaged.
            ConfigurationError: it was another recipe or seed.
            OutputError: the folder takes no files.

        """
        self.settings, self.say = settings, say
        self.began = time.monotonic()
        settings.output.mkdir(parents=True, exist_ok=True)
        require_writable(settings.output)
        self.device = device_named(settings.device)
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
            torch._dynamo.config.recompile_limit = 64
        self.trainer = SceneTrainer(
            recipe_named(settings.recipe), settings.seed, self.device, compiled=settings.compile
        )
        self.learned_seconds = 0.0
        self.rows: list[dict[str, Any]] = []
        found = load_parts(settings.state or settings.output, self.device)
        if found:
            self._take_up(*found)

    def _take_up(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        for name in ("recipe", "seed"):
            if facts[name] != getattr(self.settings, name):
                raise ConfigurationError(
                    f"the training that lies there has {name} {facts[name]}, not "
                    f"{getattr(self.settings, name)}; give the same one, or another folder"
                )
        self.trainer.load(tensors, facts["step"])
        self.learned_seconds = facts["learned_seconds"]
        self.rows = facts["rows"]
        self.say(f"goes on at step {facts['step']}, after {self.learned_seconds / 60:.2f} minutes")

    @property
    def progress(self) -> float:
        """How much of the whole training is done, from 0 to 1."""
        return min(self.learned_seconds / (60 * self.settings.total_minutes), 1.0)

    def run(self, stop: Callable[[], bool]) -> None:
        """Learn until the minutes are over, the training is done, or ``stop`` says so."""
        minutes = self.settings.minutes
        end = self.began + 60 * minutes - min(60 * minutes * _RESERVE, 40.0)
        saved = validated = time.monotonic()
        report = _Report()
        while time.monotonic() < end and self.progress < 1 and not stop():
            self._step(report)
            now = time.monotonic()
            if now - report.since > _REPORT_SECONDS:
                self._note(report)
                report = _Report()
            if now - validated > self.settings.validate_seconds:
                self._validate()
                validated = time.monotonic()
                report = _Report()
            if now - saved > 100:
                self.save()
                saved = time.monotonic()
        if report.steps:
            self._note(report)
        self.save()
        if not stop():
            self._measure()
            self.save()

    def _step(self, report: _Report) -> None:
        started = time.monotonic()
        stage = self.trainer.recipe.stage_at(self.progress)
        parts = self._take_step()
        report.add(parts, stage.frames * stage.streams)
        if report.steps % 10 == 1 and self.device.type == "cuda":
            # Not further ahead of the device than some steps, so that time means something.
            torch.cuda.synchronize()
        seconds = time.monotonic() - started
        # Compiling is no learning: the rate must not fall for it.
        self.learned_seconds += min(seconds, 2.0)

    def _take_step(self) -> dict[str, Tensor]:
        try:
            return self.trainer.take_step(self.progress)
        except torch._dynamo.exc.TorchDynamoException as error:
            self.say(f"torch.compile failed ({first_line(error)}); goes on without it")
            self.trainer.interpret()
            return self.trainer.take_step(self.progress)

    def _note(self, report: _Report) -> None:
        row = {"step": self.trainer.step, "minutes": round(self.learned_seconds / 60, 3),
               "wall": round(time.monotonic() - self.began, 1),
               "frames": self.trainer.recipe.stage_at(self.progress).frames,
               **report.means()}  # fmt: skip
        self.rows.append(row)
        self.say(json.dumps(row))

    def _validate(self) -> None:
        row: dict[str, Any] = {"step": self.trainer.step, "validation": {}}
        suite = replace(suite_named("landmarks_100_lap100"), frames=50, lap=50)
        suite = replace(suite, first_seed=suite.first_seed + 32)
        judged = self._judged()
        for budget in (2, EVERYTHING):
            row["validation"][str(budget)] = self._errors(judged, suite, 8, budget)
        self.rows.append(row)
        self.say(json.dumps(row))

    def _judged(self) -> StreamVggt:
        """Return the averaged network, in bfloat16 where the engine takes that too: on a GPU."""
        network = copy.deepcopy(self.trainer.average)
        return network.set_precision(torch.bfloat16) if self.device.type == "cuda" else network

    def _errors(
        self, network: StreamVggt, suite: Suite, streams: int, budget: int
    ) -> dict[str, float]:
        recipe = self.trainer.recipe
        settings = suite_settings(suite, recipe.width, recipe.height)
        found = suite_streams(suite, settings, streams, self.device)
        errors = errors_of(network, found, budget)
        return {name: round(float(value.mean()), 4) for name, value in vars_of(errors).items()}

    def _measure(self) -> None:
        """Write what memory is worth on held-out suites of 100 frames."""
        table: dict[str, dict[str, dict[str, float]]] = {}
        judged = self._judged()
        for world in WORLDS:
            suite = suite_named(f"{world}_100_lap100")
            budgets = BUDGETS if world == WORLDS[0] else (2, 8, EVERYTHING)
            table[suite.name] = {
                str(budget): self._errors(judged, suite, self.settings.streams, budget)
                for budget in budgets
            }
            self.say(json.dumps({suite.name: table[suite.name]}))
        with replacing(self.settings.output / NEED) as stream:
            stream.write(json.dumps(table, indent=1).encode())

    def save(self) -> None:
        """Write state and weights."""
        facts = {
            "recipe": self.settings.recipe,
            "seed": self.settings.seed,
            "step": self.trainer.step,
            "learned_seconds": self.learned_seconds,
            "rows": self.rows,
            "settings": {k: str(v) for k, v in asdict(self.settings).items()},
        }
        save_parts(self.settings.output, self.trainer.tensors(), facts)
        half = copy.deepcopy(self.trainer.average).half().cpu()
        save_network(half, self.settings.output / WEIGHTS)


def vars_of(errors: object) -> dict[str, Tensor]:
    """Return the tensors of errors by name."""
    return {name: getattr(errors, name) for name in errors.__dataclass_fields__}  # type: ignore[attr-defined]


class _Report:
    """Means of losses and the speed since the last report."""

    def __init__(self) -> None:
        self.since = time.monotonic()
        self.steps = self.frames = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, parts: dict[str, Tensor], frames: int) -> None:
        self.steps += 1
        self.frames += frames
        for name, value in parts.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def means(self) -> dict[str, float]:
        values = {name: round(float(v) / self.steps, 4) for name, v in self._sums.items()}
        seconds = time.monotonic() - self.since
        return {**values, "frames_per_second": round(self.frames / seconds, 1)}


__all__ = ["NEED", "STATE", "WEIGHTS", "Piece", "PieceSettings"]
