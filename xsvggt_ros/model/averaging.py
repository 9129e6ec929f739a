# SPDX-License-Identifier: Apache-2.0
"""The average of two sets of weights, one of which was trained on from the other.

Networks on one way of training lie in one valley, and what lies between them is often better than
either (model soups, arXiv 2203.05482).
"""

from __future__ import annotations

from functools import reduce
from pathlib import Path

import torch

from xsvggt_ros.errors import CheckpointError, ConfigurationError
from xsvggt_ros.model.checkpoint import assemble, read_checkpoint, save_network, sizes_of


def average_checkpoints(
    first: str, second: str, share: float, destination: str | Path, *, preset: str | None = None
) -> Path:
    """Write ``(1 - share) * first + share * second`` as safetensors, as precise as the first.

    Args:
        first: a file, a Hugging Face id, or ``demo``.
        second: the same, of the same sizes.
        share: of the second, 0 to 1.
        destination: the .safetensors file; it appears whole or not at all.
        preset: sizes, where neither carries them.

    Raises:
        CheckpointError: weights that are not of the same sizes or cannot be read, or a destination
            that cannot be written; an average beyond the first one's precision.
        ConfigurationError: a share outside 0 to 1.

    """
    if not 0 <= share <= 1:
        raise ConfigurationError(f"share is {share}; it must be from 0 to 1")
    one, other = read_checkpoint(first), read_checkpoint(second)
    if one.config and other.config and one.config != other.config:
        raise CheckpointError(
            f"'{first}' and '{second}' have different sizes; only weights of one network that was "
            "trained on can be averaged"
        )
    sized, name = (one, first) if one.config else (other, second)
    config = sizes_of(sized, preset, name)
    network, towards = assemble(config, one.tensors), assemble(config, other.tensors)
    with torch.no_grad():
        for own, its in zip(network.parameters(), towards.parameters(), strict=True):
            own.lerp_(its, share)
    dtype = reduce(torch.promote_types, (one.tensors[name].dtype for name in network.state_dict()))
    if not all(bool(each.isfinite().all()) for each in network.to(dtype).parameters()):
        raise CheckpointError(
            f"the average of '{first}' and '{second}' has numbers beyond {dtype}; name weights of "
            "a wider precision first"
        )
    return save_network(network, destination)
