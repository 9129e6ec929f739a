# SPDX-License-Identifier: Apache-2.0
"""What a training starts from: seeded random weights, or what another one has learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from xsvggt_ros.errors import CheckpointError
from xsvggt_ros.model.bundled import BUNDLED, NOTICES
from xsvggt_ros.model.checkpoint import assemble, read_checkpoint
from xsvggt_ros.model.config import NetworkConfig, preset
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.synthetic.rooms import room_named
from xsvggt_ros.training.auxiliary_heads import RoomHeads
from xsvggt_ros.training.optimization import fresh_network
from xsvggt_ros.training.settings import TrainingSettings
from xsvggt_ros.training.state import STATE, load_state


@dataclass(frozen=True)
class StartSettings:
    """What a training starts from.

    Attributes:
        preset: sizes of the network.
        room: kind of room; some have auxiliary heads of their own.
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
    auxiliary: RoomHeads

    def digest(self) -> str:
        """Return a digest of all weights."""
        whole = sha256()
        for module in (self.network, self.auxiliary):
            for name, tensor in module.state_dict().items():
                whole.update(name.encode())
                whole.update(tensor.contiguous().numpy().tobytes())
        return whole.hexdigest()


def resolved_start(start: str) -> str:
    """Return what ``start`` means wherever it is asked from: paths become absolute."""
    if not start or start in NOTICES or _is_on_hub(start):
        return start
    path = Path(start).expanduser()
    return str((path.parent if path.name == STATE else path).resolve())


def _is_on_hub(start: str) -> bool:
    """Return whether ``start`` spells a file on the hub: nothing else is asked of the network."""
    return ":" in start and start[0] not in "/.~" and not Path(start).exists()


def load_start(settings: StartSettings) -> Learner:
    """Return what learns.

    Another training gives its averaged weights and its auxiliary heads, a file its weights alone.

    Raises:
        CheckpointError: ``start`` names nothing to start from, or something of other sizes.
        ConfigurationError: unknown preset or room.

    """
    learner = Learner(fresh_network(settings.preset, settings.seed), fresh_auxiliary(settings))
    if not settings.start:
        return learner
    start = resolved_start(settings.start)
    if start in NOTICES or _is_on_hub(start) or Path(start).is_file():
        read = read_checkpoint(start)
        _start_from_weights(read.tensors, read.config, settings, learner.network)
    elif Path(start).is_dir():
        _start_from_training(Path(start), settings, learner)
    else:
        raise CheckpointError(
            f"'{settings.start}' does not exist; start from the directory of a training, a .pth "
            f"or .safetensors file, a file on the Hugging Face hub as owner/name:file, or "
            f"{BUNDLED}, which comes with the package"
        )
    return learner


def fresh_auxiliary(settings: StartSettings) -> RoomHeads:
    """Return seeded auxiliary heads."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed + 1)
        return RoomHeads(preset(settings.preset), room=room_named(settings.room).chart)


def _start_from_training(directory: Path, settings: StartSettings, learner: Learner) -> None:
    state = load_state(directory, torch.device("cpu"))
    if state is None:
        raise CheckpointError(
            f"'{directory}' holds no training to start from; name the directory of one, or weights"
        )
    config = preset(str(state.settings.get("preset", TrainingSettings.preset)))
    _start_from_weights(state.average, config, settings, learner.network)
    needed, there = learner.auxiliary.state_dict(), state.auxiliary
    differing = [
        name
        for name in {**needed, **there}
        if name not in needed or name not in there or needed[name].shape != there[name].shape
    ]
    if differing:
        room = state.settings.get("room", TrainingSettings.room)
        raise CheckpointError(
            f"the training in '{directory}' has other auxiliary heads, for rooms '{room}', than "
            f"'{settings.room}': {', '.join(differing)}; start from one in the same kind of room, "
            f"{settings.room}, or from its weights alone"
        )
    learner.auxiliary.load_state_dict(there)


def _start_from_weights(
    tensors: Mapping[str, Tensor],
    config: NetworkConfig | None,
    settings: StartSettings,
    network: StreamVggt,
) -> None:
    weights = assemble(network.config, tensors)
    if config and config != network.config:
        # The base of the rotary encoding, for instance, shows in no shape.
        raise CheckpointError(
            f"the sizes of '{settings.start}' are not those of preset '{settings.preset}'; name "
            "the preset that it was trained with"
        )
    network.load_state_dict(weights.state_dict())
