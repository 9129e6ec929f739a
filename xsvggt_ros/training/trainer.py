# SPDX-License-Identifier: Apache-2.0
"""Causal training of the network on made-up streams: seeded, resumable, unattended.

Needs torch, numpy and safetensors; loss curves are drawn where matplotlib is installed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from xsvggt_ros.errors import CheckpointError, ConfigurationError
from xsvggt_ros.geometry.files import require_writable
from xsvggt_ros.model.device import device_named
from xsvggt_ros.model.heads import activate_depth, activate_points
from xsvggt_ros.model.layers import CausalSequence
from xsvggt_ros.model.network import Prediction
from xsvggt_ros.synthetic.sequence import LENGTHS, SUITE, Sequence, held_out
from xsvggt_ros.training.auxiliary_heads import RoomHeads
from xsvggt_ros.training.batches import Batch, TrainingData
from xsvggt_ros.training.forgetting import GappySequence, drawn_window, windowed
from xsvggt_ros.training.learning import (
    Learning,
    losses,
    set_learning_rate,
    spelled_for,
)
from xsvggt_ros.training.log import (
    PARTS,
    LossLog,
    LossMeter,
    Outcome,
    Progress,
    require_no_other,
    write_evaluation_image,
)
from xsvggt_ros.training.scores import Scores, score_network
from xsvggt_ros.training.settings import Schedule, Stage, TrainingSettings
from xsvggt_ros.training.state import (
    StartSettings,
    State,
    differences,
    load_start,
    load_state,
    resolved_start,
    save_state,
)

MOST_SKIPPED = 50
"""Steps in a row without a finite gradient that end a training."""


class Trainer(Learning[RoomHeads]):
    """One training in one directory; a second call with equal settings continues it."""

    def __init__(self, settings: TrainingSettings, directory: Path) -> None:
        """Build the network, or resume the training in the directory.

        Raises:
            ConfigurationError: the training there has other settings or images.
            CheckpointError: that training, or what to start from, is damaged or of other sizes.
            OutputError: the directory takes no files, or holds files that would be replaced.

        """
        require_writable(directory)
        self.settings, self.directory = settings, directory
        device = device_named(settings.device)
        self.data = TrainingData(settings, device)
        state = load_state(directory, device)
        if state:
            self._require_same(state)
        else:
            require_no_other(directory)
        self.log = LossLog(directory)
        # What a resumed training started from may be gone.
        learned = load_start(self._start_settings("" if state else settings.start))
        self._start_digest = (
            state.start_digest if state else learned.digest() if settings.start else ""
        )
        super().__init__(
            learned.network,
            learned.auxiliary,
            device,
            settings.learning_rate,
            settings.weight_decay,
            bfloat16=settings.bfloat16,
        )
        self.skipped, self._in_a_row = 0, 0
        self._saved = state is not None
        if state:
            self._resume(state)
        if settings.compile:
            self.aggregator = torch.compile(self.network.aggregator)

    def _start_settings(self, start: str) -> StartSettings:
        return StartSettings(self.settings.preset, self.settings.room, self.settings.seed, start)

    def _fixed(self) -> TrainingSettings:
        return replace(self.settings.fixed(), start=resolved_start(self.settings.start))

    def _require_same(self, state: State) -> None:
        asked = self._fixed()
        saved = {**state.settings, "start": resolved_start(state.settings.get("start", ""))}
        if saved["start"] != asked.start and self._starts_alike(state):
            saved["start"] = asked.start
        told = differences(saved, asked)
        if state.data:
            told += differences(state.data, self.data.settings)
        if told:
            raise ConfigurationError(
                f"'{self.directory}' holds a training with other settings ({', '.join(told)}); "
                "give the same ones to continue, or another directory to start again"
            )

    def _starts_alike(self, state: State) -> bool:
        """Return whether another name means the very weights that it started from."""
        if not (state.start_digest and self.settings.start):
            return False
        try:
            return (
                load_start(self._start_settings(self.settings.start)).digest() == state.start_digest
            )
        except CheckpointError:
            return False

    def _resume(self, state: State) -> None:
        self.network.load_state_dict(state.network)
        self.auxiliary.load_state_dict(state.auxiliary)
        self.average.load_state_dict(state.average)
        self.optimizer.load_state_dict(state.optimizer)
        self.step, self.skipped = state.step, state.skipped

    def save(self) -> Path:
        """Write the checkpoint and the averaged weights; return the path of the weights."""
        state = State(
            step=self.step,
            skipped=self.skipped,
            settings=asdict(self._fixed()),
            network=self.network.state_dict(),
            auxiliary=self.auxiliary.state_dict(),
            average=self.average.state_dict(),
            optimizer=self.optimizer.state_dict(),
            data=asdict(self.data.settings),
            start_digest=self._start_digest,
        )
        save_state(self.directory, state)
        self._saved = True
        return self.save_average(self.directory)

    def train(
        self,
        schedule: Schedule | None = None,
        listen: Callable[[Progress], None] = lambda progress: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Outcome:
        """Train until the end, until the schedule says so, or until ``stop`` does.

        Args:
            schedule: how long, and how often it saves and evaluates.
            listen: receives the progress every few seconds.
            stop: asked after each step, and while images are awaited; a training that is stopped
                is saved, but not scored.

        Raises:
            ConfigurationError: MOST_SKIPPED steps in a row had no finite gradient.

        """
        schedule = schedule or Schedule()
        if not self._saved:
            # First of all, so that files without it are known to be somebody else's.
            self.save()
        self.log.truncate_after(self.step)
        started = saved = evaluated = time.monotonic()
        meter = LossMeter()
        asked = _Lasting(stop)
        try:
            for batch, stage in self.data.batches(self.step, asked):
                meter.add(self.take_step(batch, stage), batch.frames)
                now = time.monotonic()
                if meter.due(now) or self.step == self.settings.steps:
                    progress = Progress(
                        self.step, self.settings.steps, stage.name, meter.means(),
                        meter.frames_per_second(now), self.skipped,
                    )  # fmt: skip
                    meter.restart(now)
                    self.log.add(progress, self.settings.rate_at(self.step - 1))
                    listen(progress)
                if now - saved > schedule.checkpoint_seconds:
                    self.save()
                    saved = time.monotonic()
                if now - evaluated > schedule.evaluation_seconds:
                    self.evaluate("short")
                    evaluated = time.monotonic()
                over = schedule.minutes is not None and now - started > 60 * schedule.minutes
                if asked() or over:
                    break
        finally:
            weights = self.save()
            self.log.draw()
        scores = None if asked.yes else self.evaluate(schedule.score)
        return Outcome(self.step, self.settings.steps, scores, weights)

    def take_step(self, batch: Batch, stage: Stage) -> dict[str, float]:
        """Learn from one batch; return its losses, or nothing where they were not finite."""
        settings = self.settings
        set_learning_rate(self.optimizer, settings.rate_at(self.step))
        self.step += 1
        parts = self._losses(batch, stage)
        self.clear_gradients()
        parts["total"].backward()
        norm = nn.utils.clip_grad_norm_(self.parameters().values(), 1.0)
        if not bool(torch.isfinite(norm) & torch.isfinite(parts["total"].detach())):
            self._skip()
            return {}
        self._in_a_row = 0
        self.optimizer.step()
        self.follow(settings.average)
        return {name: float(parts[name].detach()) for name in PARTS if name in parts}

    def _skip(self) -> None:
        """Leave the weights as they are: one broken batch must not end hours of work."""
        self.clear_gradients()
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row >= MOST_SKIPPED:
            raise ConfigurationError(
                f"{MOST_SKIPPED} steps in a row had no finite gradient; start again with a "
                f"learning rate below {self.settings.learning_rate}, or in float32"
            )

    def _losses(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        """Return the losses of one batch; the dense heads see one of its streams, in turn."""
        weights, normal = self.settings.weights, batch.truth.normalized()
        memory = self._memory(batch.images, stage)
        outputs = self.aggregated(batch.images, memory)
        stream = (self.step // stage.dense_every) % batch.images.shape[0]
        dense = slice(stream, stream + 1) if self.step % stage.dense_every == 0 else None
        prediction = self._predict(outputs, batch.images, dense, memory)
        truth = spelled_for(self.network.config, normal)
        parts = losses(prediction, truth, weights, dense or slice(None))
        read = self.auxiliary(outputs, batch, normal)
        return self.with_auxiliary(parts, read, weights)

    def _memory(self, images: Tensor, stage: Stage) -> CausalSequence:
        """Return a memory for streams [streams, frames, 3, height, width], with gaps or without.

        Where the network is to have a window, the gaps are those of a window and of key frames.
        """
        config, frames = self.network.config, images.shape[1]
        rng = np.random.default_rng([self.settings.seed, self.step, 0x6A95])
        if rng.random() >= stage.gaps:
            return CausalSequence(frames, config.stream.anchor_frames)
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        if not config.stream.window_frames:
            return GappySequence(frames, generator)
        window, interval = (int(each) for each in drawn_window(config, frames, generator))
        tokens = config.tokens_per_frame(*images.shape[-2:])
        return windowed(
            config, frames, tokens, window=window, interval=interval, device=images.device
        )

    def _predict(
        self,
        outputs: dict[int, Tensor],
        images: Tensor,
        dense: slice | None,
        memory: CausalSequence,
    ) -> Prediction:
        """Run the camera head over all streams, and the dense heads over those asked for."""
        network = self.network
        height, width = images.shape[-2:]
        encodings = self.encodings(outputs, memory)
        if dense is None:
            return Prediction(encodings)
        chosen = {layer: each[dense] for layer, each in outputs.items()}
        depth = activate_depth(network.depth_head(chosen, height, width))
        if "points" not in network.config.heads:
            return Prediction(encodings, *depth)
        points = activate_points(network.point_head(chosen, height, width))
        return Prediction(encodings, *depth, *points)

    def evaluate(self, longest: str) -> Scores:
        """Score the averaged weights on held-out sequences, and draw what they see in one."""
        width, height = self.data.curriculum.width, self.data.curriculum.height
        sequences = [
            Sequence(held_out(each.name, self.settings.room, width, height))
            for each in SUITE
            if each.frames in LENGTHS[longest]
        ]
        write_evaluation_image(self.directory, self.average, sequences[0], self.step)
        scores = score_network(self.average, sequences)
        self.log.add_scores(self.step, longest, scores)
        return scores


class _Lasting:
    """A question that is not asked again once the answer is yes."""

    def __init__(self, question: Callable[[], bool]) -> None:
        self._question = question
        self.yes = False

    def __call__(self) -> bool:
        self.yes = self.yes or self._question()
        return self.yes
