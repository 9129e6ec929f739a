# SPDX-License-Identifier: Apache-2.0
"""Reading and writing weights, strictly.

Four kinds of source: a PyTorch file (read with ``weights_only``: nothing in it is executed), a
safetensors file, a repository on the Hugging Face hub, or the file that comes with the package.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor, nn

from xsvggt_ros.errors import CheckpointError, ConfigurationError, first_line
from xsvggt_ros.model.config import (
    BACKBONES,
    NOTICES,
    NetworkConfig,
    backbone_in,
    backbone_of,
    backbone_with,
    bundled_weights,
    check_backbone,
    named_weights,
)
from xsvggt_ros.model.config import preset as named_preset
from xsvggt_ros.model.device import (
    AUTO,
    check_weights,
    choose_arithmetic,
    device_named,
    dtype_named,
    heads_dtype_named,
    is_quantized,
    quantize_weights,
    takes_tf32,
)
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.model.weight_files import (
    BACKBONE_KEY,
    CONFIG_KEY,
    Checkpoint,
    download,
    files_in,
    is_hub_id,
    read_weight_file,
    track_head_shapes,
)
from xsvggt_ros.paths import in_home
from xsvggt_ros.process import suit_threads

logger = logging.getLogger(__name__)

_NAMES_SHOWN = 8
_TABLES = ("_token", "_tokens", "pos_embed")


def load_network(
    checkpoint: str,
    *,
    preset: str | None = None,
    device: str = "auto",
    dtype: str = AUTO,
    heads_dtype: str = AUTO,
    weights: str = "full",
    compiled: bool = False,
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
        dtype: ``float32``, ``bfloat16`` or ``float16``, of the aggregator; ``auto`` = what the
            device is best at.
        heads_dtype: the same, of the heads; ``auto`` = float32.
        weights: ``full``; ``int8_camera`` or ``int8`` = the linear layers of the camera head, or
            all of them, stored with 8 bits.
        compiled: whether ``torch.compile`` makes kernels of its own, at the first frame.
        seed: of the random weights.

    Raises:
        CheckpointError: the file cannot be had or read, or is not of this network.
        ConfigurationError: unknown preset, dtype or device, a device without room, or no torchao.

    """
    check_weights(weights)
    place = device_named(device)
    precisions = dtype_named(dtype, place), heads_dtype_named(heads_dtype)
    choose_arithmetic(place, precisions[0])
    if name := named_weights(checkpoint, preset):
        loaded = read_checkpoint(name)
        config = sizes_of(loaded, preset, name)
        suit_threads(config.embed_dim)
        network = assemble(config, loaded.tensors, *precisions, fold=True)
        backbone = backbone_with(config)
        if name in NOTICES:
            logger.warning(NOTICES[name])
        elif backbone and not name.startswith(backbone.repository):
            logger.warning(backbone.licence)
    else:
        config = named_preset(preset or "")
        suit_threads(config.embed_dim)
        tensors = random_network(config, seed).state_dict()
        network = assemble(config, tensors, *precisions, fold=True)
        logger.warning(
            "no checkpoint given: the weights are random (preset '%s', seed %d), so poses, depth "
            "and points mean nothing; set the checkpoint to a file or a Hugging Face id",
            preset,
            seed,
        )
    try:
        network = network.freeze().to(place).lay_out_convolutions()
        quantize_weights(network, network.camera_head, weights)
        if weights == "full" and takes_tf32(place, precisions[0]):
            network.camera_head.store_in_float16()
    except torch.OutOfMemoryError as error:
        raise ConfigurationError(
            f"the weights do not fit on device '{place}': {first_line(error)}; free "
            f"memory there{_narrower(*precisions)}"
        ) from error
    return network.compile_parts() if compiled else network


def _narrower(dtype: torch.dtype, heads_dtype: torch.dtype) -> str:
    """Return what narrower types could still be chosen, as the end of a sentence."""
    wide = {"model.dtype": dtype, "model.heads_dtype": heads_dtype}
    names = [name for name, each in wide.items() if each == torch.float32]
    return f", or set {' and '.join(names)} to bfloat16 or float16" if names else ""


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
    """Return the sizes that the file carries, else those of the preset, else the official ones.

    Which network's official sizes, the names of its tensors say.

    Args:
        loaded: what the file holds.
        preset: name of the sizes asked for; None or empty leaves them to the file.
        source: the file, as messages call it.

    Raises:
        CheckpointError: the weights are of another network than the preset.
        ConfigurationError: they carry other sizes than the preset's, or there is no such preset.

    """
    asked = named_preset(preset) if preset else None
    if asked:
        check_backbone(asked, loaded.tensors.keys(), preset or "", source)
    if loaded.config and asked and loaded.config != asked:
        raise ConfigurationError(
            f"'{source}' carries its own sizes, and they are not those of preset '{preset}'; leave "
            "the preset out"
        )
    if loaded.config:
        return loaded.config
    if asked:
        return asked
    return (backbone_of(loaded.tensors.keys()) or BACKBONES[0]).config


def assemble(
    config: NetworkConfig,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float32,
    heads_dtype: torch.dtype = torch.float32,
    *,
    fold: bool = False,
) -> StreamVggt:
    """Build a network from ``tensors``, each copied once, straight into its precision.

    Copied, because tensors of a file may be a view of it: whoever overwrites the file would change
    or kill a running network.

    Args:
        config: sizes.
        tensors: by name, as a file has them.
        dtype: of the aggregator's linear and convolution layers.
        heads_dtype: the same of the heads.
        fold: multiply the gains of LayerScale into the layers before them, in float32 before any
            rounding; for inference. The gains become 1, so that names and function stay.

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
    if fold:
        tensors = _FoldedGains(tensors, network.mark_gains_folded())
    own = {name: tensors[name].to(t.dtype, copy=True) for name, t in needed.items()}
    network.load_state_dict(own, assign=True)
    return network


class _FoldedGains(Mapping[str, Tensor]):
    """The tensors of a file, each as it is asked for, with gains multiplied into layers."""

    def __init__(self, tensors: Mapping[str, Tensor], gains: Mapping[str, str]) -> None:
        """Wrap ``tensors``; ``gains`` has the name of the gain for each linear layer's name."""
        self._tensors = tensors
        self._gains = gains
        self._ones = set(gains.values())

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        if name in self._ones:
            return torch.ones_like(tensor)
        layer, _, kind = name.rpartition(".")
        if layer not in self._gains:
            return tensor
        gain = self._tensors[self._gains[layer]].float()
        return tensor.float() * (gain[:, None] if kind == "weight" else gain)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _is_usable(tensor: Tensor) -> bool:
    plain = tensor.is_floating_point() and tensor.layout is torch.strided and not tensor.is_meta
    whole = tensor.element_size() > 1  # PyTorch computes nothing in floats of 8 bits
    return plain and whole and bool(torch.isfinite(tensor).all())


def check_names(config: NetworkConfig, network: StreamVggt, tensors: Mapping[str, Tensor]) -> None:
    """Compare names and shapes strictly; the track head may be absent, but not partly or wrong.

    Args:
        config: sizes of the network.
        network: that is to take the tensors.
        tensors: of the file, by name.

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
    path = bundled_weights(source) if source in NOTICES else in_home(source)
    if not path.exists():
        if not is_hub_id(source):
            raise CheckpointError(
                f"checkpoint '{source}' does not exist; give a .pth or .safetensors file, a "
                f"Hugging Face id such as {' or '.join(each.repository for each in BACKBONES)}, "
                f"or what comes with the package: {', '.join(NOTICES)}"
            )
        if backbone := backbone_in(source.partition(":")[0]):
            logger.warning(backbone.licence)
        path = download(source)
    if path.is_dir():
        held = ", ".join(files_in(path)[:5]) or "none"
        raise CheckpointError(
            f"'{path}' is a directory; name the .pth or .safetensors file in it (it holds {held})"
        )
    return read_weight_file(path)


def convert_checkpoint(
    source: str, destination: str | Path, *, preset: str | None = None, dtype: str = "float32"
) -> Path:
    """Write the weights of ``source`` as safetensors, with their sizes in the metadata.

    The track head is left out. The file appears whole or not at all.

    Args:
        source: a file, a Hugging Face id, or bundled weights.
        destination: the .safetensors file.
        preset: name of the sizes, for a file that does not carry them.
        dtype: of linear and convolution layers; a half type halves the file. All else, which is
            small, stays float32.

    Raises:
        ConfigurationError: an unknown dtype or preset.
        CheckpointError: ``source`` is not of that preset, or ``destination`` cannot be written.

    """
    loaded = read_checkpoint(source)
    width = dtype_named(dtype, torch.device("cpu"))
    network = assemble(sizes_of(loaded, preset, source), loaded.tensors, width, width)
    return save_network(network, destination)


def save_network(network: StreamVggt, destination: str | Path) -> Path:
    """Write a network as safetensors, atomically; raise CheckpointError where that fails."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = in_home(destination)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"'{path}' must end in .safetensors, so that it is read back as such")
    if any(is_quantized(tensor) for tensor in network.state_dict().values()):
        raise CheckpointError(
            "weights of 8 bits are for inference alone; save the network with weights full"
        )
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    try:
        save_file(tensors, partial, metadata=_metadata(network.config))
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"'{path}' cannot be written: {first_line(error)}") from error
    finally:
        with suppress(OSError):
            partial.unlink()
    return path


def _metadata(config: NetworkConfig) -> dict[str, str]:
    """Return what a file says of itself: the sizes, and whose network it is."""
    backbone = backbone_with(config)
    name = {BACKBONE_KEY: backbone.name} if backbone else {}
    return {CONFIG_KEY: config.to_json(), **name}


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    rest = len(names) - _NAMES_SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown


def average_checkpoints(
    first: str, second: str, share: float, destination: str | Path, *, preset: str | None = None
) -> Path:
    """Write ``(1 - share) * first + share * second`` as safetensors, as precise as the first.

    Args:
        first: a file, a Hugging Face id, or ``demo``.
        second: the same, of the same sizes.
        share: of the second, 0 to 1.
        destination: the .safetensors file; it appears whole or not at all.
        preset: sizes, where neither carries them.

    Raises:
        CheckpointError: weights that are not of the same sizes or cannot be read, or a destination
            that cannot be written; an average beyond the first one's precision.
        ConfigurationError: a share outside 0 to 1.

    """
    if not 0 <= share <= 1:
        raise ConfigurationError(f"share is {share}; it must be from 0 to 1")
    one, other = read_checkpoint(first), read_checkpoint(second)
    if one.config and other.config and one.config != other.config:
        raise CheckpointError(
            f"'{first}' and '{second}' have different sizes; only weights of one network that was "
            "trained on can be averaged"
        )
    sized, name = (one, first) if one.config else (other, second)
    config = sizes_of(sized, preset, name)
    network, towards = assemble(config, one.tensors), assemble(config, other.tensors)
    with torch.no_grad():
        for own, its in zip(network.parameters(), towards.parameters(), strict=True):
            own.lerp_(its, share)
    dtype = reduce(torch.promote_types, (one.tensors[name].dtype for name in network.state_dict()))
    if not all(bool(each.isfinite().all()) for each in network.to(dtype).parameters()):
        raise CheckpointError(
            f"the average of '{first}' and '{second}' has numbers beyond {dtype}; name weights of "
            "a wider precision first"
        )
    return save_network(network, destination)
