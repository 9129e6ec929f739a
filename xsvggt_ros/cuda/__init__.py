# SPDX-License-Identifier: Apache-2.0
"""What only CUDA has: operations with Triton kernels, and work beside other work in a CUDA graph.

**Triton** comes with PyTorch's CUDA builds, needs a GPU of compute capability 7.0 or newer, and
compiles at run time, for which it needs a C compiler. Where any of that is missing, the operations
of this package run as plain PyTorch instead.

An operation is one call to PyTorch's dispatcher. It has a definition in plain PyTorch, a kernel for
CUDA, and a function that only tells shapes, so that a step can be counted and checked on the meta
device. The definition's signature is the one declaration; the dispatcher's schema is made from it.

**Side streams.** Many parts of a step are too small to fill a GPU, and wait for nothing that is
computed meanwhile. While a step is captured, such a part is recorded on a stream of its own, so
that the graph runs it at the same time as what follows. Everywhere else it runs in its turn: eager
steps are bound by the host, and there memory that one stream frees could be given to another too
early.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, wraps
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, ParamSpec, TypeVar, get_type_hints

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

LAUNCHERS: dict[str, Callable[..., Any]] = {}
"""By name, what launches the kernels of an operation; takes single arguments."""

P = ParamSpec("P")
R = TypeVar("R")


def operation(
    *,
    kernels: str,
    shapes: Callable[..., Any] = lambda *arguments: None,
    writes: Collection[str] = (),
    where: Callable[[Tensor], bool] | None = None,
    in_torch: Callable[..., Any] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function one call to PyTorch's dispatcher, known to it by the function's name.

    The function is the definition, in plain PyTorch, and its annotated parameters are the
    operation's; where it takes a named tuple instead, the tuple's fields are.

    Args:
        kernels: module that launches it on CUDA, in a function of the same name and parameters;
            imported where Triton runs.
        shapes: returns empty tensors of the results' shapes; takes single arguments.
        writes: names of the parameters that are written to.
        where: by its first tensor, whether a call goes to the dispatcher, or to the definition
            itself; None = always to the dispatcher.
        in_torch: runs off CUDA and without Triton instead of the definition, with its parameters.

    """

    def register(definition: Callable[P, R]) -> Callable[P, R]:
        name = definition.__name__
        hints = get_type_hints(definition)
        result = hints.pop("return")
        (only, *others) = hints.values()
        given = only if not others and hasattr(only, "_fields") else None

        def taking_all(function: Callable[..., Any]) -> Callable[..., Any]:
            return (lambda *arguments: function(given(*arguments))) if given else function

        def launch(*arguments: Any) -> Any:
            return taking_all(getattr(import_module(kernels), name))(*arguments)

        def on_cuda(*arguments: Any) -> Any:
            device = _first_tensor(arguments).device
            if not triton_runs(device):
                return defined(*arguments)
            with torch.cuda.device(device):  # Triton launches on the current one
                return launch(*arguments)

        defined = taking_all(in_torch or definition)
        LAUNCHERS[name] = launch
        _LIBRARY.define(name + _schema(get_type_hints(given) if given else hints, result, writes))
        _LIBRARY.impl(name, defined, "CompositeExplicitAutograd")
        _LIBRARY.impl(name, on_cuda, "CUDA")
        _LIBRARY.impl(name, shapes, "Meta")
        dispatched = getattr(torch.ops.xsvggt, name)

        @wraps(definition)
        def call(*arguments: P.args, **named: P.kwargs) -> R:
            single: Any = arguments[0] if given else arguments
            if where is not None and not where(_first_tensor(single)):
                return definition(*arguments, **named)
            found: R = dispatched(*single, **named)
            return found

        return call

    return register


def _first_tensor(arguments: Iterable[Any]) -> Tensor:
    for each in arguments:  # a loop, which torch.compile can follow
        if isinstance(each, Tensor):
            return each
    raise TypeError("an operation takes at least one tensor")


def _schema(parameters: Mapping[str, Any], result: Any, writes: Collection[str]) -> str:
    """Return the dispatcher's signature of annotated parameters."""
    marks = {name: f"({chr(ord('a') + place)}!)" for place, name in enumerate(writes)}
    listed = [
        f"{_SCHEMA_TYPES[kind]}{marks.get(name, '')} {name}" for name, kind in parameters.items()
    ]
    return f"({', '.join(listed)}) -> {_SCHEMA_TYPES[result]}"


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
        from xsvggt_ros.cuda.attention_kernels import doubled

        with torch.cuda.device(index):
            found = doubled(torch.ones(4, device=f"cuda:{index}"))
        return "" if bool((found == 2).all()) else "a trial kernel gives wrong results"
    except torch.OutOfMemoryError:  # says nothing about Triton; the next call tries again
        raise
    except Exception as error:  # noqa: BLE001 - a compiler fails in many ways, and none may end a node
        return f"a trial kernel cannot be compiled ({first_line(error)}); install a C compiler"


Kind = Literal["camera head", "dense heads", "cache"]
"""Kinds of work that may run beside the rest, and beside each other."""

PRIORITY: dict[Kind, int] = {"camera head": -1, "dense heads": 0, "cache": 0}
"""Of their streams; the least goes first. The camera head is a long row of small kernels, each of
which would wait for a place beside those of the dense heads."""


class SideStreams:
    """Streams beside the one that is captured: one for each kind of work.

    A network has them, and hands them to its caches. Whoever forks keeps every tensor that the
    forked work reads alive until :meth:`join`. What it makes may be read after that, until the same
    kind is forked again, whose work could be given its memory.
    """

    def __init__(self) -> None:
        """Begin with nothing to wait for."""
        self._streams: dict[Kind, torch.cuda.Stream] = {}
        self._forked: set[Kind] = set()

    @contextmanager
    def fork(self, kind: Kind) -> Iterator[None]:
        """Run what is inside beside what follows, up to :meth:`join`; in its turn if not capturing.

        It may use all results of before.
        """
        if not capturing():
            yield
            return
        if kind not in self._streams:
            self._streams[kind] = torch.cuda.Stream(priority=PRIORITY[kind])
        stream = self._streams[kind]
        stream.wait_stream(torch.cuda.current_stream())
        self._forked.add(kind)
        with torch.cuda.stream(stream):
            yield

    def join(self, kind: Kind) -> None:
        """Let what follows use the results of what was forked."""
        if kind in self._forked:
            torch.cuda.current_stream().wait_stream(self._streams[kind])
            self._forked.remove(kind)

    def forget(self) -> None:
        """Have nothing to wait for: the capture that was forked from has failed."""
        self._forked.clear()


def capturing() -> bool:
    """Return whether a CUDA graph is being captured by this thread's stream."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
