# SPDX-License-Identifier: Apache-2.0
"""The whole network: images in, poses, depth and points out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn

from xsvggt_ros.cuda import SideStreams
from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.model.aggregator import Aggregator
from xsvggt_ros.model.config import NetworkConfig
from xsvggt_ros.model.heads import CameraHead, DenseHead, activate_depth, activate_points
from xsvggt_ros.model.layers import SIZES_KEPT, Block, CausalSequence, Constants, Memory

Head = Literal["camera", "depth", "points"]
ALL_HEADS: tuple[Head, ...] = ("camera", "depth", "points")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the asked heads say; the others are None. All float32, [batch, frames, ...].

    Attributes:
        pose_encodings: [..., iterations, 9], one per refinement; the last one counts. In the
            convention of the network, see :attr:`NetworkConfig.pose_convention`.
        depth: [..., H, W], along the optical axis.
        points: [..., H, W, 3], in the frame of the stream's first camera.

    """

    pose_encodings: Tensor | None = None
    depth: Tensor | None = None
    depth_confidence: Tensor | None = None
    points: Tensor | None = None
    points_confidence: Tensor | None = None

    def of_frame(self, index: int) -> Prediction:
        """Return what is said of one frame alone, [batch, 1, ...]."""
        tensors = {each.name: getattr(self, each.name) for each in fields(self)}
        return Prediction(
            **{name: t if t is None else t[:, index : index + 1] for name, t in tensors.items()}
        )


class StreamVggt(nn.Module):
    """StreamVGGT (arXiv 2507.11539) and its kin, as the configuration says; without a track head.

    The track head tracks nothing while streaming (a frame is its own reference), so its tensors
    are recognised in a checkpoint and left aside.

    Attributes:
        side: for what may run beside the rest; caches of this network share it.

    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.aggregator = Aggregator(config)
        self.camera_head = CameraHead(config)
        if "points" in config.heads:
            self.point_head = DenseHead(config, out_channels=4)
        self.depth_head = DenseHead(config, out_channels=2)
        self.side = SideStreams()

    @property
    def dense_heads(self) -> dict[Head, DenseHead]:
        """The dense heads that this network has, by what they predict."""
        points: dict[Head, DenseHead] = {}
        if "points" in self.config.heads:
            points = {"points": self.point_head}
        return {"depth": self.depth_head, **points}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.aggregator.camera_token.device

    @property
    def dtype(self) -> torch.dtype:
        """What the aggregator's matrix products, keys and values are computed in."""
        return self.aggregator.patch_embed.patch_embed.proj.weight.dtype

    def set_precision(
        self, dtype: torch.dtype, heads_dtype: torch.dtype = torch.float32
    ) -> StreamVggt:
        """Convert the weights of linear and convolution layers, in place.

        Norms, gains, special tokens and the positional embedding stay float32.

        Raises:
            ConfigurationError: a dtype that is not float32, bfloat16 or float16.

        """
        for part in (dtype, heads_dtype):
            if part not in (torch.float32, torch.bfloat16, torch.float16):
                raise ConfigurationError(
                    f"dtype {part} is not supported; use float32, bfloat16 or float16"
                )
        for name, module in self.named_modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                module.to(dtype if name.startswith("aggregator.") else heads_dtype)
        return self

    def mark_gains_folded(self) -> dict[str, str]:
        """Leave LayerScale out from now on, because the layers before it get its gains.

        Returns the name of the gain by the name of the linear layer that is to be multiplied by it.
        """
        gains = {}
        for name, block in self.named_modules():
            if isinstance(block, Block):
                block.ls1.folded = block.ls2.folded = True
                gains[f"{name}.attn.proj"] = f"{name}.ls1.gamma"
                gains[f"{name}.mlp.fc2"] = f"{name}.ls2.gamma"
        return gains

    def freeze(self) -> StreamVggt:
        """Prepare for inference alone: what follows from the weights is computed once and kept."""
        self.eval().requires_grad_(False)
        self.aggregator.frozen = self.aggregator.patch_embed.frozen = self.camera_head.frozen = True
        return self

    def lay_out_convolutions(self) -> StreamVggt:
        """Lay the dense heads' weights out channels last, where convolutions are fastest."""
        for head in self.dense_heads.values():
            head.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    def compile_parts(self) -> StreamVggt:
        """Have ``torch.compile`` make kernels, at the first frame, where the cache has no part.

        Left as they are: global blocks and camera head, which attend over a cache.
        """
        # Of each size there are about four variants, and torch.compile gives up after eight.
        limit = torch._dynamo.config.cache_size_limit
        torch._dynamo.config.cache_size_limit = max(limit, 8 * SIZES_KEPT)
        aggregator = self.aggregator
        for block in (*aggregator.patch_embed.blocks, *aggregator.frame_blocks):
            block.compile(dynamic=False)
        for head in self.dense_heads.values():
            for part in (*head.fusion_blocks, *head.fine_units):
                part.compile(dynamic=False)
        return self

    def constants(self) -> list[Tensor]:
        """Return what is kept per image size; whoever captures a CUDA graph holds on to it."""
        return [
            tensor
            for module in self.modules()
            for kept in vars(module).values()
            if isinstance(kept, Constants)
            for tensor in kept.tensors()
        ]

    def forward(
        self, images: Tensor, memory: Memory, heads: Collection[Head] = ALL_HEADS
    ) -> Prediction:
        """Run frames through the network.

        Args:
            images: RGB in [0, 1], [batch, frames, 3, height, width].
            memory: what earlier frames left behind; frames after the first of a call are seen by
                ``memory`` in the same call.
            heads: which outputs are wanted; the other heads do not run.

        Raises:
            ConfigurationError: sides that are not positive multiples of the patch size, or a head
                that this network does not have.

        """
        height, width = images.shape[-2:]
        self._check_size(height, width)
        self._check_heads(heads)
        last = self.config.depth - 1
        layers = {last} if "camera" in heads else set()
        if "depth" in heads or "points" in heads:
            layers |= set(self.config.dense.layers)
        dense: dict[Head, DenseHead] = {
            name: head for name, head in self.dense_heads.items() if name in heads
        }
        levels: dict[Head, dict[int, Tensor]] = {name: {} for name in dense}
        # The maps of a first pass of several frames at full size would take more memory than
        # anything else, so for inference these are made frame by frame.
        apart = images.shape[1] > 1 and not torch.is_grad_enabled()
        outputs: dict[int, Tensor] = {}
        for layer, tokens in self.aggregator.outputs(images, memory, layers):
            outputs[layer] = tokens
            if not apart:
                # Convolutions fill the gaps that the blocks behind this layer leave.
                with self.side.fork("dense heads"):
                    for name, head in dense.items():
                        levels[name] |= head.levels(layer, tokens, height, width)

        found: dict[str, Tensor] = {}
        if "camera" in heads:
            # Many small operations in a row, beside the large ones of the dense heads.
            with self.side.fork("camera head"):
                found["pose_encodings"] = self.camera_head(outputs[last][:, :, 0], memory)
        self.side.join("dense heads")
        raw = {
            name: _frame_by_frame(head, outputs, height, width) if apart
            else head.joined(levels[name], height, width).unflatten(0, images.shape[:2])
            for name, head in dense.items()
        }  # fmt: skip
        if "depth" in raw:
            found["depth"], found["depth_confidence"] = activate_depth(raw["depth"])
        if "points" in raw:
            found["points"], found["points_confidence"] = activate_points(raw["points"])
        self.side.join("camera head")
        return Prediction(**found)

    def forward_sequence(self, images: Tensor, heads: Collection[Head] = ALL_HEADS) -> Prediction:
        """Run a whole sequence causally at once, [batch, frames, 3, height, width].

        The function that was trained; equal to streaming with an unbounded memory.
        """
        memory = CausalSequence(images.shape[1], self.config.stream.anchor_frames)
        prediction: Prediction = self(images, memory, heads)
        return prediction

    def _check_heads(self, heads: Collection[Head]) -> None:
        missing = [head for head in heads if head not in self.config.heads]
        if missing:
            raise ConfigurationError(
                f"these weights have no head for {', '.join(missing)}, only for "
                f"{', '.join(self.config.heads)}; ask for these"
            )

    def _check_size(self, height: int, width: int) -> None:
        patch = self.config.patch_size
        if min(height, width) < patch or height % patch or width % patch:
            raise ConfigurationError(
                f"images of {width}x{height} pixels do not divide into patches of {patch}; "
                f"both sides must be positive multiples of {patch}"
            )


def _frame_by_frame(
    head: DenseHead, outputs: Mapping[int, Tensor], height: int, width: int
) -> Tensor:
    """Return a dense head's channels, [batch, frames, channels, height, width]."""
    frames = outputs[head.layers[0]].shape[1]
    each = (
        head({layer: tokens[:, k : k + 1] for layer, tokens in outputs.items()}, height, width)
        for k in range(frames)
    )
    return torch.cat(list(each), dim=1)
