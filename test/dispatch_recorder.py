# SPDX-License-Identifier: Apache-2.0
"""Records what PyTorch executes, to see whether a step waits for its device."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = {
    "aten::_local_scalar_dense",
    "aten::item",
    "aten::nonzero",
    "aten::masked_select",
    "aten::unique",
    "aten::_unique2",
    "aten::equal",
}
"""Operations that make the host wait for the device."""


class Recorder(TorchDispatchMode):
    """Records each operation, the shapes of its results, and the bytes of new ones."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: list[tuple[str, list[tuple[int, ...]]]] = []
        self.allocated = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        results = [
            each
            for each in (result if isinstance(result, (tuple, list)) else [result])
            if isinstance(each, torch.Tensor)
        ]
        self.operations.append((func._schema.name, [tuple(each.shape) for each in results]))
        known = {arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, torch.Tensor)}
        for each in results:
            if each.untyped_storage().data_ptr() not in known:
                self.allocated += each.nbytes
        return result
