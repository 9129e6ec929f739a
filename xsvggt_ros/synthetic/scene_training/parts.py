# SPDX-License-Identifier: Apache-2.0
"""The state of a training in files that are small enough to carry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from xsvggt_ros.errors import CheckpointError, first_line
from xsvggt_ros.geometry.files import replacing

STATE = "state.json"
WEIGHTS = "weights.safetensors"
MOST_BYTES = 15 * 2**20
"""Of one file; carriers take 16 MiB, header included."""


def save_parts(directory: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors in as many files as they need, and facts beside them.

    The facts come last: with the ones of before, the files of before are still complete only if
    none was replaced, so names alternate between two sets.

    Raises:
        OutputError: the directory takes no files.

    """
    path = directory / STATE
    before = json.loads(path.read_text(encoding="utf-8"))["files"] if path.exists() else []
    letter = "b" if before and before[0].startswith("part-a") else "a"
    names = []
    for index, group in enumerate(_groups(tensors)):
        names.append(f"part-{letter}{index}.safetensors")
        save_file(
            {k: v.detach().cpu().contiguous() for k, v in group.items()}, directory / names[-1]
        )
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
