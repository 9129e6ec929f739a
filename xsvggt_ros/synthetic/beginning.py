# SPDX-License-Identifier: Apache-2.0
"""What a training begins with: seeded random weights, or what another one has learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor, nn

from xsvggt_ros.errors import CheckpointError
from xsvggt_ros.model.bundled import BUNDLED, NOTICES
from xsvggt_ros.model.checkpoint import assemble, random_network, read_checkpoint
from xsvggt_ros.model.config import NetworkConfig, preset
from xsvggt_ros.model.layers import LayerScale
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.synthetic.guides import Guides
from xsvggt_ros.synthetic.rooms import room_named
from xsvggt_ros.synthetic.training_settings import TrainingSettings
from xsvggt_ros.synthetic.training_state import STATE, load_state

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
        start: directory of another training (or its ``training.pt``), a file of weights, a file on
            the Hugging Face hub as ``owner/name:file``, or ``demo``, the weights that come with the
            package, even where a directory is called so. Empty = random weights.

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

    def digest(self) -> str:
        """Return a digest of all weights."""
        whole = sha256()
        for module in (self.network, self.guides):
            for name, tensor in module.state_dict().items():
                whole.update(name.encode())
                whole.update(tensor.contiguous().numpy().tobytes())
        return whole.hexdigest()


def start_named(start: str) -> str:
    """Return what ``start`` means wherever it is asked from: paths become absolute."""
    if not start or start in NOTICES or _is_on_hub(start):
        return start
    path = Path(start).expanduser()
    return str((path.parent if path.name == STATE else path).resolve())


def _is_on_hub(start: str) -> bool:
    """Return whether ``start`` spells a file on the hub: nothing else is asked of the network."""
    return ":" in start and start[0] not in "/.~" and not Path(start).exists()


def begin(beginning: Beginning) -> Learner:
    """Return what learns.

    Another training gives its averaged weights and its guides, a file its weights alone.

    Raises:
        CheckpointError: ``start`` names nothing to begin with, or something of other sizes.
        ConfigurationError: unknown preset or room.

    """
    learner = Learner(fresh_network(beginning), fresh_guides(beginning))
    if not beginning.start:
        return learner
    start = start_named(beginning.start)
    if start in NOTICES or _is_on_hub(start) or Path(start).is_file():
        read = read_checkpoint(start)
        _take_up_weights(read.tensors, read.config, beginning, learner.network)
    elif Path(start).is_dir():
        _take_up_training(Path(start), beginning, learner)
    else:
        raise CheckpointError(
            f"'{beginning.start}' does not exist; start from the directory of a training, a .pth "
            f"or .safetensors file, a file on the Hugging Face hub as owner/name:file, or "
            f"{BUNDLED}, which comes with the package"
        )
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


def _take_up_training(directory: Path, beginning: Beginning, learner: Learner) -> None:
    state = load_state(directory, torch.device("cpu"))
    if state is None:
        raise CheckpointError(
            f"'{directory}' holds no training to start from; name the directory of one, or weights"
        )
    config = preset(str(state.settings.get("preset", TrainingSettings.preset)))
    _take_up_weights(state.average, config, beginning, learner.network)
    needed, there = learner.guides.state_dict(), state.guides
    differing = [
        name
        for name in {**needed, **there}
        if name not in needed or name not in there or needed[name].shape != there[name].shape
    ]
    if differing:
        room = state.settings.get("room", TrainingSettings.room)
        raise CheckpointError(
            f"the guides of the training in '{directory}', in rooms '{room}', are others than in "
            f"'{beginning.room}': {', '.join(differing)}; start from one in the same kind of room, "
            f"{beginning.room}, or from its weights alone"
        )
    learner.guides.load_state_dict(there)


def _take_up_weights(
    tensors: Mapping[str, Tensor],
    config: NetworkConfig | None,
    beginning: Beginning,
    network: StreamVggt,
) -> None:
    weights = assemble(network.config, tensors)
    if config and config != network.config:
        # The base of the rotary encoding, for instance, shows in no shape.
        raise CheckpointError(
            f"the sizes of '{beginning.start}' are not those of preset '{beginning.preset}'; name "
            "the preset that it was trained with"
        )
    network.load_state_dict(weights.state_dict())
