# SPDX-License-Identifier: Apache-2.0
"""The golden tensors of the reference, and the tiny network that they were made with."""

import json
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file

from xsvggt_ros.cache.kv_cache import KvCache
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.model.checkpoint import assemble
from xsvggt_ros.model.config import (
    CameraHeadConfig,
    DenseHeadConfig,
    EncoderConfig,
    NetworkConfig,
)
from xsvggt_ros.model.network import StreamVggt
from xsvggt_ros.stream.step_runner import cache_layout

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 1e-5

META = json.loads((GOLDEN / "meta.json").read_text())
CONFIG = META["config"]


def config() -> NetworkConfig:
    """Return the sizes of the golden network."""
    vit, camera, dpt = CONFIG["vit"], CONFIG["camera"], CONFIG["dpt"]
    return NetworkConfig(
        patch_size=CONFIG["patch_size"],
        image_size=CONFIG["img_size"],
        embed_dim=CONFIG["embed_dim"],
        depth=CONFIG["depth"],
        num_heads=CONFIG["num_heads"],
        mlp_ratio=CONFIG["mlp_ratio"],
        num_registers=CONFIG["num_register_tokens"],
        rope_base=CONFIG["rope_freq"],
        encoder=EncoderConfig(
            vit["depth"], vit["num_heads"], vit["mlp_ratio"], vit["num_register_tokens"]
        ),
        camera=CameraHeadConfig(
            camera["trunk_depth"],
            camera["num_heads"],
            camera["mlp_ratio"],
            camera["num_iterations"],
        ),
        dense=DenseHeadConfig(
            dpt["features"], tuple(dpt["out_channels"]), tuple(dpt["intermediate_layer_idx"])
        ),
    )


@cache
def tensors(name: str) -> dict[str, torch.Tensor]:
    """Return one of the golden files: weights, inputs, outputs or units."""
    return load_file(GOLDEN / f"{name}.safetensors")


def network() -> StreamVggt:
    """Return the golden network as it was trained, float32 on the CPU."""
    return assemble(config(), tensors("weights")).eval().requires_grad_(False)


def inference_network(
    dtype: torch.dtype = torch.float32, heads_dtype: torch.dtype = torch.float32
) -> StreamVggt:
    """Return the golden network as `load_network` prepares it for inference."""
    return assemble(config(), tensors("weights"), dtype, heads_dtype, fold=True).freeze()


def frames() -> torch.Tensor:
    """Return the input images, float32 [frames, 3, height, width] in [0, 1]."""
    return tensors("inputs")["frames_u8"].float() / 255


def kv_cache(settings: CacheSettings, own: StreamVggt | None = None) -> KvCache:
    """Return an empty cache for the golden network, or for ``own``."""
    return KvCache(settings, cache_layout(own or network()))


def deviation(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the root mean square of the difference over that of ``expected``."""
    assert actual.shape == expected.shape
    difference = (actual.double() - expected.double()).square().mean().sqrt()
    return float(difference / expected.double().square().mean().sqrt())


def subsampled(dense: torch.Tensor) -> torch.Tensor:
    """Take the pixels that the golden files keep of [frames, height, width, ...]."""
    step = CONFIG["subsample"]
    return dense[:, step // 2 :: step, step // 2 :: step]
