# SPDX-License-Identifier: Apache-2.0
"""The optimiser of a training, and its learning rate."""

from __future__ import annotations

import math

import torch
from torch import nn

from xsvggt_ros.synthetic.training_settings import TrainingSettings

_TOKENS = ("_token", "_tokens", "pos_embed")


def learning_rate_at(settings: TrainingSettings, step: int) -> float:
    """Return the rate of a step: a linear rise, then half a cosine down to a hundredth."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    span = max(settings.steps - settings.warmup, 1)
    share = min((step - settings.warmup) / span, 1.0)
    return settings.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def optimizer_for(modules: list[nn.Module], settings: TrainingSettings) -> torch.optim.AdamW:
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
