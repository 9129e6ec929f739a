# SPDX-License-Identifier: Apache-2.0
"""Causal training of the network on made-up streams: seeded, resumable, unattended.

Needs torch, numpy and safetensors, nothing else; loss curves are drawn where matplotlib is.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.geometry.files import require_writable
from xsvggt_ros.model.checkpoint import save_network
from xsvggt_ros.model.dense_head import activate_depth, activate_points
from xsvggt_ros.model.device import device_named
from xsvggt_ros.model.memory import CausalSequence
from xsvggt_ros.model.network import Prediction
from xsvggt_ros.synthetic.album import Album, Roll, RollNumbers, growth, roll_settings
from xsvggt_ros.synthetic.batches import Batch, draw_batch
from xsvggt_ros.synthetic.beginning import Beginning, begin
from xsvggt_ros.synthetic.curriculum import Stage, curriculum_named, stage_at
from xsvggt_ros.synthetic.gaps import GappySequence
from xsvggt_ros.synthetic.held_out import LENGTHS, SUITE, held_out
from xsvggt_ros.synthetic.losses import LossWeights, losses
from xsvggt_ros.synthetic.scores import Scores, score_network
from xsvggt_ros.synthetic.sequence import Sequence
from xsvggt_ros.synthetic.training_files import (
    LossLog,
    State,
    load_state,
    save_state,
    write_evaluation_picture,
)

MOST_SKIPPED = 50
"""Steps in a row without a finite gradient that end a training."""

PARTS = ("total", "depth", "points", "camera", "guides")
"""Parts of the loss, as they are logged."""

MOST_ROLLS = 2000
"""Rolls that are kept, 2.2 MB each at 112x84."""


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained; a resumed training must have equal ones, but for the last four.

    Attributes:
        preset: sizes of the network.
        start: folder of another training whose averaged weights and guides this one begins with,
            or weights in safetensors; empty = random ones.
        curriculum: what is learned when.
        room: kind of room.
        steps: of the optimiser, in all.
        batch: factor on the streams per step of the curriculum; 1 suits a CPU.
        seed: of weights and data.
        learning_rate: highest, after the warm-up.
        warmup: steps until then.
        weight_decay: of matrices.
        average: decay per step of the averaged weights, which are what is saved and scored.
        device: as PyTorch spells it, or ``auto``.
        bfloat16: whether the aggregator computes in it; heads stay in float32.
        compile: whether torch.compile is applied to the aggregator.
        workers: processes that shoot rolls of pictures ahead; 0 = none but this one.

    Raises:
        ConfigurationError: numbers that cannot work.

    """

    preset: str = "demo"
    start: str = ""
    curriculum: str = "demo"
    room: str = "chart"
    steps: int = 7_000
    batch: int = 1
    seed: int = 0
    learning_rate: float = 8e-4
    warmup: int = 150
    weight_decay: float = 0.02
    average: float = 0.998
    weights: LossWeights = field(default_factory=LossWeights)
    device: str = "auto"
    bfloat16: bool = False
    compile: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        positive = {"steps": self.steps, "batch": self.batch, "learning_rate": self.learning_rate}
        for name, value in positive.items():
            if not (math.isfinite(value) and value > 0):
                raise ConfigurationError(f"training {name} is {value}; it must be positive")
        for name in ("seed", "warmup", "weight_decay", "workers"):
            if getattr(self, name) < 0:
                raise ConfigurationError(
                    f"training {name} is {getattr(self, name)}; it must not be negative"
                )
        if not 0 <= self.average < 1:
            raise ConfigurationError(
                f"training average is {self.average}; it must be at least 0 and below 1"
            )

    def fixed(self) -> dict[str, object]:
        """Return what must not change when a training goes on."""
        kept = asdict(self)
        for name in ("device", "bfloat16", "compile", "workers"):
            del kept[name]
        return kept


@dataclass(frozen=True)
class Schedule:
    """How long a call trains, and how often it does other things.

    Attributes:
        minutes: after which it stops, to go on another time; None = to the last step.
        checkpoint_seconds: between two checkpoints.
        evaluation_seconds: between two evaluations on short held-out sequences.
        score: up to which length held-out sequences are scored at the end: one of LENGTHS.

    Raises:
        ConfigurationError: an unknown length.

    """

    minutes: float | None = None
    checkpoint_seconds: float = 60.0
    evaluation_seconds: float = 900.0
    score: str = "medium"

    def __post_init__(self) -> None:
        if self.score not in LENGTHS:
            raise ConfigurationError(
                f"score '{self.score}' is unknown; choose one of {', '.join(LENGTHS)}"
            )


@dataclass(frozen=True)
class Progress:
    """What a step was like; losses are means since the last report."""

    step: int
    steps: int
    stage: str
    losses: dict[str, float]
    frames_per_second: float
    skipped: int

    def line(self) -> str:
        """Return the progress as one line."""
        parts = ", ".join(f"{name} {value:.4f}" for name, value in self.losses.items())
        skipped = f", {self.skipped} steps skipped" if self.skipped else ""
        return (
            f"step {self.step}/{self.steps} {self.stage}: {parts}, "
            f"{self.frames_per_second:.1f} frames/s{skipped}"
        )


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    ``weights`` is a safetensors file in float16; ``scores`` belong to it, None where the training
    was stopped.
    """

    step: int
    steps: int
    scores: Scores | None
    weights: Path

    def line(self) -> str:
        """Return the final line."""
        if self.scores is None:
            return f"stopped after step {self.step} of {self.steps}; the same command goes on"
        state = "" if self.step == self.steps else f" (step {self.step} of {self.steps})"
        return f"held-out{state}: {self.scores.line()}"


def learning_rate_at(settings: TrainingSettings, step: int) -> float:
    """Return the rate of a step: a linear rise, then half a cosine down to a hundredth."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    span = max(settings.steps - settings.warmup, 1)
    share = min((step - settings.warmup) / span, 1.0)
    return settings.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


class Trainer:
    """One training in one folder; a second call with equal settings goes on where it stopped."""

    def __init__(self, settings: TrainingSettings, folder: Path) -> None:
        """Build the network, or take up what lies in the folder.

        Raises:
            ConfigurationError: what lies there was trained with other settings.
            CheckpointError: what lies there, or what to start from, is damaged or of other sizes.
            OutputError: the folder takes no files.

        """
        require_writable(folder)
        self.settings, self.folder = settings, folder
        self.device = device_named(settings.device)
        self.curriculum = curriculum_named(settings.curriculum)
        self.stages = self.curriculum.stages
        self.rolls = roll_settings(
            settings.room,
            settings.seed,
            self.curriculum.width,
            self.curriculum.height,
            self.curriculum.roll,
        )
        state = load_state(folder, self.device)
        # What a resumed training once began with may be gone.
        start = "" if state else settings.start
        learned = begin(Beginning(settings.preset, settings.room, settings.seed, start))
        self.network = learned.network.to(self.device).train()
        self.guides = learned.guides.to(self.device)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimizer = _optimizer([self.network, self.guides], settings)
        self.step, self.skipped, self._in_a_row = 0, 0, 0
        if state:
            self._resume(state)
        self.log = LossLog(folder, self.step)
        self._aggregator: Callable[..., dict[int, Tensor]] = self.network.aggregator
        if settings.compile:
            self._aggregator = torch.compile(self.network.aggregator)

    def _resume(self, state: State) -> None:
        different = [
            name
            for name, value in self.settings.fixed().items()
            if state.settings.get(name) != value
        ]
        if different:
            told = ", ".join(
                f"{name} was {state.settings.get(name)}, is {self.settings.fixed()[name]}"
                for name in different
            )
            raise ConfigurationError(
                f"'{self.folder}' holds a training with other settings ({told}); give the same "
                "ones to go on, or another folder to start anew"
            )
        self.network.load_state_dict(state.network)
        self.guides.load_state_dict(state.guides)
        self.average.load_state_dict(state.average)
        self.optimizer.load_state_dict(state.optimizer)
        self.step, self.skipped = state.step, state.skipped

    def save(self) -> Path:
        """Write the checkpoint and the averaged weights; return the path of the weights."""
        save_state(
            self.folder,
            step=self.step,
            skipped=self.skipped,
            settings=self.settings.fixed(),
            network=self.network.state_dict(),
            guides=self.guides.state_dict(),
            average=self.average.state_dict(),
            optimizer=self.optimizer.state_dict(),
        )
        half = copy.deepcopy(self.average).half().cpu()
        return save_network(half, self.folder / "weights.safetensors")

    def train(
        self,
        schedule: Schedule | None = None,
        listen: Callable[[Progress], None] = lambda progress: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Outcome:
        """Train until the end, until the schedule says so, or until ``stop`` does.

        Args:
            schedule: how long, and how often what else.
            listen: hears the progress every few seconds.
            stop: asked after each step; a training that is stopped is saved, but not scored.

        Raises:
            ConfigurationError: MOST_SKIPPED steps in a row had no finite gradient.

        """
        schedule = schedule or Schedule()
        started = saved = evaluated = time.monotonic()
        meter = _Meter()
        stopped = False
        try:
            for batch, stage in self._batches():
                meter.add(self.take_step(batch, stage), batch.frames)
                now = time.monotonic()
                if meter.due(now) or self.step == self.settings.steps:
                    progress = meter.report(
                        now, self.step, self.settings.steps, stage.name, self.skipped
                    )
                    self.log.add(progress, learning_rate_at(self.settings, self.step - 1))
                    listen(progress)
                if now - saved > schedule.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
                if now - evaluated > schedule.evaluation_seconds:
                    self.evaluate("short")
                    evaluated = time.monotonic()
                stopped = stop()
                over = schedule.minutes is not None and now - started > 60 * schedule.minutes
                if stopped or over:
                    break
        finally:
            weights = self.save()
            self.log.draw()
        scores = None if stopped else self.evaluate(schedule.score)
        return Outcome(self.step, self.settings.steps, scores, weights)

    def take_step(self, batch: Batch, stage: Stage) -> dict[str, float]:
        """Learn from one batch; return its losses, or nothing where they were not finite."""
        settings = self.settings
        rate = learning_rate_at(settings, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.step += 1
        parts = self._losses(batch, stage)
        self.optimizer.zero_grad(set_to_none=True)
        parts["total"].backward()
        norm = nn.utils.clip_grad_norm_(
            [*self.network.parameters(), *self.guides.parameters()], 1.0
        )
        if not bool(torch.isfinite(norm) & torch.isfinite(parts["total"].detach())):
            self._skip()
            return {}
        self._in_a_row = 0
        self.optimizer.step()
        self._average_weights()
        return {name: float(parts[name].detach()) for name in PARTS if name in parts}

    def _skip(self) -> None:
        """Leave the weights as they are: one broken batch must not end hours of work."""
        self.optimizer.zero_grad(set_to_none=True)
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row >= MOST_SKIPPED:
            raise ConfigurationError(
                f"{MOST_SKIPPED} steps in a row had no finite gradient; start anew with a learning "
                f"rate below {self.settings.learning_rate}, or in float32"
            )

    def _average_weights(self) -> None:
        """Move the averaged weights towards the present ones; faster at first."""
        decay = min(self.settings.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            mean: list[Tensor] = list(self.average.parameters())
            present: list[Tensor] = list(self.network.parameters())
            torch._foreach_lerp_(mean, present, 1 - decay)

    def _losses(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """Return the losses of one batch; the dense heads see one of its streams, in turn."""
        weights, normal = self.settings.weights, batch.truth.normalized()
        outputs = self._aggregate(batch.images, self._memory(batch.images.shape[1], stage))
        stream = (self.step // stage.dense_every) % batch.images.shape[0]
        dense = slice(stream, stream + 1) if self.step % stage.dense_every == 0 else None
        parts = losses(self._predict(outputs, batch.images, dense), normal, weights,
                       dense or slice(None))  # fmt: skip
        guided = self.guides(outputs, batch, normal)
        return {**parts, "guides": guided, "total": parts["total"] + weights.guides * guided}

    def _memory(self, frames: int, stage: Stage) -> CausalSequence:
        """Return a memory for streams of so many frames, with gaps or without."""
        rng = np.random.default_rng([self.settings.seed, self.step, 0x6A95])
        if rng.random() >= stage.gaps:
            return CausalSequence(frames)
        return GappySequence(frames, torch.Generator().manual_seed(int(rng.integers(2**31))))

    def _aggregate(self, images: Tensor, memory: CausalSequence) -> dict[int, Tensor]:
        """Run the aggregator over whole streams, in bfloat16 if asked; return float32."""
        config = self.network.config
        layers = self.guides.layers | {config.depth - 1, *config.dense.layers}
        if not self.settings.bfloat16:
            return self._aggregator(images, memory, layers)
        with torch.autocast(self.device.type, torch.bfloat16):
            outputs = self._aggregator(images, memory, layers)
        return {layer: each.float() for layer, each in outputs.items()}

    def _predict(
        self, outputs: dict[int, Tensor], images: Tensor, dense: slice | None
    ) -> Prediction:
        """Run the camera head over all streams, and the dense heads over those asked for."""
        network = self.network
        frames, (height, width) = images.shape[1], images.shape[-2:]
        tokens = outputs[network.config.depth - 1][:, :, 0]
        encodings = network.camera_head(tokens, CausalSequence(frames))
        if dense is None:
            return Prediction(encodings)
        chosen = {layer: each[dense] for layer, each in outputs.items()}
        depth = activate_depth(network.depth_head(chosen, height, width))
        points = activate_points(network.point_head(chosen, height, width))
        return Prediction(encodings, *depth, *points)

    def _batches(self) -> Iterator[tuple[Batch, Stage]]:
        """Yield the batches of the steps that are left, on the device, with their stages."""
        settings, course = self.settings, self.curriculum
        album = Album(self.rolls, self.device, MOST_ROLLS)
        shot = growth(self.step, course.first_rolls, course.steps_per_roll) if self.step else 0
        rolls = enumerate(self._shot_ahead(shot), start=shot)
        for step in range(self.step, settings.steps):
            count = growth(step, course.first_rolls, course.steps_per_roll)
            while shot < count:
                album.add(*next(rolls))
                shot += 1
            stage = stage_at(self.stages, step, settings.steps)
            yield (
                draw_batch(
                    album,
                    count,
                    settings.batch * stage.streams,
                    stage.frames,
                    self.rolls.intrinsics,
                    (settings.seed, step),
                    self.device,
                ),
                stage,
            )

    def _shot_ahead(self, first: int) -> Iterator[Roll]:
        """Yield the rolls from a number on, shot by other processes if there are any."""
        settings, course = self.settings, self.curriculum
        last = growth(settings.steps, course.first_rolls, course.steps_per_roll)
        # Several processes on one GPU would only be in each other's way.
        workers = settings.workers if self.device.type == "cpu" else 0
        loader: DataLoader[Roll] = DataLoader(
            Subset(RollNumbers(self.rolls, self.device), range(first, last)),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=workers,
            worker_init_fn=_quiet_worker,
            multiprocessing_context="spawn" if workers else None,
        )
        yield from loader

    def evaluate(self, longest: str) -> Scores:
        """Score the averaged weights on held-out sequences, and draw what they see in one."""
        width, height = self.curriculum.width, self.curriculum.height
        sequences = [
            Sequence(held_out(each.name, self.settings.room, width, height))
            for each in SUITE
            if each.frames in LENGTHS[longest]
        ]
        write_evaluation_picture(self.folder, self.average, sequences[0], self.step)
        scores = score_network(self.average, sequences)
        self.log.add_scores(self.step, longest, scores)
        return scores


def _as_it_is(roll: Any) -> Any:
    """Keep numpy arrays, which travel by value; tensors would take open files."""
    return roll


def _quiet_worker(number: int) -> None:
    """Keep a worker to one thread; there are as many workers as cores to use."""
    torch.set_num_threads(1)


def _optimizer(modules: list[nn.Module], settings: TrainingSettings) -> torch.optim.AdamW:
    """Return AdamW that decays matrices, not gains, biases and tokens."""
    trained = [
        (name, each)
        for module in modules
        for name, each in module.named_parameters()
        if each.requires_grad
    ]
    matrices = [each for name, each in trained if each.ndim >= 2 and not name.endswith(_TOKENS)]
    others = [each for name, each in trained if each.ndim < 2 or name.endswith(_TOKENS)]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), eps=1e-8)


_TOKENS = ("_token", "_tokens", "pos_embed")


class _Meter:
    """Means of losses and frames per second between two reports."""

    def __init__(self, seconds: float = 5.0) -> None:
        self._seconds = seconds
        self._clear(time.monotonic())

    def _clear(self, now: float) -> None:
        self._since = now
        self._sums: dict[str, list[float]] = {}
        self._frames = 0

    def add(self, parts: dict[str, float], frames: int) -> None:
        """Note one step."""
        self._frames += frames
        for name, value in parts.items():
            self._sums.setdefault(name, []).append(value)

    def due(self, now: float) -> bool:
        """Return whether it is time to report."""
        return now - self._since >= self._seconds

    def report(self, now: float, step: int, steps: int, stage: str, skipped: int) -> Progress:
        """Return the means and start anew."""
        means = {name: sum(values) / len(values) for name, values in self._sums.items()}
        rate = self._frames / max(now - self._since, 1e-9)
        self._clear(now)
        return Progress(step, steps, stage, means, rate, skipped)
