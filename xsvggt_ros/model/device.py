# SPDX-License-Identifier: Apache-2.0
"""Where a network runs, and what it computes in: dtypes by name, TF32, and weights of 8 bits."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from xsvggt_ros.errors import ConfigurationError, first_line


def free_host_memory() -> int:
    """Return the bytes that a program may take without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        rows = dict(line.split(":", 1) for line in lines)
        return int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def resident_memory() -> int:
    """Return the bytes of this process that are in memory, 0 where nobody tells."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


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


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that may be allocated on ``device``, None where nobody knows."""
    if device.type == "cuda":
        # What PyTorch has reserved and does not use is free as well.
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + idle
    return free_host_memory() if device.type == "cpu" else None


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` says that there is no memory left, on a GPU or on the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # The CPU's allocator has no error of its own.
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def used_memory(device: torch.device) -> int:
    """Return the bytes that this process has taken on ``device``; on the host, its resident set."""
    if device.type == "cuda":
        return int(torch.cuda.memory_reserved(device))
    return resident_memory()


def release_cached_memory() -> None:
    """Return to the system what PyTorch holds on a GPU and nobody uses."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DTYPE_NAMES = (AUTO, *DTYPES)
WEIGHTS = ("full", "int8_camera", "int8")
"""How linear layers are stored: as the dtype says; with 8 bits in the camera head; everywhere."""

BFLOAT16_CAPABILITY = (8, 0)


def dtype_named(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the aggregator.

    ``auto`` = bfloat16 where CUDA computes in it (compute capability 8.0 and later), float16 on
    older cards, float32 everywhere else.

    Raises:
        ConfigurationError: no such dtype.

    """
    if name != AUTO:
        return _named(name)
    if device.type != "cuda":
        return torch.float32
    capability = torch.cuda.get_device_capability(device)
    return torch.bfloat16 if capability >= BFLOAT16_CAPABILITY else torch.float16


def heads_dtype_named(name: str) -> torch.dtype:
    """Return the dtype of the heads; ``auto`` = float32, see :func:`choose_arithmetic`.

    Raises:
        ConfigurationError: no such dtype.

    """
    return torch.float32 if name == AUTO else _named(name)


def _named(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise ConfigurationError(
            f"dtype '{name}' is unknown; choose one of {', '.join(DTYPE_NAMES)}"
        )
    return DTYPES[name]


def takes_tf32(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether float32 is multiplied as TF32, beside an aggregator of ``dtype``."""
    return device.type == "cuda" and dtype != torch.float32


def choose_arithmetic(device: torch.device, dtype: torch.dtype) -> None:
    """Decide for this process how CUDA multiplies float32: as TF32, or in full.

    Beside an aggregator in a half type the heads' float32 layers may use TF32, which has the
    mantissa of float16 and the range of float32: what it adds is below what the half type costs.
    Who asks for float32 gets float32. cuDNN does not try its algorithms out, because which one wins
    changes from run to run, and with it the last digits.
    """
    if device.type != "cuda":
        return
    fast = takes_tf32(device, dtype)
    torch.set_float32_matmul_precision("high" if fast else "highest")
    torch.backends.cudnn.allow_tf32 = fast
    torch.backends.cudnn.benchmark = False


def check_weights(weights: str) -> None:
    """Raise ConfigurationError where linear layers cannot be stored as ``weights`` says."""
    if weights not in WEIGHTS:
        raise ConfigurationError(
            f"weights '{weights}' are unknown; choose one of {', '.join(WEIGHTS)}"
        )
    if weights != "full" and find_spec("torchao") is None:
        raise ConfigurationError(
            f"model.weights {weights} needs the package torchao, which is not installed; "
            "pip install 'xsvggt_ros[int8]', or choose full"
        )


def quantize_weights(network: nn.Module, camera_head: nn.Module, weights: str) -> None:
    """Store linear layers with 8 bits, a grid for each output channel; they compute as before.

    Args:
        network: all of it.
        camera_head: the part that reads most bytes for least arithmetic.
        weights: one of :data:`WEIGHTS`.

    Raises:
        ConfigurationError: torchao cannot quantize here.

    """
    check_weights(weights)
    if weights == "full":
        return
    part = camera_head if weights == "int8_camera" else network
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        quantize_(part, Int8WeightOnlyConfig(), filter_fn=lambda m, _: isinstance(m, nn.Linear))
    except (ImportError, RuntimeError, NotImplementedError) as error:
        raise ConfigurationError(
            f"torchao cannot store the weights with 8 bits: {first_line(error)}; take the torchao "
            f"that goes with torch {torch.__version__}, or choose model.weights full"
        ) from error


def stored_bytes(tensor: Tensor) -> int:
    """Return the bytes that a tensor of any shape takes, of a quantized one those of its parts."""
    return sum(part.numel() * part.element_size() for part in stored_parts(tensor))


def stored_parts(tensor: Tensor) -> list[Tensor]:
    """Return the plain tensors that one of any shape is made of: itself, or its quantized parts."""
    if not is_quantized(tensor):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    return [part for name in names for part in stored_parts(getattr(tensor, name))]


def is_quantized(tensor: Tensor) -> bool:
    """Return whether a tensor of any shape is one of torchao's."""
    return hasattr(tensor, "__tensor_flatten__")
