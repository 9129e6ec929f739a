# SPDX-License-Identifier: Apache-2.0
"""Files with weights, local or from the Hugging Face hub, told by what they hold and not by name.

Nothing in a file is ever executed: PyTorch files are read with ``weights_only``. What people have
instead of weights (a pointer of Git LFS, a web page, an archive) is named as what it is.

The official track head is left aside on purpose: while streaming, each frame is its own reference,
so it answers its own queries and nothing is tracked. Its tensors are still checked by name and
shape, so that a wrong file is found out.
"""

from __future__ import annotations

import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xsvggt_ros.errors import CheckpointError, ConfigurationError, first_line
from xsvggt_ros.model.config import BACKBONES, DenseHeadConfig, NetworkConfig, backbone_in
from xsvggt_ros.model.heads import DenseHead

logger = logging.getLogger(__name__)

CONFIG_KEY = "xsvggt_config"
"""Of the metadata of a safetensors file; holds the sizes."""
BACKBONE_KEY = "xsvggt_backbone"
"""Of the same; the name of the published network, for people."""

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
"""Of files with weights."""

WRAPPERS = (
    "model_state_dict", "state_dict", "model", "network", "net", "module", "weights", "params",
    "ema_state_dict", "model_ema", "ema",
)  # fmt: skip
"""Keys under which trainings keep the weights beside other things, the likeliest first."""

_PARTS = ("aggregator.", "camera_head.", "point_head.", "depth_head.", "track_head.")
"""Beginnings of the names of tensors."""

_COMPILED = "_orig_mod."
"""What ``torch.compile`` puts into names."""

_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_HEAD = 4096
_PLAIN = (int, float, str, bool, type(None), list, tuple, bytes)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Tensors by name, and the sizes they belong to where the file says so."""

    tensors: Mapping[str, Tensor]
    config: NetworkConfig | None


def read_weight_file(path: Path) -> Checkpoint:
    """Read tensors from a PyTorch or safetensors file.

    Raises:
        CheckpointError: it is neither, is damaged, or holds no tensors.

    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        size = path.stat().st_size
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be read: {error.strerror}") from error
    if is_safetensors(head, size):
        return _read_safetensors(path)
    if found := _something_else(path, head):
        raise CheckpointError(f"'{path}' holds no weights: {found}")
    if path.suffix.lower() == ".safetensors" and not _is_torch(path, head):
        return _read_safetensors(path)
    return _read_torch(path)


def is_safetensors(head: bytes, size: int) -> bool:
    """Tell by its beginning whether a file of a size is one of safetensors."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def _is_torch(path: Path, head: bytes) -> bool:
    return zipfile.is_zipfile(path) or head.startswith(b"\x80")


def _something_else(path: Path, head: bytes) -> str:
    """Say what a file is that is often taken for weights, and what to do; empty if it is none."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "it is empty; download it again"
    if text.startswith(b"version https://git-lfs"):
        return (
            "it is a pointer of Git LFS, not the file itself; run 'git lfs pull' in its "
            "repository, or download the file from its page"
        )
    if text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        return (
            "it is a web page, not the file; download it from the address that its page gives for "
            "download"
        )
    if text.startswith((b"{", b"[")):
        if b'"weight_map"' in text:
            return "it is the index of weights in several files; join these into one file first"
        return f"it is a text in JSON ({_first_words(head)}); download the weights again"
    for magic, name in (
        (b"gguf", "a GGUF file, whose weights are quantized for other programs"),
        (b"\x93numpy", "an array of NumPy"),
        (b"\x89hdf", "an HDF5 file"),
        (b"\x1f\x8b", "an archive compressed by gzip; unpack it first"),
        (b"7z\xbc\xaf", "an archive of 7-Zip; unpack it first"),
        (b"\xfd7zxz", "an archive compressed by xz; unpack it first"),
    ):
        if head.lower().startswith(magic):
            return f"it is {name}"
    if head[257:262] == b"ustar":
        return "it is a tar archive; unpack it first"
    return _other_archive(path) if head.startswith(b"PK") else ""


def _other_archive(path: Path) -> str:
    """Say what a zip file is that PyTorch did not write as weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return ""  # It is cut off, which its reader says.
    if any(name.endswith("constants.pkl") for name in names):
        return "it is a TorchScript program; save the network's state_dict instead"
    if not any(name.endswith("data.pkl") for name in names):
        listed = ", ".join(names[:3]) or "nothing"
        return f"it is a zip archive (with {listed}); unpack it first"
    return ""


def _first_words(head: bytes) -> str:
    return " ".join(head.decode("utf-8", "replace").split())[:60]


def _read_safetensors(path: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(CONFIG_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        config = NetworkConfig.from_json(text) if text else None
    except (SafetensorError, OSError, ConfigurationError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"'{path}' is not a readable safetensors file: {first_line(error)}; download or "
            "convert it again"
        ) from error
    return Checkpoint(_plainly_named(tensors, path), config)


def _read_torch(path: Path) -> Checkpoint:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            held = _loaded(path)
    except MemoryError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"'{path}' is not a readable PyTorch weight file: {_why(error)}"
        ) from error
    return Checkpoint(_plainly_named(_unwrapped(held, path), path), None)


def _loaded(path: Path) -> Any:
    if path.suffix.lower() == ".safetensors":  # PyTorch itself goes by the name.
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    # Only the zip files of PyTorch 1.6 and later can be mapped instead of read.
    mapped = zipfile.is_zipfile(path)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _why(error: Exception) -> str:
    """Say why PyTorch does not read a file, without its advice to read it unsafely."""
    text = str(error)
    if found := _GLOBAL.search(text):
        return (
            f"it holds Python objects ({found[1]}) beside tensors, and reading these would execute "
            "code; save the network's state_dict alone, where the file comes from"
        )
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in text:
        return "it is damaged, or no file of PyTorch; download it again"
    return f"{first_line(error)}; it is damaged or cut off, download it again"


def _unwrapped(held: Any, path: Path) -> dict[str, Tensor]:
    """Return the tensors of what a training saved, and say where they were found."""
    way: list[str] = []
    while isinstance(held, Mapping) and len(way) < 4:
        inner = next((key for key in WRAPPERS if _holds_tensors(held.get(key))), None)
        if inner is None or any(isinstance(each, Tensor) for each in held.values()):
            break
        way.append(inner)
        held = held[inner]
    if not isinstance(held, Mapping) or not _holds_tensors(held):
        raise CheckpointError(
            f"'{path}' does not hold a plain dictionary of tensors but {_kind(held)}; "
            "save the network's state_dict alone"
        )
    tensors = {str(name): each for name, each in held.items() if isinstance(each, Tensor)}
    others = [str(name) for name, each in held.items() if not isinstance(each, Tensor)]
    if way:
        logger.warning("'%s': the weights are those under '%s'", path, "' / '".join(way))
    if others:
        logger.warning("'%s': left out is what is no tensor: %s", path, ", ".join(others[:5]))
    return tensors


def _holds_tensors(value: Any) -> bool:
    """Tell whether a value holds tensors by name, if only in another wrapper."""
    if not isinstance(value, Mapping) or not value:
        return False
    if any(isinstance(each, Tensor) for each in value.values()):
        return all(isinstance(each, (Tensor, *_PLAIN)) for each in value.values())
    return any(_holds_tensors(value.get(key)) for key in WRAPPERS)


def _kind(held: Any) -> str:
    if isinstance(held, Mapping):
        return f"a dictionary of {', '.join(map(str, list(held)[:5])) or 'nothing'}"
    return type(held).__name__


def _plainly_named(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return tensors by the network's own names, without what wrappers put before them."""
    names = {name: name.replace(_COMPILED, "") for name in tensors}
    prefix = _prefix(list(names.values()))
    plain = {
        short.removeprefix(prefix): tensors[name] for name, short in names.items()
    }  # fmt: skip
    if prefix or len(plain) < len(tensors) or any(name != short for name, short in names.items()):
        if len(plain) < len(tensors):
            return dict(tensors)  # Two would have the same name: the check of names says so.
        taken = prefix or _COMPILED
        logger.warning("'%s': the names of its tensors are taken without '%s'", path, taken)
    return plain


def _prefix(names: list[str]) -> str:
    """Return what stands before the network's own names in all of some."""
    if any(name.startswith(_PARTS) for name in names):
        return ""
    for name in names:
        for part in _PARTS:
            before, found, _ = name.partition(f".{part}")
            if found and all(each.startswith(f"{before}.") for each in names):
                return f"{before}."
    return ""


def files_in(directory: Path) -> list[str]:
    """Return the names of a directory's files with weights."""
    with suppress(OSError):
        return sorted(each.name for each in directory.iterdir() if each.suffix in SUFFIXES)
    return []


_HUB_ID = re.compile(r"^(?P<repository>[\w.-]+/[\w.-]+?)(?::(?P<file>[^:]+))?$")
_FILES = (*SUFFIXES, ".tar", ".zip", ".gz", ".npz", ".onnx", ".gguf")
"""Ends of the names of files, which those of repositories are not taken to have."""

_RETRYING = "huggingface_hub.utils._http"
"""Logger of what the hub's client tries again."""


def is_hub_id(source: str) -> bool:
    """Tell whether a text is ``owner/name`` or ``owner/name:file``, and not the path of a file."""
    match = _HUB_ID.match(source)
    return bool(match and not match["repository"].endswith(_FILES) and source[0] not in "./~")


def download(source: str) -> Path:
    """Return where the file of a hub id lies, after getting it where it is not there yet.

    Raises:
        CheckpointError: it cannot be had; the message says why.

    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    match = _HUB_ID.match(source)
    assert match is not None
    repository = match["repository"]
    backbone = backbone_in(repository)
    file = match["file"] or (backbone or BACKBONES[0]).file
    logger.info("getting %s from %s (kept for the next time, resumed if cut off)", file, repository)
    try:
        with _failing_at_once():
            return Path(hf_hub_download(repository, file))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"checkpoint '{source}' is no local file, and '{file}' could not be had from the "
            f"Hugging Face repository '{repository}': {first_line(error)}; check the name and the "
            "network (HTTPS_PROXY names a proxy), or download the file elsewhere and give its path"
        ) from error


class _FirstFailure(logging.Filter):
    """Turns the first message on a request for a file's address that failed into an error.

    The client would try again for half a minute, and say so in twenty lines, though it has failed
    once before without a message. Downloads that break off are still taken up again.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if "thrown while requesting HEAD" in text:
            raise ConnectionError(text.partition(" thrown while")[0].strip("'"))
        return True


@contextmanager
def _failing_at_once() -> Iterator[None]:
    talkative = logging.getLogger(_RETRYING)
    first = _FirstFailure()
    talkative.addFilter(first)
    try:
        yield
    finally:
        talkative.removeFilter(first)


TRACK_PREFIX = "track_head."

_FEATURES = 128
_HIDDEN = 384
_TOKEN = 3 * _FEATURES + 4
_CORRELATIONS = 7 * 9 * 9
_VIRTUAL_TRACKS = 64
_BLOCKS = 6
"""Sizes of the track head."""


def track_head_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of the track head that belongs to a network of ``config``.

    None where such a network has no track head.
    """
    if "track" not in config.heads:
        return {}
    with torch.device("meta"):
        head = nn.ModuleDict({"feature_extractor": _extractor(config), "tracker": _tracker()})
    return {TRACK_PREFIX + name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}


def _extractor(config: NetworkConfig) -> nn.Module:
    dense = DenseHeadConfig(_FEATURES, config.dense.out_channels, config.dense.layers)
    sizes = {name: getattr(config, name) for name in config.__dataclass_fields__}
    extractor = DenseHead(NetworkConfig(**{**sizes, "dense": dense}), out_channels=1)
    extractor.scratch.output_conv1 = nn.Conv2d(_FEATURES, _FEATURES, 3)
    del extractor.scratch.output_conv2
    return extractor


def _tracker() -> nn.Module:
    tracker = nn.ModuleDict(
        {
            "corr_mlp": _mlp(_CORRELATIONS, _HIDDEN, _FEATURES),
            "updateformer": _update_transformer(),
            "fmap_norm": nn.LayerNorm(_FEATURES),
            "ffeat_norm": nn.GroupNorm(1, _FEATURES),
            "ffeat_updater": nn.Sequential(nn.Linear(_FEATURES, _FEATURES)),
            "vis_predictor": nn.Sequential(nn.Linear(_FEATURES, 1)),
            "conf_predictor": nn.Sequential(nn.Linear(_FEATURES, 1)),
        }
    )
    tracker.register_parameter("query_ref_token", nn.Parameter(torch.empty(1, 2, _TOKEN)))
    return tracker


def _update_transformer() -> nn.Module:
    blocks = {
        "time_blocks": ("attn", ("norm1", "norm2")),
        "space_virtual_blocks": ("attn", ("norm1", "norm2")),
        "space_point2virtual_blocks": ("cross_attn", ("norm1", "norm_context", "norm2")),
        "space_virtual2point_blocks": ("cross_attn", ("norm1", "norm_context", "norm2")),
    }
    former = nn.ModuleDict(
        {
            "input_norm": nn.LayerNorm(_TOKEN),
            "input_transform": nn.Linear(_TOKEN, _HIDDEN),
            "output_norm": nn.LayerNorm(_HIDDEN),
            "flow_head": nn.Linear(_HIDDEN, _FEATURES + 2),
        }
    )
    for name, (attention, norms) in blocks.items():
        former[name] = nn.ModuleList(_block(attention, norms) for _ in range(_BLOCKS))
    # "virual" is the spelling of the official file.
    tracks = nn.Parameter(torch.empty(1, _VIRTUAL_TRACKS, 1, _HIDDEN))
    former.register_parameter("virual_tracks", tracks)
    return former


def _block(attention: str, norms: tuple[str, ...]) -> nn.Module:
    parts: dict[str, nn.Module] = {name: nn.LayerNorm(_HIDDEN) for name in norms}
    parts[attention] = nn.MultiheadAttention(_HIDDEN, num_heads=8)
    parts["mlp"] = _mlp(_HIDDEN, 4 * _HIDDEN, _HIDDEN)
    return nn.ModuleDict(parts)


def _mlp(dim: int, hidden: int, out: int) -> nn.Module:
    return nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, out)})
