# SPDX-License-Identifier: Apache-2.0
"""Iterative regression of pose and field of view from the camera tokens."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from xsvggt_ros.model.config import NetworkConfig
from xsvggt_ros.model.layers import AddLayerNorm, Block, Constants, LayerNorm, Linear, Mlp
from xsvggt_ros.model.memory import Memory

POSE_SIZE = 9
"""Translation (3), quaternion x y z w (4), vertical and horizontal field of view (2)."""


def activate(encoding: Tensor) -> Tensor:
    """Make the fields of view of encodings [..., 9] non-negative; the rest stays as it is."""
    return torch.cat([encoding[..., :7], functional.relu(encoding[..., 7:])], dim=-1)


def inverse_encoding(encodings: Tensor) -> Tensor:
    """Return the encodings [..., 9] of the inverse motions; quaternions keep their lengths.

    Turns world-to-camera into camera-to-world and back; quaternions must not be zero.
    """
    translation, turn, views = encodings.split([3, 4, 2], dim=-1)
    axis, real = -turn[..., :3], turn[..., 3:]
    twice = 2 / (turn * turn).sum(dim=-1, keepdim=True)
    across = torch.linalg.cross(axis, translation)
    turned = translation + twice * (real * across + torch.linalg.cross(axis, across))
    return torch.cat([-turned, axis, real, views], dim=-1)


class CameraHead(nn.Module):
    """Refines a pose encoding by adaptive normalisation and attention over the stream's cameras.

    Attributes:
        beginning: the first iteration's modulation, kept once the weights are frozen.
        frozen: whether the weights never change again.

    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dim, camera = 2 * config.embed_dim, config.camera
        self.iterations = camera.iterations
        self.token_norm = LayerNorm(dim)
        self.trunk = nn.ModuleList(
            Block(dim, camera.num_heads, camera.mlp_ratio) for _ in range(camera.depth)
        )
        self.trunk_norm = AddLayerNorm(dim)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, POSE_SIZE))
        self.embed_pose = Linear(POSE_SIZE, dim)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), Linear(dim, 3 * dim))
        self.adaln_norm = LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.pose_branch = Mlp(dim, dim // 2, POSE_SIZE)
        self.beginning = Constants()
        self.frozen = False

    def forward(self, camera_tokens: Tensor, memory: Memory) -> Tensor:
        """Map camera tokens [batch, frames, dim] to encodings [batch, frames, iterations, 9].

        Each iteration attends to the tokens of its own iteration of earlier frames, unless
        ``memory`` mixes them.
        """
        tokens = self.token_norm(camera_tokens)
        normed = self.adaln_norm(tokens)
        encoding: Tensor | None = None
        encodings = []
        for iteration in range(self.iterations):
            update = self._refine(tokens, normed, encoding, iteration, memory)
            encoding = update if encoding is None else encoding + update
            encodings.append(encoding)
        return activate(torch.stack(encodings, dim=2))

    def _refine(
        self, tokens: Tensor, normed: Tensor, encoding: Tensor | None, step: int, memory: Memory
    ) -> Tensor:
        shift, gain, gate = self._modulation(encoding)
        hidden = torch.addcmul(tokens, gate, torch.addcmul(shift, normed, gain))
        pending: Tensor | None = None
        for index, block in enumerate(self.trunk):
            attend = partial(memory.attend_camera, step, index)
            _, hidden, pending = block(hidden, pending, attend)
        _, normed = self.trunk_norm(hidden, pending, self.pose_branch.fc1.weight.dtype)
        return self.pose_branch(normed).float()

    def _modulation(self, encoding: Tensor | None) -> tuple[Tensor, ...]:
        """Return shift, gain and gate for what is known so far, float32 [batch, frames, dim]."""
        if encoding is not None:
            return self._modulated(encoding)
        return self.beginning.get(
            (self.empty_pose_tokens.device, self.embed_pose.weight.dtype),
            lambda: self._modulated(self.empty_pose_tokens),
            keep=self.frozen,
        )

    def _modulated(self, encoding: Tensor) -> tuple[Tensor, ...]:
        numbers = self.poseLN_modulation(self.embed_pose(encoding)).float()
        shift, scale, gate = numbers.chunk(3, dim=-1)
        return shift, 1 + scale, gate
