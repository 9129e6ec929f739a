# SPDX-License-Identifier: Apache-2.0
"""Where a network runs, if nobody says where."""

from __future__ import annotations

import torch

AUTO = "auto"


def device_named(name: str) -> str:
    """Return ``name``, or for ``auto`` the GPU where there is one and the CPU otherwise."""
    if name != AUTO:
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
