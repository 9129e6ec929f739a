# SPDX-License-Identifier: Apache-2.0
"""What trainings have in common: a fresh network, its losses, optimiser and averaged weights.

Losses follow VGGT's recipe for depth, points and cameras (arXiv 2503.11651, 3.4).
"""

from __future__ import annotations

import copy
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.model.checkpoint import random_network, save_network
from xsvggt_ros.model.config import NetworkConfig, preset
from xsvggt_ros.model.heads import inverse_encoding
from xsvggt_ros.model.layers import CausalSequence, LayerScale
from xsvggt_ros.model.network import Prediction, StreamVggt
from xsvggt_ros.synthetic.cameras import Truth

WEIGHTS = "weights.safetensors"
"""File of a training's averaged weights."""

LAYER_SCALE = 0.5
"""Gain of each residual branch at first. The architecture's own 0.01 suits a pretrained encoder;
from random weights it would leave the transformer asleep for thousands of steps."""

_TOKENS = ("_token", "_tokens", "pos_embed")


def fresh_network(name: str, seed: int) -> StreamVggt:
    """Return a network of a preset with seeded random weights that learns from the first step.

    Raises:
        ConfigurationError: an unknown preset.

    """
    network = random_network(preset(name), seed)
    for module in network.modules():
        if isinstance(module, LayerScale):
            nn.init.constant_(module.gamma, LAYER_SCALE)
    return network


def optimizer_for(
    named: Iterable[tuple[str, nn.Parameter]],
    learning_rate: float | Tensor,
    weight_decay: float,
    *,
    fused: bool = False,
) -> torch.optim.AdamW:
    """Return AdamW that decays matrices, not gains, biases and tokens.

    Args:
        named: parameters with their names; those without gradients are left out.
        learning_rate: at first; as a tensor, steps can be captured as a CUDA graph.
        weight_decay: of matrices.
        fused: whether a step is one kernel, which skips by itself what is not finite.

    """
    trained = [(name, each) for name, each in named if each.requires_grad]
    matrices = [each for name, each in trained if each.ndim >= 2 and not name.endswith(_TOKENS)]
    others = [each for name, each in trained if each.ndim < 2 or name.endswith(_TOKENS)]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=learning_rate,
        betas=(0.9, 0.98),
        eps=1e-8,
        fused=fused or None,
        capturable=isinstance(learning_rate, Tensor),
    )


def cosine(share: float, floor: float) -> float:
    """Return half a cosine from 1 down to ``floor`` as ``share`` goes from 0 to 1."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of all parameters, in place where it is a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def update_average(average: nn.Module, network: nn.Module, step: int, decay: float) -> None:
    """Move averaged weights towards the present ones after a step; faster in the first steps.

    Args:
        average: changed.
        network: of the same parameters.
        step: number of steps done.
        decay: share of the old average, later on.

    """
    share = 1 - min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        mean: list[Tensor] = list(average.parameters())
        present: list[Tensor] = list(network.parameters())
        torch._foreach_lerp_(mean, present, share)


GRADIENT_SCALES = (1, 2, 4)
"""Pixels between the two ends of a difference."""

ITERATION_DECAY = 0.6
"""Weight of a refinement of the camera against the next one."""


@dataclass(frozen=True)
class LossWeights:
    """What the parts of the loss weigh, and how dear confidence is (``alpha``).

    ``huber`` is about as large as a step between two frames, some hundredths of the scene: a much
    larger one would square such errors away, and standing still would cost next to nothing.
    ``auxiliary`` weighs the auxiliary heads.
    """

    depth: float = 1.0
    points: float = 1.0
    camera: float = 1.0
    alpha: float = 0.2
    huber: float = 0.05
    auxiliary: float = 2.0


def spelled_for(config: NetworkConfig, truth: Truth) -> Truth:
    """Return a truth whose cameras are in the pose convention of a network."""
    if config.pose_convention == "world_to_camera":
        return truth
    return replace(truth, encodings=inverse_encoding(truth.encodings))


def dense_loss(error: Tensor, confidence: Tensor, alpha: float) -> Tensor:
    """Return the mean of confidence * |error| - alpha * log(confidence), with gradients.

    Args:
        error: prediction minus truth, [..., H, W, C].
        confidence: [..., H, W], from 1 upwards.
        alpha: what a unit of log confidence earns.

    """
    size = error.norm(dim=-1) if error.shape[-1] > 1 else error[..., 0].abs()
    value = (confidence * size - alpha * confidence.log()).mean()
    return value + gradient_loss(error, confidence)


def gradient_loss(error: Tensor, confidence: Tensor) -> Tensor:
    """Return confidence * |difference of the error [..., H, W, C] between pixels|, over scales.

    Zero where the error is the same everywhere: edges must lie in their places.
    """
    values = []
    for step in GRADIENT_SCALES:
        if min(error.shape[-3:-1]) <= step:
            continue
        across = (error[..., step:, :] - error[..., :-step, :]).abs().mean(dim=-1)
        down = (error[..., step:, :, :] - error[..., :-step, :, :]).abs().mean(dim=-1)
        values.append((across * confidence[..., step:]).mean())
        values.append((down * confidence[..., step:, :]).mean())
    return torch.stack(values).mean() if values else error.new_zeros(())


def nearer_sign(truth: Tensor, encodings: Tensor) -> Tensor:
    """Return true cameras [..., 9] whose quaternions have the sign that is nearer to the encodings.

    A quaternion and its negative are one rotation. If one of both were wanted, the best answer to a
    camera that looks back, where the sign flips, would lie between them and be no rotation at all.
    """
    turns = slice(3, 7)
    opposite = (truth[..., turns] * encodings[..., turns]).sum(dim=-1, keepdim=True) < 0
    quaternions = torch.where(opposite, -truth[..., turns], truth[..., turns])
    return torch.cat([truth[..., :3], quaternions, truth[..., 7:]], dim=-1)


def camera_loss(encodings: Tensor, truth: Tensor, delta: float) -> Tensor:
    """Return the Huber loss of cameras, later refinements weighing more.

    Args:
        encodings: [B, F, iterations, 9].
        truth: [B, F, 9].
        delta: error from which on the loss grows linearly; it is divided by delta, so that its
            slope is 1 there.

    """
    iterations = encodings.shape[2]
    wanted = nearer_sign(truth.unsqueeze(2).expand_as(encodings), encodings)
    each = functional.huber_loss(encodings, wanted, reduction="none", delta=delta) / delta
    weight = ITERATION_DECAY ** torch.arange(iterations - 1, -1, -1, device=encodings.device)
    per_iteration = each.sum(dim=-1).mean(dim=(0, 1))
    return (per_iteration * weight).sum() / weight.sum()


def losses(
    prediction: Prediction, truth: Truth, weights: LossWeights, dense: slice = slice(None)
) -> dict[str, Tensor]:
    """Return the parts of the loss, and their weighted sum as ``total``.

    Args:
        prediction: of the network.
        truth: normalised.
        weights: of the parts.
        dense: streams of which depth and points were predicted.

    """
    parts: dict[str, Tensor] = {}
    total = truth.depth.new_zeros(())
    if prediction.depth is not None and prediction.depth_confidence is not None:
        error = (prediction.depth - truth.depth[dense]).unsqueeze(-1)
        parts["depth"] = dense_loss(error, prediction.depth_confidence, weights.alpha)
        total = total + weights.depth * parts["depth"]
    if prediction.points is not None and prediction.points_confidence is not None:
        error = prediction.points - truth.points[dense]
        parts["points"] = dense_loss(error, prediction.points_confidence, weights.alpha)
        total = total + weights.points * parts["points"]
    if prediction.pose_encodings is not None:
        parts["camera"] = camera_loss(prediction.pose_encodings, truth.encodings, weights.huber)
        total = total + weights.camera * parts["camera"]
    return {**parts, "total": total}


class AuxiliaryHeads(nn.Module, ABC):
    """Readings of the aggregator's layers that learn beside the network."""

    @property
    @abstractmethod
    def layers(self) -> set[int]:
        """Layers that are read."""


Heads = TypeVar("Heads", bound=AuxiliaryHeads)


class Learning(Generic[Heads]):
    """A network that learns beside auxiliary heads, and the average of its weights.

    Attributes:
        network: learns.
        auxiliary: learns with it.
        average: what is saved and measured.
        aggregator: of the network, compiled or not.
        optimizer: of both, see :func:`optimizer_for`.
        step: steps done.

    """

    def __init__(
        self,
        network: StreamVggt,
        auxiliary: Heads,
        device: torch.device,
        learning_rate: float | Tensor,
        weight_decay: float,
        *,
        bfloat16: bool,
        fused: bool = False,
    ) -> None:
        """Begin at step 0, with the weights as they are.

        Args:
            network: moves to ``device``.
            auxiliary: likewise.
            device: where all of it happens.
            learning_rate: as :func:`optimizer_for` takes it.
            weight_decay: likewise.
            bfloat16: whether the aggregator computes in it.
            fused: as :func:`optimizer_for` takes it.

        """
        self.device = device
        self.network = network.to(device).train()
        self.auxiliary = auxiliary.to(device)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimizer = optimizer_for(
            self.parameters().items(), learning_rate, weight_decay, fused=fused
        )
        self.aggregator: Callable[..., dict[int, Tensor]] = self.network.aggregator
        self.step = 0
        self._bfloat16 = bfloat16

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return all that learns, by name."""
        return {
            f"{part}.{name}": each
            for part, module in (("network", self.network), ("auxiliary", self.auxiliary))
            for name, each in module.named_parameters()
            if each.requires_grad
        }

    def aggregated(self, images: Tensor, memory: CausalSequence) -> dict[int, Tensor]:
        """Return what the layers that anything reads make of whole streams, float32.

        Args:
            images: [streams, frames, 3, height, width].
            memory: of the streams.

        """
        config = self.network.config
        layers = self.auxiliary.layers | {config.depth - 1, *config.dense.layers}
        if not self._bfloat16:
            return self.aggregator(images, memory, layers)
        with torch.autocast(self.device.type, torch.bfloat16):
            outputs = self.aggregator(images, memory, layers)
        return {layer: each.float() for layer, each in outputs.items()}

    def encodings(self, outputs: dict[int, Tensor], memory: CausalSequence) -> Tensor:
        """Return the cameras that the camera head reads, [streams, frames, iterations, 9]."""
        tokens = outputs[self.network.config.depth - 1][:, :, 0]
        found: Tensor = self.network.camera_head(tokens, memory)
        return found

    def with_auxiliary(
        self, parts: dict[str, Tensor], read: Tensor, weights: LossWeights
    ) -> dict[str, Tensor]:
        """Return the parts of a loss with that of the auxiliary heads, which ``total`` counts too.

        Args:
            parts: of :func:`losses`.
            read: loss of the auxiliary heads.
            weights: of the parts.

        """
        return {**parts, "auxiliary": read, "total": parts["total"] + weights.auxiliary * read}

    def clear_gradients(self) -> None:
        """Free the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def follow(self, decay: float) -> None:
        """Let the average follow the weights after a step."""
        update_average(self.average, self.network, self.step, decay)

    def save_average(self, directory: Path) -> Path:
        """Write the averaged weights in half precision into a directory; return the file."""
        half = copy.deepcopy(self.average).half().cpu()
        return save_network(half, directory / WEIGHTS)


class Ranks:
    """What this process is among those that learn together; alone where nobody started others.

    Attributes:
        rank: number of this process, from 0.
        count: of processes.

    """

    def __init__(self, device: torch.device) -> None:
        """Meet the others, if ``torchrun`` says that there are any.

        Args:
            device: where this process learns; NCCL joins GPUs, Gloo joins CPUs.

        Raises:
            ConfigurationError: there are others, and this PyTorch cannot join processes.

        """
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0")) if self.count > 1 else 0
        self._device = device
        if self.count == 1:
            return
        if not distributed.is_available():
            raise ConfigurationError(
                "this PyTorch was built without torch.distributed; start a single process"
            )
        if device.type == "cuda":
            torch.cuda.set_device(device)
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")

    @property
    def first(self) -> bool:
        """Whether this process says, measures and writes for all."""
        return self.rank == 0

    def average(self, gradients: Sequence[Tensor | None]) -> None:
        """Make gradients, of any shapes, the means over all processes, in one exchange."""
        if self.count == 1:
            return
        there = [each for each in gradients if each is not None]
        flat = torch.cat([each.flatten() for each in there])
        distributed.all_reduce(flat)
        flat /= self.count
        for each, part in zip(there, flat.split([g.numel() for g in there]), strict=True):
            each.copy_(part.view_as(each))

    def agreed(self, progress: float, goes_on: bool) -> tuple[float, bool]:
        """Return the first process's progress, and whether all continue."""
        if self.count == 1:
            return progress, goes_on
        facts = torch.tensor([progress, float(goes_on)], dtype=torch.float64, device=self._device)
        distributed.broadcast(facts, 0)
        return float(facts[0]), bool(facts[1])

    def end(self) -> None:
        """Leave the others."""
        if self.count > 1 and distributed.is_initialized():
            distributed.destroy_process_group()


def device_of_rank(device: torch.device) -> torch.device:
    """Return the GPU of this process, where ``torchrun`` started several on one machine."""
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device
