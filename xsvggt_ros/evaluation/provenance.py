# SPDX-License-Identifier: Apache-2.0
"""What made the numbers of a run: machine, software, weights, data, and what it warned of."""

from __future__ import annotations

import hashlib
import logging
import platform
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from xsvggt_ros.installation import version
from xsvggt_ros.model.config import (
    NOTICES,
    bundled_weights,
    named_weights,
    weights_in_words,
)
from xsvggt_ros.model.device import stored_bytes, stored_parts
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.paths import in_home

PACKAGES = ("torch", "numpy", "scipy", "opencv-python-headless", "rosbags", "matplotlib")

MOST_HASHED_FILES = 20_000
EDGE = 2**20
"""Bytes hashed at the beginning and at the end of each file of a source, beside its size."""


def software() -> dict[str, Any]:
    """Return versions of this package and of what the numbers depend on."""
    return {
        "xsvggt_ros": version(),
        "commit": _commit(),
        "python": platform.python_version(),
        **{name: _installed(name) for name in PACKAGES},
    }


def machine(device: torch.device) -> dict[str, Any]:
    """Return what computed."""
    described = {
        "system": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": str(device),
    }
    if device.type == "cuda":
        described["gpu"] = torch.cuda.get_device_name(device)
        described["cuda"] = str(torch.version.cuda)
    return described


def weights(network: StreamVggt, checkpoint: str, preset: str | None = None) -> dict[str, Any]:
    """Return which weights ran, with a hash: of the file where there is one, else of all tensors.

    Args:
        network: as it ran.
        checkpoint: as on the command line; empty = the bundled ones, or random ones of a preset.
        preset: sizes of the network, None = the weights' own.

    """
    name = named_weights(checkpoint, preset)
    path = bundled_weights(name) if name in NOTICES else in_home(name)
    on_disk = path.is_file()
    return {
        "name": weights_in_words(checkpoint, preset),
        "random": not name,
        "parameters": sum(each.numel() for each in network.parameters()),
        "bytes": weights_bytes(network),
        "dtype": str(network.dtype).removeprefix("torch."),
        "hash_of": "file" if on_disk else "tensors",
        "sha256": _file_hash(path) if on_disk else _tensor_hash(network),
    }


def weights_bytes(network: StreamVggt) -> int:
    """Return the bytes of all parameters and buffers."""
    tensors = (*network.parameters(), *network.buffers())
    return sum(stored_bytes(each) for each in tensors)


def data(path: str) -> dict[str, Any]:
    """Return files, bytes and a hash of a source on disk; of one that is not, nothing.

    The hash is over names, sizes, and the first and last MiB of each file (of the first 20 000
    files in the order of their names), because recordings may take longer to read than to evaluate.
    """
    location = in_home(path)
    if not location.exists():
        return {}
    files = (
        [location] if location.is_file() else sorted(p for p in location.rglob("*") if p.is_file())
    )
    digest = hashlib.sha256()
    for each in files[:MOST_HASHED_FILES]:
        name = each.name if location.is_file() else each.relative_to(location).as_posix()
        digest.update(f"{name} {each.stat().st_size}\n".encode())
        _hash_edges(each, digest)
    return {
        "path": str(location.absolute()),
        "files": len(files),
        "bytes": sum(each.stat().st_size for each in files),
        "sha256_of_edges": digest.hexdigest(),
    }


def _hash_edges(path: Path, digest: Any) -> None:
    with path.open("rb") as stream:
        digest.update(stream.read(EDGE))
        size = path.stat().st_size
        if size > EDGE:
            stream.seek(max(EDGE, size - EDGE))
            digest.update(stream.read())


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**22):
            digest.update(block)
    return digest.hexdigest()


def _tensor_hash(network: StreamVggt) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        for part in stored_parts(tensor.detach()):
            values = part.cpu().contiguous()
            digest.update(values.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _commit() -> str | None:
    """Return the commit of the checkout that runs, with ``+changes`` where files differ from it."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return None
    return commit + ("+changes" if _git(root, "status", "--porcelain", "-uno") else "")


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            # Looking must not write: git would refresh its index, and leave a lock when killed.
            ["git", "--no-optional-locks", "-C", str(root), *arguments],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


MOST = 50
"""Different warnings kept; of more, only the number is told."""

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class WarningLog(logging.Handler):
    """Keeps warnings of this package; those that differ in numbers only count as the same."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._first: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._beyond = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record of the log."""
        self.note(record.getMessage())

    def note(self, text: str) -> None:
        """Take a warning that did not come through the log."""
        kind = _NUMBER.sub("#", text)
        if kind not in self._first and len(self._first) >= MOST:
            self._beyond += 1
            return
        self._first.setdefault(kind, text)
        self._counts[kind] = self._counts.get(kind, 0) + 1

    def knows(self, text: str) -> bool:
        """Tell whether a warning has come already, if only with other numbers."""
        return _NUMBER.sub("#", text) in self._first

    def lines(self) -> list[str]:
        """Return the warnings in the order in which they first came."""
        lines = [
            text if self._counts[kind] == 1 else f"{text} ({self._counts[kind]} times in all)"
            for kind, text in self._first.items()
        ]
        if self._beyond:
            lines.append(f"{self._beyond} more warnings of other kinds; run with --debug for all")
        return lines


@contextmanager
def collecting_warnings() -> Iterator[WarningLog]:
    """Yield a log of what this package warns of meanwhile."""
    log = WarningLog()
    logger = logging.getLogger("xsvggt_ros")
    logger.addHandler(log)
    try:
        yield log
    finally:
        logger.removeHandler(log)
