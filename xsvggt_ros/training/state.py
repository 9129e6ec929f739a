# SPDX-License-Identifier: Apache-2.0
"""The state of a training in files that are small enough to carry, and whether it is the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from xsvggt_ros.errors import CheckpointError, first_line
from xsvggt_ros.geometry.files import replacing
from xsvggt_ros.model.checkpoint import assemble, read_checkpoint
from xsvggt_ros.model.config import NOTICES, NetworkConfig, preset
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.paths import in_home
from xsvggt_ros.synthetic.rooms import room_named
from xsvggt_ros.training.auxiliary_heads import RoomHeads
from xsvggt_ros.training.learning import WEIGHTS, fresh_network
from xsvggt_ros.training.settings import TrainingSettings

STATE = "state.json"
MOST_BYTES = 15 * 2**20
"""Of one file; carriers take 16 MiB, header included."""


@dataclass(frozen=True)
class State:
    """A training on rooms as it was saved.

    ``settings`` and ``data`` are ``TrainingSettings`` and ``DataSettings`` as dictionaries,
    ``start_digest`` is the digest of the weights that it started from, empty for random ones.
    """

    step: int
    skipped: int
    settings: dict[str, Any]
    network: dict[str, Tensor]
    auxiliary: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    data: dict[str, Any] = field(default_factory=dict)
    start_digest: str = ""


_MODULES = ("network", "auxiliary", "average")


def save_state(directory: Path, state: State) -> None:
    """Write the state, whole or not at all; raise OutputError where that fails."""
    tensors = {
        f"{module}.{name}": tensor
        for module in _MODULES
        for name, tensor in getattr(state, module).items()
    }
    for index, moments in state.optimizer["state"].items():
        tensors |= {f"optimizer.{index}.{name}": each for name, each in moments.items()}
    facts = {
        each.name: getattr(state, each.name)
        for each in fields(state)
        if each.name not in (*_MODULES, "optimizer")
    }
    save_parts(directory, tensors, {**facts, "groups": state.optimizer["param_groups"]})


def load_state(directory: Path, device: torch.device) -> State | None:
    """Return the state that lies in a directory, None where there is none.

    Raises:
        CheckpointError: it is damaged, or that of a training on scenes.

    """
    found = load_parts(directory, device)
    if found is None:
        return None
    tensors, facts = found
    if "settings" not in facts or "groups" not in facts:
        raise CheckpointError(
            f"'{directory}' holds a training on scenes; give its recipe to continue it, or take "
            "another directory"
        )
    modules: dict[str, dict[str, Tensor]] = {name: {} for name in _MODULES}
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        module, _, name = key.partition(".")
        if module == "optimizer":
            index, _, name = name.partition(".")
            moments.setdefault(int(index), {})[name] = tensor
        else:
            modules[module][name] = tensor
    return State(
        step=facts["step"],
        skipped=facts["skipped"],
        settings=facts["settings"],
        optimizer={"state": moments, "param_groups": facts["groups"]},
        data=facts["data"],
        start_digest=facts["start_digest"],
        **modules,
    )


def save_parts(directory: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors in as many files as they need, and facts beside them.

    The facts come last: with the ones of before, the files of before are still complete only if
    none was replaced, so names alternate between two sets.

    Raises:
        OutputError: the directory takes no files; the state of before is still there then.

    """
    path = directory / STATE
    before = json.loads(path.read_text(encoding="utf-8"))["files"] if path.exists() else []
    letter = "b" if before and before[0].startswith("part-a") else "a"
    names = []
    for index, group in enumerate(_groups(tensors)):
        names.append(f"part-{letter}{index}.safetensors")
        part = {name: each.detach().cpu().contiguous() for name, each in group.items()}
        with replacing(directory / names[-1]) as stream:
            stream.write(save(part))
    with replacing(path) as stream:
        stream.write(json.dumps({**facts, "files": names}, indent=1).encode())
    for name in before:
        (directory / name).unlink(missing_ok=True)


def _groups(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    groups: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if size + tensor.nbytes > MOST_BYTES and groups[-1]:
            groups.append({})
            size = 0
        groups[-1][name] = tensor
        size += tensor.nbytes
    return groups


def load_parts(
    directory: Path, device: torch.device
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return what :func:`save_parts` wrote, or None where nothing lies.

    Raises:
        CheckpointError: it is damaged.

    """
    if not (directory / STATE).exists():
        return None
    try:
        facts = json.loads((directory / STATE).read_text(encoding="utf-8"))
        tensors: dict[str, Tensor] = {}
        for name in facts["files"]:
            tensors.update(load_file(directory / name, device=str(device)))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"'{directory}' holds no complete training ({first_line(error)}); bring all of its "
            "files, or name another directory to start again"
        ) from error
    return tensors, facts


def differences(saved: Mapping[str, Any], asked: Any) -> list[str]:
    """Return in words what was saved otherwise than it is asked for.

    What was saved before a field existed counts as saved with its default.

    Args:
        saved: what ``asdict`` made of a dataclass like ``asked``.
        asked: a dataclass of numbers, texts, tuples and dataclasses.

    """
    before = dict(_leaves(_completed(saved, asked)))
    now = dict(_leaves(asdict(asked)))
    return [
        f"{name} was {_in_words(before, name)}, is {_in_words(now, name)}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]


def _completed(saved: Mapping[str, Any], asked: Any) -> dict[str, Any]:
    """Return what was saved, with the defaults of fields that it lacks, without unknown ones."""
    whole: dict[str, Any] = {}
    for each in fields(asked):
        now = getattr(asked, each.name)
        if each.name not in saved:
            whole[each.name] = _default(each)
        elif is_dataclass(now):
            whole[each.name] = _completed(saved[each.name], now)
        elif isinstance(now, tuple) and now and is_dataclass(now[0]):
            whole[each.name] = tuple(_completed(one, now[0]) for one in saved[each.name])
        else:
            whole[each.name] = saved[each.name]
    return whole


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        value = field.default_factory()
        return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    return None if field.default is MISSING else field.default


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what cannot be taken apart any more, by dotted name."""
    if isinstance(value, Mapping):
        parts: Any = value.items()
    elif isinstance(value, (tuple, list)) and value and isinstance(value[0], Mapping):
        parts = enumerate(value)
    else:
        yield name, tuple(value) if isinstance(value, list) else value
        return
    for key, part in parts:
        yield from _leaves(part, f"{name}.{key}" if name else str(key))


def _in_words(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return "nothing" if value is None or value == "" else str(value)


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
    path = in_home(start)
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
    if start not in NOTICES and Path(start).is_dir():
        _start_from_training(Path(start), settings, learner)
    else:
        load_weights(settings.start, settings.preset, learner.network)
    return learner


def load_weights(start: str, preset_name: str, network: StreamVggt) -> None:
    """Give a network the weights that ``start`` names; of another training, the averaged ones.

    Args:
        start: see StartSettings.
        preset_name: sizes of the network.
        network: takes them.

    Raises:
        CheckpointError: ``start`` names no weights, or those of other sizes.

    """
    source = resolved_start(start)
    named = source in NOTICES or _is_on_hub(source)
    if not named and (Path(source) / WEIGHTS).is_file():
        source = str(Path(source) / WEIGHTS)
    elif not named and not Path(source).is_file():
        lacking = "holds no weights" if Path(source).exists() else "does not exist"
        raise CheckpointError(
            f"'{start}' {lacking}; start from the directory of a training, a .pth or .safetensors "
            f"file, a file on the Hugging Face hub as owner/name:file, or what comes with the "
            f"package: {', '.join(NOTICES)}"
        )
    read = read_checkpoint(source)
    _start_from_weights(read.tensors, read.config, start, preset_name, network)


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
    _start_from_weights(state.average, config, settings.start, settings.preset, learner.network)
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
    start: str,
    preset_name: str,
    network: StreamVggt,
) -> None:
    weights = assemble(network.config, tensors)
    if config and config != network.config:
        # The base of the rotary encoding, for instance, shows in no shape.
        raise CheckpointError(
            f"the sizes of '{start}' are not those of preset '{preset_name}'; name "
            "the preset that it was trained with"
        )
    network.load_state_dict(weights.state_dict())
