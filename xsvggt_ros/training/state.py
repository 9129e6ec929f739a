# SPDX-License-Identifier: Apache-2.0
"""The state of a training in files that are small enough to carry, and whether it is the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from xsvggt_ros.errors import CheckpointError, first_line
from xsvggt_ros.geometry.files import replacing

STATE, WEIGHTS = "state.json", "weights.safetensors"
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
