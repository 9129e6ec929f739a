# SPDX-License-Identifier: Apache-2.0
"""Training on rendered worlds: seeded, timed, resumable."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn

from xsvggt_ros.model.checkpoint import random_network
from xsvggt_ros.model.config import preset
from xsvggt_ros.model.dense_head import activate_depth, activate_points
from xsvggt_ros.model.layers import Block, LayerScale
from xsvggt_ros.model.network import Prediction
from xsvggt_ros.synthetic.losses import Truth, losses
from xsvggt_ros.synthetic.scene_training.masked_sequence import (
    MaskedSequence,
    causal,
    forgetful,
    over_tokens,
)
from xsvggt_ros.synthetic.scene_training.readings import Readings
from xsvggt_ros.synthetic.scene_training.recipes import Recipe, Stage
from xsvggt_ros.synthetic.scenes.draw import Draw
from xsvggt_ros.synthetic.scenes.streams import Streams, Tracer, planned, rendered, seen_along

LAYER_SCALE = 0.5
"""Gain of each residual branch at first; the architecture's 0.01 would sleep for long."""

_TOKENS = ("_token", "_tokens", "pos_embed")


class SceneTrainer:
    """A network that learns; whoever calls decides how long."""

    def __init__(
        self, recipe: Recipe, seed: int, device: torch.device, *, compiled: bool = False
    ) -> None:
        """Begin with seeded random weights.

        Args:
            recipe: what is learned when.
            seed: of weights and worlds.
            device: where all of it happens.
            compiled: whether blocks and rendering go through torch.compile.

        """
        self.recipe, self.seed, self.device = recipe, seed, device
        network = random_network(preset(recipe.preset), seed)
        for module in network.modules():
            if isinstance(module, LayerScale):
                nn.init.constant_(module.gamma, LAYER_SCALE)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            readings = Readings(network.config)
        self.network = network.to(device).train()
        self.readings = readings.to(device)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self._learning = list(self.parameters().values())
        self.optimizer = self._optimizer()
        self._masks: dict[int, MaskedSequence] = {}
        self.step = 0
        self._tracer: Tracer = seen_along
        if compiled:
            self._compile()

    def _compile(self) -> None:
        for module in self.network.modules():
            if isinstance(module, Block):
                module.compile(dynamic=True)
        self._tracer = torch.compile(seen_along, dynamic=True)

    def interpret(self) -> None:
        """Go on without torch.compile."""
        for module in self.network.modules():
            if isinstance(module, Block):
                module._compiled_call_impl = None
        self._tracer = seen_along

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return all that learns, by name."""
        return {
            f"{part}.{name}": each
            for part, module in (("network", self.network), ("readings", self.readings))
            for name, each in module.named_parameters()
            if each.requires_grad
        }

    def _optimizer(self) -> torch.optim.AdamW:
        named = self.parameters().items()
        matrices = [p for name, p in named if p.ndim >= 2 and not name.endswith(_TOKENS)]
        others = [p for name, p in named if p.ndim < 2 or name.endswith(_TOKENS)]
        return torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": self.recipe.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=self.recipe.learning_rate,
            betas=(0.9, 0.98),
            eps=1e-8,
            fused=True,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return all that a training goes on from: moments in half the width, they are noisy."""
        found: dict[str, Tensor] = {}
        for name, each in self.parameters().items():
            found[f"now.{name}"] = each
            moments = self.optimizer.state.get(each)
            if moments:
                found[f"first.{name}"] = moments["exp_avg"].bfloat16()
                found[f"second.{name}"] = moments["exp_avg_sq"].bfloat16()
        for name, each in self.average.named_parameters():
            found[f"average.{name}"] = each.half()
        return found

    def load(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go on from what :meth:`tensors` returned after ``step`` steps."""
        with torch.no_grad():
            for name, each in self.parameters().items():
                each.copy_(tensors[f"now.{name}"])
                if f"first.{name}" in tensors:
                    self.optimizer.state[each] = {
                        "step": torch.tensor(float(step), device=self._step_device),
                        "exp_avg": tensors[f"first.{name}"].float(),
                        "exp_avg_sq": tensors[f"second.{name}"].float(),
                    }
            for name, each in self.average.named_parameters():
                each.copy_(tensors[f"average.{name}"])
        self.step = step

    @property
    def _step_device(self) -> torch.device:
        """Where the fused optimiser counts."""
        return self.device

    def rate_at(self, progress: float) -> float:
        """Return the learning rate: a linear rise, then half a cosine down to a fiftieth."""
        recipe = self.recipe
        if progress < recipe.warmup:
            return recipe.learning_rate * max(progress / recipe.warmup, 0.02)
        share = min((progress - recipe.warmup) / (1 - recipe.warmup), 1.0)
        return recipe.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))

    def draw_streams(self, stage: Stage) -> Streams:
        """Return streams of worlds that nobody has seen and nobody will see again."""
        generator = torch.Generator(self.device)
        generator.manual_seed((self.seed * 611_953 + self.step) % 900_000_000)
        settings = self.recipe.streams_of(stage)
        with torch.no_grad():
            plan = planned(Draw(stage.streams, generator), stage.frames, settings)
            return rendered(plan, settings, generator, self._tracer)

    def take_step(self, progress: float) -> dict[str, Tensor]:
        """Learn from one batch; return its losses, still on the device."""
        stage = self.recipe.stage_at(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate_at(progress)
        parts = self._losses(self.draw_streams(stage), stage)
        self.optimizer.zero_grad(set_to_none=True)
        parts["total"].backward()
        norm = nn.utils.clip_grad_norm_(self._learning, 1.0)
        # The fused optimiser skips a step by itself; to ask the device would wait for all of it.
        self.optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.step += 1
        decay = min(self.recipe.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            mean: list[Tensor] = list(self.average.parameters())
            now: list[Tensor] = list(self.network.parameters())
            torch._foreach_lerp_(mean, now, 1 - decay)
        return {**{name: each.detach() for name, each in parts.items()}, "norm": norm.detach()}

    def _memory(self, stage: Stage) -> MaskedSequence:
        config = self.network.config
        tokens = config.tokens_per_frame(self.recipe.height, self.recipe.width)
        seed = self.seed * 7_919 + self.step
        if np.random.default_rng([seed, 0x6A96]).random() < stage.gaps:
            return forgetful(stage.frames, tokens, config.depth, seed, self.device)
        if stage.frames not in self._masks:
            seen = causal(stage.frames, self.device)
            whole = MaskedSequence(stage.frames, over_tokens(seen, tokens), seen)
            self._masks[stage.frames] = whole
        return self._masks[stage.frames]

    def _losses(self, streams: Streams, stage: Stage) -> dict[str, Tensor]:
        network, config = self.network, self.network.config
        layers = self.readings.layers | {config.depth - 1, *config.dense.layers}
        memory = self._memory(stage)
        with torch.autocast(self.device.type, torch.bfloat16):
            outputs = network.aggregator(streams.images, memory, layers)
        outputs = {layer: each.float() for layer, each in outputs.items()}
        encodings = network.camera_head(outputs[config.depth - 1][:, :, 0], memory)
        guided = self.readings(outputs, streams)
        chosen = self._dense_frames(stage)
        prediction = self._dense(outputs, streams, chosen, encodings)
        truth = streams.truth
        picked = Truth(truth.depth[chosen], truth.points[chosen], truth.encodings)
        parts = losses(prediction, picked, self.recipe.weights)
        total = parts["total"] + self.recipe.weights.guides * guided
        return {**parts, "guides": guided, "total": total}

    def _dense_frames(self, stage: Stage) -> tuple[slice, slice]:
        """Return the streams and frames that the dense heads learn from, in turn."""
        start = self.step * stage.dense % max(stage.streams - stage.dense + 1, 1)
        count = min(stage.dense_frames, stage.frames)
        pace = max(stage.frames // count, 1)
        first = self.step % pace
        return slice(start, start + stage.dense), slice(first, first + pace * count, pace)

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
            raw_points = network.point_head(picked, height, width)
        depth, depth_confidence = activate_depth(raw_depth.clamp(max=8))
        points, points_confidence = activate_points(raw_points.clamp(-8, 8))
        seen, truth = streams.seen[chosen], streams.truth
        return Prediction(
            encodings,
            torch.where(seen, depth, truth.depth[chosen]),
            torch.where(seen, depth_confidence, 1.0),
            torch.where(seen.unsqueeze(-1), points, truth.points[chosen]),
            torch.where(seen, points_confidence, 1.0),
        )
