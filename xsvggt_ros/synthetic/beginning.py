# SPDX-License-Identifier: Apache-2.0
"""What a training begins with: seeded random weights, or what another one has learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from xsvggt_ros.errors import CheckpointError, first_line
from xsvggt_ros.model.checkpoint import assemble, random_network, read_checkpoint
from xsvggt_ros.model.config import preset
from xsvggt_ros.model.layers import LayerScale
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.synthetic.guides import Guides
from xsvggt_ros.synthetic.rooms import room_named
from xsvggt_ros.synthetic.training_state import load_state

LAYER_SCALE = 0.5
"""Gain of each residual branch at first. The architecture's own 0.01 suits a pretrained encoder;
from random weights it would leave the transformer asleep for thousands of steps."""


@dataclass(frozen=True)
class Beginning:
    """What a training begins with.

    Attributes:
        preset: sizes of the network.
        room: kind of room; guides know their way about some.
        seed: of what is random.
        start: folder of another training, or weights as ``load_network`` takes them; empty = none.

    """

    preset: str
    room: str
    seed: int
    start: str = ""


@dataclass(frozen=True)
class Learner:
    """What learns, on the CPU, in float32."""

    network: StreamVggt
    guides: Guides


def begin(beginning: Beginning) -> Learner:
    """Return what learns.

    Another training gives its averaged weights and its guides, a file its weights alone.

    Raises:
        CheckpointError: ``start`` names nothing to begin with, or something of other sizes.
        ConfigurationError: unknown preset or room.

    """
    learner = Learner(fresh_network(beginning), fresh_guides(beginning))
    if Path(beginning.start).is_dir() and beginning.start:
        _take_up_training(Path(beginning.start), beginning, learner)
    elif beginning.start:
        _take_up_weights(read_checkpoint(beginning.start).tensors, learner.network)
    return learner


def fresh_network(beginning: Beginning) -> StreamVggt:
    """Return a network with seeded random weights that learns from the first step."""
    network = random_network(preset(beginning.preset), beginning.seed)
    for module in network.modules():
        if isinstance(module, LayerScale):
            nn.init.constant_(module.gamma, LAYER_SCALE)
    return network


def fresh_guides(beginning: Beginning) -> Guides:
    """Return seeded guides."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(beginning.seed + 1)
        return Guides(preset(beginning.preset), room=room_named(beginning.room).chart)


def _take_up_training(folder: Path, beginning: Beginning, learner: Learner) -> None:
    state = load_state(folder, torch.device("cpu"))
    if state is None:
        raise CheckpointError(
            f"'{folder}' holds no training to start from; name the folder of one, or weights"
        )
    _take_up_weights(state.average, learner.network)
    try:
        learner.guides.load_state_dict(state.guides)
    except RuntimeError as error:
        raise CheckpointError(
            f"the guides of the training in '{folder}' do not fit ({first_line(error)}); start "
            f"from one in the same kind of room, {beginning.room}, or from its weights alone"
        ) from error


def _take_up_weights(tensors: Mapping[str, Tensor], network: StreamVggt) -> None:
    network.load_state_dict(assemble(network.config, tensors).state_dict())
