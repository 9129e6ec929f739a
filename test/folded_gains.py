# SPDX-License-Identifier: Apache-2.0
"""What loading a network for inference makes of its gains."""

from __future__ import annotations

import torch


def folded(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What inference makes of the gains: the linear layer before each is multiplied by it."""
    result = dict(state)
    for name in state:
        if not name.endswith("gamma"):
            continue
        block, which, _ = name.rsplit(".", 2)
        layer = f"{block}.{'attn.proj' if which == 'ls1' else 'mlp.fc2'}"
        result[f"{layer}.weight"] = state[f"{layer}.weight"] * state[name][:, None]
        result[f"{layer}.bias"] = state[f"{layer}.bias"] * state[name]
        result[name] = torch.ones_like(state[name])
    return result
