# SPDX-License-Identifier: Apache-2.0
"""The golden tensors of LingBot-Map, and its memory written down frame by frame."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from reference import deviation
from safetensors.torch import load_file
from torch.nn.functional import scaled_dot_product_attention

from xsvggt_ros.model.checkpoint import assemble
from xsvggt_ros.model.config import (
    LINGBOT,
    CameraHeadConfig,
    DenseHeadConfig,
    EncoderConfig,
    NetworkConfig,
    StreamConfig,
)
from xsvggt_ros.model.network import Prediction, StreamVggt

GOLDEN = Path(__file__).parent / "golden" / "lingbot"
META = json.loads((GOLDEN / "meta.json").read_text())
CONFIG, MODES = META["config"], META["modes"]
ANCHORS = CONFIG["scale_frames"]
FRAMES = CONFIG["frames"]


def config() -> NetworkConfig:
    """Return the sizes of the golden network."""
    vit, camera, dpt = CONFIG["vit"], CONFIG["camera"], CONFIG["dpt"]
    registers = CONFIG["num_register_tokens"]
    return replace(
        LINGBOT,
        patch_size=CONFIG["patch_size"],
        image_size=CONFIG["img_size"],
        embed_dim=CONFIG["embed_dim"],
        depth=CONFIG["depth"],
        num_heads=CONFIG["num_heads"],
        num_registers=registers,
        rope_time=tuple(CONFIG["rope3d"]["dims"]),
        rope_time_base=CONFIG["rope3d"]["theta"],
        encoder=EncoderConfig(vit["depth"], vit["num_heads"], vit["mlp_ratio"], registers),
        camera=CameraHeadConfig(
            camera["trunk_depth"],
            camera["num_heads"],
            camera["mlp_ratio"],
            camera["num_iterations"],
        ),
        dense=DenseHeadConfig(dpt["features"], tuple(dpt["out_channels"]), tuple(dpt["layers"])),
        stream=StreamConfig(anchor_frames=ANCHORS, window_frames=64, trained_frames=320),
    )


@cache
def tensors(name: str) -> dict[str, torch.Tensor]:
    """Return one of the golden files: weights, inputs or outputs."""
    return load_file(GOLDEN / f"{name}.safetensors")


def network() -> StreamVggt:
    """Return the golden network as it was trained, float32 on the CPU."""
    return assemble(config(), tensors("weights")).eval().requires_grad_(False)


def inference_network() -> StreamVggt:
    """Return the golden network as `load_network` prepares it for inference."""
    return assemble(config(), tensors("weights"), fold=True).freeze()


def frames() -> torch.Tensor:
    """Return the input images, float32 [frames, 3, height, width] in [0, 1]."""
    (images,) = tensors("inputs").values()
    return images.float() / 255


@dataclass
class Outputs:
    """What all frames gave: poses [F, 9], depth and confidence [F, H, W]."""

    poses: torch.Tensor
    depth: torch.Tensor
    confidence: torch.Tensor

    @classmethod
    def of(cls, predictions: list[Prediction]) -> Outputs:
        """Put the predictions of a stream's calls one behind the other."""
        found: list[list[torch.Tensor]] = [[], [], []]
        for each in predictions:
            assert each.pose_encodings is not None
            assert each.depth is not None
            assert each.depth_confidence is not None
            found[0].append(each.pose_encodings[0, :, -1])
            found[1].append(each.depth[0])
            found[2].append(each.depth_confidence[0])
        return cls(*map(torch.cat, found))

    def deviations(self, mode: str) -> dict[str, float]:
        """Return the relative RMS deviation from each golden tensor of a mode."""
        golden, step = tensors("outputs"), CONFIG["subsample"]
        sub = slice(step // 2, None, step)
        actual = {
            "pose_enc": self.poses,
            "depth.sub": self.depth[:, sub, sub],
            "depth.last": self.depth[-1],
            "depth_conf.sub": self.confidence[:, sub, sub],
            "depth_conf.last": self.confidence[-1],
        }
        return {
            name: deviation(found, golden[f"{mode}.{name}"].reshape(found.shape))
            for name, found in actual.items()
            if f"{mode}.{name}" in golden
        }


class PlainMemory:
    """The memory of LingBot-Map as its specification says it, without any economy.

    Frames after the anchors are lists of tensors; nothing is rounded or moved.
    """

    def __init__(self, window: int, interval: int, special: int) -> None:
        self._window, self._interval, self._special = window, interval, special
        self._tokens: dict[object, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self._cameras: dict[object, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self._anchors = self._seen = self._stored = 0

    @property
    def _storing(self) -> bool:
        return (self._seen - self._anchors) % self._interval == 0

    def begin_pass(self, frames: int) -> int:
        return frames if not self._seen else 0

    def times(self, frames: int, device: torch.device) -> torch.Tensor:
        return torch.arange(self._stored, self._stored + frames, dtype=torch.float32)

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        held = self._tokens.setdefault(layer, [])
        anchors, later = held[:1], held[1:]
        # Only a frame that will be stored makes the oldest one leave.
        room = self._window - self._storing
        gone = max(0, len(later) - room)
        special = slice(self._special)
        trajectory = [(k[:, :, special], v[:, :, special]) for k, v in later[:gone]]
        parts = [*anchors, *trajectory, *later[gone:], (key, value)]
        if self._storing:
            held.append((key, value))
        return _attended(query, parts)

    def absorb(self, layer: int, update: torch.Tensor) -> None:
        pass

    def attend_camera(
        self,
        iteration: int,
        block: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
    ) -> torch.Tensor:
        held = self._cameras.setdefault((iteration, block), [])
        if self._storing:
            held.append((key, value))
            return _attended(query, held)
        return _attended(query, [*held, (key, value)])

    def end_frames(self, frames: int) -> None:
        self._stored += frames if self._storing else 0
        self._anchors = self._anchors or frames
        self._seen += frames


def _attended(query: torch.Tensor, pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    keys = torch.cat([key for key, _ in pairs], dim=2)
    values = torch.cat([value for _, value in pairs], dim=2)
    return scaled_dot_product_attention(query, keys, values)


@torch.inference_mode()
def run_plainly(own: StreamVggt, mode: str) -> Outputs:
    """Run a golden mode over the plain memory."""
    window, interval = MODES[mode]["window"], MODES[mode]["keyframe_interval"]
    memory = PlainMemory(window, interval, own.config.special_tokens)
    images = frames()
    predictions = []
    for part in (images[:ANCHORS], *images[ANCHORS:].split(1)):
        predictions.append(own(part[None], memory, ("camera", "depth")))
        memory.end_frames(len(part))
    return Outputs.of(predictions)
