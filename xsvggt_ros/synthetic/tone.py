# SPDX-License-Identifier: Apache-2.0
"""The tone curve of the made-up camera, and its inverse."""

from __future__ import annotations

import torch
from torch import Tensor

_STEEPNESS = 1.9
_GAMMA = 2.2


def develop(light: Tensor, exposure: Tensor | float = 1.0) -> Tensor:
    """Turn linear light [..., 3] into RGB in [0, 1], as a camera does: shoulder, then gamma."""
    return (1 - torch.exp(-_STEEPNESS * exposure * light)).clamp(0, 1) ** (1 / _GAMMA)


def light_for(image: Tensor) -> Tensor:
    """Return the linear light [..., 3] that :func:`develop` turns into RGB in [0, 1)."""
    return -torch.log1p(-(image**_GAMMA)) / _STEEPNESS
