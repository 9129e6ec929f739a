# SPDX-License-Identifier: Apache-2.0
"""Training on rendered worlds: seeded, timed, resumable."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from xsvggt_ros.model.aggregator import Encoder
from xsvggt_ros.model.heads import activate_depth, activate_points
from xsvggt_ros.model.layers import CausalSequence
from xsvggt_ros.model.network import Prediction
from xsvggt_ros.synthetic.cameras import Truth
from xsvggt_ros.synthetic.scenes import Streams, plan_streams, render_streams
from xsvggt_ros.synthetic.scenes.scene import Draw
from xsvggt_ros.synthetic.sequence import FIRST_HELD_OUT_SEED
from xsvggt_ros.training.auxiliary_heads import SceneHeads
from xsvggt_ros.training.forgetting import (
    MaskedSequence,
    PrunedSequence,
    causal,
    drawn_window,
    forgetful,
    over_tokens,
    windowed,
)
from xsvggt_ros.training.learning import (
    Learning,
    Ranks,
    fresh_network,
    losses,
    set_learning_rate,
    spelled_for,
)
from xsvggt_ros.training.recipes import Recipe, SceneStage
from xsvggt_ros.training.state import load_weights

if TYPE_CHECKING:
    from torch.cuda import _POOL_HANDLE

_WARM_STEPS = 3


class GraphedStep:
    """Repeats what a function has once done on a GPU.

    The function must make its random numbers on the device with the default generator, and must
    not ask the device for anything. What it returned is filled again at each repetition.
    """

    def __init__(
        self,
        step: Callable[[], dict[str, Tensor]],
        clear: Callable[[], None],
        pool: _POOL_HANDLE | None = None,
    ) -> None:
        """Run ``step`` a few times to warm up, then capture it.

        Args:
            step: learns from one batch, the optimiser's step included.
            clear: frees the gradients, before each step and before the capture.
            pool: memory of another step's graph that never runs at the same time; None = its own.

        Raises:
            RuntimeError: something in it cannot be captured.

        """
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for number in range(_WARM_STEPS):
                clear()
                if number == _WARM_STEPS - 1:
                    _without_waiting(step)
                else:
                    step()
        torch.cuda.current_stream().wait_stream(aside)
        clear()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._parts = step()

    @property
    def pool(self) -> _POOL_HANDLE:
        """The memory that the graph works in."""
        return self._graph.pool()

    def __call__(self) -> dict[str, Tensor]:
        """Repeat it; the next repetition, also of a graph in the same memory, overwrites it."""
        self._graph.replay()
        return self._parts


def _without_waiting(step: Callable[[], dict[str, Tensor]]) -> None:
    """Run a step; raise RuntimeError where it waits for the device, which no capture survives."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode(before)


PLACE = 0.5
"""Size of the position embedding at first, about that of what patches show."""


class SceneTrainer(Learning[SceneHeads]):
    """A network that learns; whoever calls decides how long."""

    def __init__(
        self,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        *,
        graphed: bool = False,
        ranks: Ranks | None = None,
    ) -> None:
        """Begin with seeded random weights.

        Args:
            recipe: what is learned when.
            seed: of weights and worlds.
            device: where all of it happens.
            graphed: whether a step is captured as a CUDA graph; only on a GPU.
            ranks: the processes that learn together; None = this one alone.

        """
        self.recipe, self.seed = recipe, seed
        self._ranks = ranks or Ranks(device)
        network = fresh_network(recipe.preset, seed)
        _place_patches(network.aggregator.patch_embed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            auxiliary = SceneHeads(network.config)
        # Only a rate that lies on the device can change between repetitions of a captured step.
        rate = torch.tensor(recipe.learning_rate, device=device)
        super().__init__(
            network,
            auxiliary,
            device,
            rate if device.type == "cuda" else recipe.learning_rate,
            recipe.weight_decay,
            bfloat16=True,
            fused=True,
        )
        self._learning = list(self.parameters().values())
        self.graphed = graphed
        self._captured: dict[int, GraphedStep] = {}
        self._captured_stage: SceneStage | None = None
        if device.type == "cuda":
            # The only generator that a captured step draws new numbers from as it is.
            self.generator = torch.cuda.default_generators[device.index or 0]
        else:
            self.generator = torch.Generator(device)
        self._seed_generator()

    def begin_with(self, start: str) -> None:
        """Begin with the weights that ``start`` names instead of random ones.

        Raises:
            CheckpointError: it names none, or those of another preset.

        """
        load_weights(start, self.recipe.preset, self.network)
        self.average.load_state_dict(self.network.state_dict())

    def _seed_generator(self) -> None:
        """Make chances follow from seed, step and rank; seeds from 900 000 000 on are held out."""
        mixed = self.seed * 611_953 + self.step * 7_919 + self._ranks.rank * 104_729
        self.generator.manual_seed(mixed % FIRST_HELD_OUT_SEED)

    def tensors(self) -> dict[str, Tensor]:
        """Return what a training is continued from beside the averaged weights, in half the width.

        Second moments of matrices are told by the means of their rows and columns: they only have
        to tell large gradients from small ones until the next few hundred steps have been.
        """
        found: dict[str, Tensor] = {}
        for name, each in self.parameters().items():
            found[f"now.{name}"] = each.detach().half()
            moments = self.optimizer.state.get(each)
            if moments:
                found[f"first.{name}"] = moments["exp_avg"].bfloat16()
                second = moments["exp_avg_sq"].flatten(1) if each.ndim > 1 else None
                if second is None:
                    found[f"second.{name}"] = moments["exp_avg_sq"].clone()
                else:
                    found[f"rows.{name}"] = second.mean(dim=1)
                    found[f"columns.{name}"] = second.mean(dim=0)
        return found

    def load(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go on from what :meth:`tensors` returned after ``step`` steps.

        The averaged weights lie elsewhere: whoever calls loads them.
        """
        with torch.no_grad():
            for name, each in self.parameters().items():
                each.copy_(tensors[f"now.{name}"])
                if f"first.{name}" in tensors:
                    self.optimizer.state[each] = {
                        "step": torch.tensor(float(step), device=self.device),
                        "exp_avg": tensors[f"first.{name}"].float(),
                        "exp_avg_sq": _second_moment(tensors, name, each),
                    }
        self.step = step
        self._seed_generator()

    def draw_streams(self, stage: SceneStage) -> Streams:
        """Return streams of worlds that nobody has seen and nobody will see again."""
        settings = self.recipe.streams_of(stage)
        with torch.no_grad():
            plan = plan_streams(Draw(stage.streams, self.generator), stage.frames, settings)
            return render_streams(plan, settings, self.generator)

    def take_step(self, progress: float) -> dict[str, Tensor]:
        """Learn from one batch; return its losses, still on the device.

        Raises:
            RuntimeError: the step was to be captured, and cannot be.

        """
        stage = self.recipe.stage_at(progress)
        set_learning_rate(self.optimizer, self.recipe.rate_at(progress))
        budget = self._drawn_budget(stage)
        parts = self._graphed(stage, budget) if self.graphed else self._cleared(stage, budget)
        self.step += 1
        self.follow(self.recipe.average)
        return parts

    def _graphed(self, stage: SceneStage, budget: int) -> dict[str, Tensor]:
        if self._captured_stage != stage:
            # The memory of one stage's graphs is free before the next one's are captured.
            self._captured, self._captured_stage = {}, stage
        if budget not in self._captured:
            pool = next((each.pool for each in self._captured.values()), None)
            self._captured[budget] = GraphedStep(
                lambda: self._learn(stage, budget), self.clear_gradients, pool
            )
        return self._captured[budget]()

    def stop_capturing(self) -> None:
        """Launch each operation of a step by itself from now on; free what the graphs hold."""
        self.graphed, self._captured, self._captured_stage = False, {}, None

    def _cleared(self, stage: SceneStage, budget: int) -> dict[str, Tensor]:
        self.clear_gradients()
        return self._learn(stage, budget)

    def _learn(self, stage: SceneStage, budget: int) -> dict[str, Tensor]:
        """Learn from one batch, whose gradients were cleared; return its losses."""
        parts = self._losses(self.draw_streams(stage), stage, budget)
        parts["total"].backward()
        self._ranks.average([each.grad for each in self._learning])
        norm = nn.utils.clip_grad_norm_(self._learning, 1.0, foreach=True)
        # The fused optimiser skips a step by itself; to ask the device would wait for all of it.
        self.optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        return {**{name: each.detach() for name, each in parts.items()}, "norm": norm.detach()}

    def _drawn_budget(self, stage: SceneStage) -> int:
        """Return the frames to which this step's memory prunes itself; 0 = it does not.

        Follows from seed and step. Drawn beside the device: another budget has other shapes.
        """
        chances = Random(f"{self.seed} {self.step}")
        return chances.choice(stage.budgets) if chances.random() < stage.pruned else 0

    def _memory(self, stage: SceneStage, budget: int) -> CausalSequence:
        """Return a memory for the streams of a step, forgetful or not."""
        config = self.network.config
        tokens = config.tokens_per_frame(self.recipe.height, self.recipe.width)
        if budget:
            return PrunedSequence(stage.frames, budget, special=config.special_tokens)
        if config.stream.window_frames:
            forgets = torch.rand((), generator=self.generator, device=self.device) < stage.gaps
            window, interval = drawn_window(config, stage.frames, self.generator)
            return windowed(
                config,
                stage.frames,
                tokens,
                window=torch.where(forgets, window, stage.frames),
                interval=torch.where(forgets, interval, 1),
                device=self.device,
            )
        if stage.gaps:
            return forgetful(stage.frames, tokens, config.depth, stage.gaps, self.generator)
        seen = causal(stage.frames, self.device)
        return MaskedSequence(stage.frames, over_tokens(seen, tokens), seen)

    def _losses(self, streams: Streams, stage: SceneStage, budget: int) -> dict[str, Tensor]:
        memory = self._memory(stage, budget)
        outputs = self.aggregated(streams.images, memory)
        encodings = self.encodings(outputs, memory)
        read = self.auxiliary(outputs, streams)
        chosen = self._dense_frames(stage)
        prediction = self._dense(outputs, streams, chosen, encodings)
        truth = streams.truth
        picked = Truth(truth.depth[chosen], truth.points[chosen], truth.encodings)
        parts = losses(prediction, spelled_for(self.network.config, picked), self.recipe.weights)
        return self.with_auxiliary(parts, read, self.recipe.weights)

    def _dense_frames(self, stage: SceneStage) -> tuple[slice, slice]:
        """Return the streams and frames that the dense heads learn from: all are as random."""
        count = min(stage.dense_frames, stage.frames)
        pace = max(stage.frames // count, 1)
        return slice(0, stage.dense), slice(pace - 1, pace * count, pace)

    def _dense(
        self,
        outputs: dict[int, Tensor],
        streams: Streams,
        chosen: tuple[slice, slice],
        encodings: Tensor,
    ) -> Prediction:
        """Return what the heads say; where there is sky the truth, of which nothing is learned."""
        height, width = streams.images.shape[-2:]
        network = self.network
        picked = {k: outputs[k][chosen] for k in network.config.dense.layers}
        with torch.autocast(self.device.type, torch.bfloat16):
            raw_depth = network.depth_head(picked, height, width)
        depth, depth_confidence = activate_depth(raw_depth.clamp(max=8))
        seen, truth = streams.seen[chosen], streams.truth
        found = Prediction(
            encodings,
            torch.where(seen, depth, truth.depth[chosen]),
            torch.where(seen, depth_confidence, 1.0),
        )
        if "points" not in network.config.heads:
            return found
        with torch.autocast(self.device.type, torch.bfloat16):
            raw_points = network.point_head(picked, height, width)
        points, points_confidence = activate_points(raw_points.clamp(-8, 8))
        return replace(
            found,
            points=torch.where(seen.unsqueeze(-1), points, truth.points[chosen]),
            points_confidence=torch.where(seen, points_confidence, 1.0),
        )


def _place_patches(encoder: Encoder) -> None:
    """Begin with waves over the grid as position embedding.

    Random numbers as small as usual say nothing about where a patch is beside what it shows, and a
    bearing is all that tells a camera's turn.
    """
    side, channels = encoder.grid, encoder.pos_embed.shape[-1]
    waves = torch.arange(channels // 4)
    rates = math.pi / 2 ** (waves * (math.log2(2 * side) / len(waves)))
    angles = (torch.arange(side) + 0.5)[:, None] * rates
    along = torch.cat([angles.sin(), angles.cos()], dim=-1)
    rows = along[:, None].expand(side, side, -1)
    columns = along[None].expand(side, side, -1)
    with torch.no_grad():
        encoder.pos_embed[0, 1:] = PLACE * torch.cat([rows, columns], dim=-1).flatten(0, 1)


def _second_moment(tensors: dict[str, Tensor], name: str, weight: Tensor) -> Tensor:
    """Return the second moment of a weight from the means of its rows and columns."""
    if f"second.{name}" in tensors:
        return tensors[f"second.{name}"].clone()
    rows, columns = tensors[f"rows.{name}"], tensors[f"columns.{name}"]
    return (rows[:, None] * columns[None] / rows.mean().clamp(min=1e-30)).view_as(weight)
