# SPDX-License-Identifier: Apache-2.0
"""Operations with kernels in Triton, and whether these can run here.

Triton comes with PyTorch's CUDA builds, needs a GPU of compute capability 7.0 or newer, and
compiles at run time, for which it needs a C compiler. Where any of that is missing, the operations
of this package run as plain PyTorch instead.

An operation is one call to PyTorch's dispatcher. It has a definition in plain PyTorch, a kernel for
CUDA, and a function that only tells shapes, so that a step can be counted and checked on the meta
device. Its signature is declared once, in Python; the dispatcher's schema is made from it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, get_type_hints

import torch
from torch import Tensor

from xsvggt_ros.errors import first_line

logger = logging.getLogger(__name__)

_OLDEST = (7, 0)

_LIBRARY = torch.library.Library("xsvggt", "FRAGMENT")
_SCHEMA_TYPES = {
    Tensor: "Tensor", Tensor | None: "Tensor?", list[Tensor]: "Tensor[]", int: "int",
    list[int]: "int[]", float: "float", bool: "bool", torch.dtype: "ScalarType",
    tuple[Tensor, Tensor]: "(Tensor, Tensor)",
    tuple[Tensor, Tensor, Tensor]: "(Tensor, Tensor, Tensor)", type(None): "()",
}  # fmt: skip
"""What the dispatcher calls the types of parameters and results."""


def register_operation(
    definition: Callable[..., Any],
    *,
    kernels: str,
    shapes: Callable[..., Any] = lambda *arguments: None,
    writes: Collection[str] = (),
    takes: Callable[..., Any] | None = None,
) -> None:
    """Make ``torch.ops.xsvggt`` know an operation, by the name of its definition.

    Args:
        definition: in plain PyTorch; its annotated parameters are the operation's. Called
            ``<name>_in_torch``.
        kernels: module that launches it on CUDA, in a function called ``<name>`` that takes what
            ``definition`` does; imported where Triton runs.
        shapes: returns empty tensors of the results' shapes.
        writes: names of the parameters that are written to.
        takes: for operations with many parameters, a named tuple of them: ``definition`` and kernel
            are handed one of these instead.

    """
    name = definition.__name__.removesuffix("_in_torch")

    def on_cuda(*arguments: Any) -> Any:
        device = next(each for each in arguments if isinstance(each, Tensor)).device
        if not triton_runs(device):
            return in_torch(*arguments)
        return as_declared(getattr(import_module(kernels), name))(*arguments)

    def as_declared(function: Callable[..., Any]) -> Callable[..., Any]:
        return function if takes is None else lambda *arguments: function(takes(*arguments))

    in_torch = as_declared(definition)
    _LIBRARY.define(name + _schema(takes or definition, definition, writes))
    _LIBRARY.impl(name, in_torch, "CompositeExplicitAutograd")
    _LIBRARY.impl(name, on_cuda, "CUDA")
    _LIBRARY.impl(name, shapes, "Meta")


def _schema(
    declared: Callable[..., Any], returning: Callable[..., Any], writes: Collection[str]
) -> str:
    """Return the dispatcher's signature of what takes the parameters of ``declared``."""
    marks = {name: f"({chr(ord('a') + place)}!)" for place, name in enumerate(writes)}
    parameters = [
        f"{_SCHEMA_TYPES[kind]}{marks.get(name, '')} {name}"
        for name, kind in get_type_hints(declared).items()
        if name != "return"
    ]
    return f"({', '.join(parameters)}) -> {_SCHEMA_TYPES[get_type_hints(returning)['return']]}"


def triton_runs(device: torch.device) -> bool:
    """Return whether Triton kernels run on ``device``; the first call for a GPU tries one."""
    if device.type != "cuda":
        return False
    index = device.index if device.index is not None else torch.cuda.current_device()
    return why_not(index) == ""


@cache
def why_not(index: int) -> str:
    """Return why Triton kernels do not run on GPU ``index``; empty where they do."""
    reason = _missing(index) or _failure(index)
    if reason:
        logger.warning(
            "no Triton kernels on GPU %d: %s; PyTorch's own operations are used, which is slower",
            index, reason,
        )  # fmt: skip
    return reason


def _missing(index: int) -> str:
    if find_spec("triton") is None:
        return "the package triton is not installed (it comes with PyTorch's CUDA builds)"
    capability = torch.cuda.get_device_capability(index)
    if capability < _OLDEST:
        return f"its compute capability {capability[0]}.{capability[1]} is below 7.0"
    return ""


def _failure(index: int) -> str:
    """Compile and run a small kernel; return what went wrong."""
    try:
        from xsvggt_ros.triton_probe import doubled

        with torch.cuda.device(index):
            found = doubled(torch.ones(4, device=f"cuda:{index}"))
        return "" if bool((found == 2).all()) else "a trial kernel gives wrong results"
    except Exception as error:  # noqa: BLE001 - a compiler fails in many ways, and none may end a node
        return f"a trial kernel cannot be compiled ({first_line(error)}); install a C compiler"
