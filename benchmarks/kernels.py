# SPDX-License-Identifier: Apache-2.0
"""What the Triton kernels of a frame take of a card: compiled for it without having one.

    python benchmarks/kernels.py                       # for all cards in CARDS
    python benchmarks/kernels.py --capabilities 9.0 --policy balanced --bits 2

Frames of the official size run on the meta device until the budget is full, and whatever they would
launch on a GPU is compiled by Triton and NVIDIA's assembler, as the machine code of a card of that
compute capability. So a kernel that does not compile, asks for more shared memory than there
is, or has to keep its numbers in memory because registers run short (it is slow then) is found on
any computer with Linux. Nothing is computed, and nothing is timed.

Columns: launches in the last frame, variants that are compiled, and the most that one of these
takes: registers of a thread, bytes of shared memory, bytes of a thread that no register is left
for.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from launches import network_of
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from xsvggt_ros.cache import measuring_kernels
from xsvggt_ros.cache.kv_cache import KvCache
from xsvggt_ros.cache.settings import DEFAULT_POLICY, POLICIES, CacheSettings
from xsvggt_ros.cuda import LAUNCHERS, attention, attention_kernels, early_start
from xsvggt_ros.model import kernels as network_kernels
from xsvggt_ros.model.config import NetworkConfig
from xsvggt_ros.model.device import BFLOAT16_CAPABILITY
from xsvggt_ros.stream.step_runner import cache_layout

CARDS = {
    (7, 5): ("RTX 20, T4", 64),
    (8, 0): ("A100", 163),
    (8, 6): ("RTX 30", 99),
    (8, 7): ("Jetson Orin", 163),
    (8, 9): ("RTX 40", 99),
    (9, 0): ("H100, H200", 227),
    (10, 0): ("B200", 227),
    (11, 0): ("Jetson Thor", 227),
    (12, 0): ("RTX 50", 99),
}
"""Cards of a compute capability, and the KiB of shared memory that a program may have there
(CUDA C++ Programming Guide, technical specifications per compute capability)."""

SIZE = (392, 518)
"""Height and width of the images."""

_RUN = JITFunction.run

Capability = tuple[int, int]


def shared_bytes(capability: Capability) -> int:
    """Return the most shared memory that a program may have there."""
    return 1024 * CARDS[capability][1]


@dataclass
class Kernel:
    """What the compiled variants of a kernel take at most; see this file's head."""

    name: str
    launches: int = 0
    variants: int = 0
    registers: int = 0
    shared_bytes: int = 0
    spilled_bytes: int = 0


class Target:
    """Says to Triton that there is a card of ``capability``."""

    def __init__(self, capability: Capability) -> None:
        self._number = 10 * capability[0] + capability[1]

    def get_current_device(self) -> int:
        """Return a number of its own, for Triton keeps kernels by it."""
        return self._number

    def get_current_stream(self, device: int) -> int:
        """Return the only stream there is."""
        return 0

    def get_current_target(self) -> GPUTarget:
        """Return what is compiled for."""
        return GPUTarget("cuda", self._number, 32)


class Launching(TorchDispatchMode):
    """Has the operations of this package launch their kernels, whatever the device."""

    def __init__(self, attends: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._attends = attends

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        """Launch one operation, or leave it to PyTorch."""
        name = function._schema.name.removeprefix("xsvggt::")
        if function.namespace != "xsvggt" or (name == "attend" and not self._attends):
            return function(*arguments, **(named or {}))
        return LAUNCHERS[name](*arguments)


class Compiler:
    """Compiles instead of launching."""

    def __init__(self) -> None:
        self.launches: Counter[str] = Counter()
        self._compiled: dict[str, tuple[str, Any]] = {}

    def run(self, function: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        """Stand in for ``JITFunction.run``, which ``warmup`` keeps from launching."""
        compiled = _RUN(function, *arguments, grid=grid, warmup=True, **options)
        name = function.fn.__name__.removeprefix("_")
        self._compiled[compiled.hash] = name, compiled
        self.launches[name] += 1
        return compiled

    def kernels(self) -> list[Kernel]:
        """Return what was compiled so far, by name."""
        found: dict[str, Kernel] = {}
        for name, compiled in self._compiled.values():
            kernel = found.setdefault(name, Kernel(name, self.launches[name]))
            registers, spilled = resources(compiled.asm["cubin"])
            kernel.variants += 1
            kernel.registers = max(kernel.registers, registers)
            kernel.shared_bytes = max(kernel.shared_bytes, compiled.metadata.shared)
            kernel.spilled_bytes = max(kernel.spilled_bytes, spilled)
        return [found[name] for name in sorted(found)]


def resources(machine_code: bytes) -> tuple[int, int]:
    """Return registers of a thread, and bytes that none is left for, of one kernel."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(machine_code)
        file.flush()
        listed = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", listed)
    assert found is not None, listed
    registers, stack, local = map(int, found.groups())
    return registers, stack + local


@contextmanager
def compiling_for(capability: Capability) -> Iterator[Compiler]:
    """Compile for a card of ``capability`` whatever is launched inside."""
    compiler = Compiler()
    early = mock.Mock(return_value=capability >= early_start.OLDEST)
    room = mock.Mock(return_value=shared_bytes(capability))

    def run(function: Any, *arguments: Any, **named: Any) -> Any:
        return compiler.run(function, *arguments, **named)

    with ExitStack() as stack:
        for where, name, instead in (
            (measuring_kernels, "can_start_early", early),
            (network_kernels, "can_start_early", early),
            (attention_kernels, "shared_memory", room),
            (JITFunction, "run", run),
            (driver, "_active", Target(capability)),
        ):
            stack.enter_context(mock.patch.object(where, name, instead))
        stack.enter_context(Launching(capability >= attention.OLDEST))
        yield compiler


@torch.inference_mode()
def compile_frames(capability: Capability, settings: CacheSettings) -> list[Kernel]:
    """Return the kernels of frames that fill the budget; launches are those of the last one."""
    dtype = torch.bfloat16 if capability >= BFLOAT16_CAPABILITY else torch.float16
    network = network_of(NetworkConfig(), dtype, torch.float32)
    network.camera_head.store_in_float16()
    memory = KvCache(settings, cache_layout(network))
    image = torch.empty(1, 1, 3, *SIZE, device="meta")
    with compiling_for(capability) as compiler:
        # Two frames more than fill the budget: the last one is like all that follow.
        for _ in range(settings.budget_tokens // network.config.tokens_per_frame(*SIZE) + 3):
            compiler.launches.clear()
            network(image, memory)
            memory.end_frame()
        return compiler.kernels()


def table(kernels: list[Kernel]) -> str:
    """Return the kernels as Markdown, one in a line."""
    lines = [
        "| kernel | launches | variants | registers | shared memory, bytes | spilled, bytes |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for each in kernels:
        lines.append(
            f"| {each.name} | {each.launches} | {each.variants} | {each.registers} | "
            f"{each.shared_bytes} | {each.spilled_bytes} |"
        )
    total = sum(each.launches for each in kernels)
    return "\n".join([*lines, f"| all | {total} | | | | |"])


def capability_of(text: str) -> Capability:
    """Return what ``8.7`` says.

    Raises:
        argparse.ArgumentTypeError: a capability whose shared memory this benchmark does not know.

    """
    major, _, minor = text.partition(".")
    numbers = (int(major), int(minor)) if (major + minor).isdigit() and minor else None
    if numbers not in CARDS:
        known = ", ".join(f"{first}.{second}" for first, second in CARDS)
        raise argparse.ArgumentTypeError(f"compute capability {text} is not known; use {known}")
    return numbers


def main() -> None:
    """Compile and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--capabilities", nargs="+", type=capability_of, default=list(CARDS))
    parser.add_argument("--policy", choices=POLICIES, default=DEFAULT_POLICY)
    parser.add_argument("--bits", type=int, choices=(2, 4, 8, 16), default=4)
    parser.add_argument("--budget", type=int, default=8192, help="tokens per layer")
    parser.add_argument("--camera-frames", type=int, default=CacheSettings().camera_frames)
    parser.add_argument("--json", type=Path, help="file for all numbers")
    options = parser.parse_args()
    bits = 16 if options.policy == "none" else options.bits
    settings = CacheSettings(
        options.policy, budget_tokens=options.budget, key_bits=bits, value_bits=bits,
        camera_frames=options.camera_frames,
    )  # fmt: skip
    found: dict[str, Any] = {}
    for capability in options.capabilities:
        kernels = compile_frames(capability, settings)
        name, room = CARDS[capability]
        number = ".".join(map(str, capability))
        found[number] = {
            "shared_bytes": shared_bytes(capability),
            "kernels": [asdict(each) for each in kernels],
        }
        print(f"{name}: compute capability {number}, {room} KiB of shared memory\n")
        print(f"{table(kernels)}\n", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
