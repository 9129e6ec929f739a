# SPDX-License-Identifier: Apache-2.0
"""Reading and writing weights, strictly.

Four kinds of source: a PyTorch file (read with ``weights_only``: nothing in it is executed), a
safetensors file, a repository on the Hugging Face hub, or the file that comes with the package.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from xsvggt_ros.errors import CheckpointError, ConfigurationError, first_line
from xsvggt_ros.model.bundled import BUNDLED, NOTICES, bundled_weights, named_weights
from xsvggt_ros.model.config import NetworkConfig
from xsvggt_ros.model.config import preset as named_preset
from xsvggt_ros.model.device import device_named
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.model.track_head import track_head_shapes

logger = logging.getLogger(__name__)

OFFICIAL_REPOSITORY = "lch01/StreamVGGT"
OFFICIAL_FILE = "checkpoints.pth"
LICENCE_NOTICE = (
    "The official StreamVGGT weights are licensed CC BY-NC-SA 4.0: non-commercial use only."
)
_CONFIG_KEY = "xsvggt_config"
_NAMES_SHOWN = 8
_TABLES = ("_token", "_tokens", "pos_embed")
_HUB_ID = re.compile(r"^(?P<repository>[\w.-]+/[\w.-]+?)(?::(?P<file>[^:]+))?$")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Tensors by name, and the sizes they belong to where the file says so."""

    tensors: Mapping[str, Tensor]
    config: NetworkConfig | None


def load_network(
    checkpoint: str,
    *,
    preset: str | None = None,
    device: str = "auto",
    dtype: str = "float32",
    heads_dtype: str = "float32",
    seed: int = 0,
) -> StreamVggt:
    """Return a network ready for inference.

    Args:
        checkpoint: file, Hugging Face id (``owner/name`` or ``owner/name:file``), or ``demo``, the
            weights that come with the package. Empty: random ones of ``preset`` where one is named,
            else ``demo``.
        preset: name of the sizes, for a file that does not carry them; the official ones by
            default.
        device: as PyTorch spells it, or ``auto``.
        dtype: ``float32``, ``bfloat16`` or ``float16``, of the aggregator.
        heads_dtype: the same, of the heads.
        seed: of the random weights.

    Raises:
        CheckpointError: the file cannot be had or read, or is not of this network.
        ConfigurationError: unknown preset, dtype or device, or a device without room.

    """
    precisions = _dtype(dtype), _dtype(heads_dtype)
    place = device_named(device)
    if name := named_weights(checkpoint, preset):
        loaded = read_checkpoint(name)
        config = sizes_of(loaded, preset, name)
        network = assemble(config, loaded.tensors, *precisions)
        if name in NOTICES:
            logger.warning(NOTICES[name])
        elif config == NetworkConfig() and not name.startswith(OFFICIAL_REPOSITORY):
            logger.warning(LICENCE_NOTICE)
    else:
        network = random_network(named_preset(preset or ""), seed).set_precision(*precisions)
        logger.warning(
            "no checkpoint given: the weights are random (preset '%s', seed %d), so poses, depth "
            "and points mean nothing; set the checkpoint to a file or a Hugging Face id",
            preset,
            seed,
        )
    try:
        return network.eval().requires_grad_(False).to(place)
    except torch.OutOfMemoryError as error:
        raise ConfigurationError(
            f"the weights do not fit on device '{place}': {first_line(error)}; free "
            f"memory there, or choose bfloat16 instead of {dtype}"
        ) from error


def random_network(config: NetworkConfig, seed: int) -> StreamVggt:
    """Return a network with seeded random float32 weights on the CPU, the start of a training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = StreamVggt(config)
        for name, parameter in network.named_parameters():
            if name.endswith(_TABLES):
                nn.init.trunc_normal_(parameter, std=0.02)
    head = network.camera_head
    with torch.no_grad():
        # The refinements add up: start near the identity rotation and one radian of view, since a
        # field of view below zero is cut off and would get no gradient.
        head.pose_branch.fc2.bias[6:] = 1.0 / head.iterations
    return network


def sizes_of(loaded: Checkpoint, preset: str | None, source: str) -> NetworkConfig:
    """Return the sizes that the file carries, else those of the preset, else the official ones."""
    asked = named_preset(preset) if preset else None
    if loaded.config and asked and loaded.config != asked:
        raise ConfigurationError(
            f"'{source}' carries its own sizes, and they are not those of preset '{preset}'; leave "
            "the preset out"
        )
    return loaded.config or asked or NetworkConfig()


def assemble(
    config: NetworkConfig,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float32,
    heads_dtype: torch.dtype = torch.float32,
) -> StreamVggt:
    """Build a network from ``tensors``, each copied once, straight into its precision.

    Copied, because tensors of a file may be a view of it: whoever overwrites the file would change
    or kill a running network.

    Raises:
        CheckpointError: with all missing, unexpected and mis-shaped names, or the tensors that are
            no finite floating-point numbers.

    """
    with torch.device("meta"):
        network = StreamVggt(config)
    check_names(config, network, tensors)
    needed = network.set_precision(dtype, heads_dtype).state_dict()
    unusable = [name for name in needed if not _is_usable(tensors[name])]
    if unusable:
        raise CheckpointError(
            f"{len(unusable)} tensors are not finite floating-point numbers: {_some(unusable)}; "
            "the weights are damaged, or quantized: take others"
        )
    own = {name: tensors[name].to(t.dtype, copy=True) for name, t in needed.items()}
    network.load_state_dict(own, assign=True)
    return network


def _is_usable(tensor: Tensor) -> bool:
    plain = tensor.is_floating_point() and tensor.layout is torch.strided and not tensor.is_meta
    return plain and bool(torch.isfinite(tensor).all())


def check_names(config: NetworkConfig, network: StreamVggt, tensors: Mapping[str, Tensor]) -> None:
    """Compare names and shapes strictly; the track head may be absent, but not partly or wrong.

    Raises:
        CheckpointError: with all missing, unexpected and mis-shaped names.

    """
    needed = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    aside = track_head_shapes(config)
    known = {**needed, **aside}
    whole = known if any(name in tensors for name in aside) else needed
    missing = [name for name in whole if name not in tensors]
    unexpected = [name for name in tensors if name not in known]
    misshaped = [
        f"{name} {list(tensor.shape)} instead of {list(known[name])}"
        for name, tensor in tensors.items()
        if name in known and tuple(tensor.shape) != known[name]
    ]
    if missing or unexpected or misshaped:
        raise CheckpointError(
            "these weights are not of this network: "
            + "; ".join(
                f"{len(names)} {kind}: {_some(names)}"
                for kind, names in (
                    ("missing", missing),
                    ("unexpected", unexpected),
                    ("of another shape", misshaped),
                )
                if names
            )
            + f". {len(tensors)} tensors were read, {len(needed)} are needed; choose the preset "
            "that the weights were made for, or other weights"
        )


def read_checkpoint(source: str) -> Checkpoint:
    """Read tensors from a file, the hub or the package; raise CheckpointError with the remedy."""
    path = bundled_weights(source) if source in NOTICES else Path(source).expanduser()
    if not path.exists():
        path = _download(source)
    if path.is_dir():
        raise CheckpointError(f"'{path}' is a folder; name the .pth or .safetensors file in it")
    read = _read_safetensors if path.suffix.lower() == ".safetensors" else _read_torch
    return read(path)


def convert_checkpoint(source: str, destination: str | Path, *, preset: str | None = None) -> Path:
    """Write the weights of ``source`` as safetensors, with their sizes in the metadata.

    The track head is left out. The file appears whole or not at all.

    Raises:
        CheckpointError: ``source`` is not of that preset, or ``destination`` cannot be written.

    """
    loaded = read_checkpoint(source)
    network = assemble(sizes_of(loaded, preset, source), loaded.tensors)
    return save_network(network, destination)


def save_network(network: StreamVggt, destination: str | Path) -> Path:
    """Write a network as safetensors, atomically; raise CheckpointError where that fails."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(destination).expanduser()
    if path.suffix != ".safetensors":
        raise CheckpointError(f"'{path}' must end in .safetensors, so that it is read back as such")
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    try:
        save_file(tensors, partial, metadata={_CONFIG_KEY: network.config.to_json()})
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"'{path}' cannot be written: {first_line(error)}") from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return path


def _read_safetensors(path: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_CONFIG_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        return Checkpoint(tensors, NetworkConfig.from_json(text) if text else None)
    except (SafetensorError, OSError, ConfigurationError) as error:
        raise CheckpointError(f"'{path}' is not a readable safetensors file: {error}") from error


def _read_torch(path: Path) -> Checkpoint:
    try:
        # Only the zip files of PyTorch 1.6 and later can be mapped instead of read.
        tensors = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"'{path}' is not a readable PyTorch weight file ({first_line(error)}); it must hold a "
            "plain dictionary of tensors"
        ) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise CheckpointError(
            f"'{path}' does not hold a plain dictionary of tensors but {type(tensors).__name__}; "
            "save the network's state_dict alone"
        )
    return Checkpoint(tensors, None)


def _download(source: str) -> Path:
    match = _HUB_ID.match(source)
    if match is None or match["repository"].endswith(_SUFFIXES) or source[0] in "./~":
        raise CheckpointError(
            f"checkpoint '{source}' does not exist; give a .pth or .safetensors file, a Hugging "
            f"Face id such as {OFFICIAL_REPOSITORY}, or {BUNDLED}, which comes with the package"
        )
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, file = match["repository"], match["file"] or OFFICIAL_FILE
    if repository == OFFICIAL_REPOSITORY:
        logger.warning(LICENCE_NOTICE)
    logger.info("getting %s from %s (kept for the next time, resumed if cut off)", file, repository)
    try:
        return Path(hf_hub_download(repository, file))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"checkpoint '{source}' is no local file, and '{file}' could not be had from the "
            f"Hugging Face repository '{repository}': {first_line(error)}; check "
            "the name and the network, or download the file and give its path"
        ) from error


_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")


def _dtype(name: str) -> torch.dtype:
    if name not in _DTYPES:
        raise ConfigurationError(f"dtype '{name}' is unknown; choose one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    rest = len(names) - _NAMES_SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown
