# SPDX-License-Identifier: Apache-2.0
"""Where a network runs."""

from __future__ import annotations

import torch

from xsvggt_ros.errors import ConfigurationError, first_line

AUTO = "auto"


def device_named(name: str) -> torch.device:
    """Return the device called ``name`` as PyTorch spells it; ``auto`` = a GPU where there is one.

    Raises:
        ConfigurationError: this build of PyTorch, or this machine, has no such device.

    """
    if name == AUTO:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigurationError(
            f"device '{name}' cannot be used with torch {torch.__version__}: "
            f"{first_line(error)}; use 'cpu', or install a torch build for it"
        ) from error
    return device
