# SPDX-License-Identifier: Apache-2.0
"""Names and shapes of the official track head, which this package leaves aside on purpose.

While streaming, each frame is its own reference, so the head answers its own queries: nothing is
tracked. Its tensors are still checked by name and shape, so that a wrong file is found out.
"""

from __future__ import annotations

import torch
from torch import nn

from xsvggt_ros.model.config import DenseHeadConfig, NetworkConfig
from xsvggt_ros.model.dense_head import DenseHead

PREFIX = "track_head."

_FEATURES = 128
_HIDDEN = 384
_TOKEN = 3 * _FEATURES + 4
_CORRELATIONS = 7 * 9 * 9
_VIRTUAL_TRACKS = 64
_BLOCKS = 6


def track_head_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of the track head that belongs to a network of ``config``.

    None where such a network has no track head.
    """
    if "track" not in config.heads:
        return {}
    with torch.device("meta"):
        head = nn.ModuleDict({"feature_extractor": _extractor(config), "tracker": _tracker()})
    return {PREFIX + name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}


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
