# SPDX-License-Identifier: Apache-2.0
"""What trainings have in common: how a network starts, its optimiser, its rate, its average."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from xsvggt_ros.model.checkpoint import random_network
from xsvggt_ros.model.config import preset
from xsvggt_ros.model.layers import LayerScale
from xsvggt_ros.model.network import StreamVggt

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
