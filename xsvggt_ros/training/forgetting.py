# SPDX-License-Identifier: Apache-2.0
"""A whole sequence at once behind a mask: what a pruned memory would have held, frame by frame."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from xsvggt_ros.cache.policies import pooling_weights
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.model.config import NetworkConfig
from xsvggt_ros.model.layers import CausalSequence

POOL_SIZE = CacheSettings().pool_size
"""Patch queries that are averaged into one, as a cache does by default."""

SHORTEST, LONGEST = 2.0, 10.0
"""Frames that a token is remembered for in the mean, beyond the frame after its own.

The first frame, the present one and the one before are there on top of it, and lengths are whole:
a memory holds about 4.5 frames with the shortest mean and about 12.4 with the longest."""


class GappySequence(CausalSequence):
    """A whole sequence at once, of which each global block forgets tokens at random, for good.

    The first frame stays, as the anchor does in a cache; so does the newest one before the present.
    Which tokens go differs from block to block. Choosing at random favours no policy.

    For networks whose first pass is a single frame; the others have :func:`windowed`.
    """

    def __init__(self, frames: int, generator: torch.Generator) -> None:
        """Begin a sequence.

        Args:
            frames: of each stream.
            generator: on the CPU; draws how long tokens are remembered.

        """
        super().__init__(frames)
        self._generator = generator
        share = float(torch.rand((), generator=generator))
        self._mean = SHORTEST * (LONGEST / SHORTEST) ** share

    # Every draw leaves another number of tokens, and each would be compiled again.
    @torch.compiler.disable
    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend frame by frame over what is left of the frames up to it."""
        count = query.shape[2]
        step = count // self._frames
        forgotten = self._forgotten(count, step)
        attended = []
        for frame, chunk in enumerate(query.split(step, dim=2)):
            left = torch.nonzero(forgotten[: (frame + 1) * step] > frame).flatten().to(key.device)
            attended.append(
                functional.scaled_dot_product_attention(
                    chunk, key.index_select(2, left), value.index_select(2, left)
                )
            )
        return torch.cat(attended, dim=2)

    def _forgotten(self, count: int, step: int) -> Tensor:
        """Return the frame at which each token is no longer there, float32 [tokens]."""
        seen = torch.arange(count) // step
        remembered = torch.empty(count).exponential_(1 / self._mean, generator=self._generator)
        forgotten = seen + 2 + remembered.floor()
        forgotten[:step] = torch.inf
        return forgotten


class MaskedSequence(CausalSequence):
    """A sequence of which each frame sees what a mask leaves of itself and of earlier frames.

    One attention call for all frames. A token is seen as the frame made it when it was new, so a
    sequence behind a mask equals a stream whose cache holds just these tokens.
    """

    def __init__(
        self,
        frames: int,
        mask: Tensor,
        camera_mask: Tensor,
        *,
        anchors: int = 1,
        times: Tensor | None = None,
    ) -> None:
        """Begin a sequence.

        Args:
            frames: of each stream.
            mask: which keys a query sees, bool [layers, tokens, tokens] over all frames' tokens,
                or one for all layers, [1, tokens, tokens].
            camera_mask: the same of camera tokens, bool [frames, frames].
            anchors: frames of the first pass.
            times: stored frames before each, float32 [frames]; None = every frame is stored.

        """
        super().__init__(frames, anchors)
        self._mask = mask
        self._camera_mask = camera_mask
        self._times = times

    def times(self, frames: int, device: torch.device) -> Tensor:
        """Return how many frames were stored before each."""
        return super().times(frames, device) if self._times is None else self._times

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend over what the mask leaves."""
        mask = self._mask[layer if len(self._mask) > 1 else 0]
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    def attend_camera(
        self, iteration: int, block: int, query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """Attend over the camera tokens that the mask leaves."""
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=self._camera_mask
        )


class PrunedSequence(CausalSequence):
    """A whole sequence at once, of which each global block keeps what policy ``xstreamvggt`` keeps.

    Layer by layer, and stream by stream, as a cache of unrounded tokens prunes between frames: the
    first frame and the newest one stay, of the others those that the newest frame's pooled query
    asks for most. What a network learns with it is to live with its own forgetting. The camera head
    sees all frames. Shapes depend on the arguments alone, so a captured step prunes again whenever
    it is repeated.

    For networks whose first pass is a single frame.
    """

    def __init__(
        self, frames: int, budget: int, *, special: int, pool_size: int = POOL_SIZE
    ) -> None:
        """Begin a sequence.

        Args:
            frames: of each stream.
            budget: frames' tokens that a layer holds after each frame, at least 2.
            special: special tokens in front of a frame's patches.
            pool_size: patch queries that are averaged into one.

        """
        super().__init__(frames)
        self._budget = budget
        self._special = special
        self._pool_size = pool_size

    # Steps differ from frame to frame: each would be compiled by itself.
    @torch.compiler.disable
    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend frame by frame over what was kept, [streams, heads, tokens, head_dim]."""
        step = query.shape[2] // self._frames
        scores = self._scores(query.detach(), key.detach(), step)
        # On CPUs, attention in bfloat16 and its gradient are slower than in float32.
        wide = query.dtype if query.is_cuda else torch.float32
        keys, values = key.to(wide), value.to(wide)
        kept = torch.arange(0, device=key.device).expand(len(key), 0)
        attended = []
        for frame, chunk in enumerate(query.to(wide).split(step, dim=2)):
            new = torch.arange(frame * step, (frame + 1) * step, device=key.device)
            kept = torch.cat([kept, new.expand(len(key), -1)], dim=1)
            attended.append(
                functional.scaled_dot_product_attention(
                    chunk, _selected(keys, kept), _selected(values, kept)
                )
            )
            kept = self._pruned(kept, scores[:, frame], frame * step, step)
        return torch.cat(attended, dim=2).to(query.dtype)

    def _scores(self, query: Tensor, key: Tensor, step: int) -> Tensor:
        """Return how much each frame asks for each token, float32 [streams, frames, tokens]."""
        weights = pooling_weights(step, self._special, self._pool_size, query.device)
        frames = query.float().mean(dim=1).unflatten(1, (self._frames, step))
        scores: Tensor = (weights @ frames) @ key.float().mean(dim=1).transpose(1, 2)
        return scores

    def _pruned(self, kept: Tensor, scores: Tensor, newest: int, step: int) -> Tensor:
        """Return the tokens that stay of ``kept``, int64 [streams, tokens], oldest first."""
        if kept.shape[1] <= self._budget * step:
            return kept
        stays = (kept < step) | (kept >= newest)
        asked = scores.gather(1, kept).masked_fill(stays, torch.inf)
        best = asked.topk(self._budget * step, dim=1).indices
        return kept.gather(1, best.sort(dim=1).values)


def _selected(tokens: Tensor, kept: Tensor) -> Tensor:
    """Return each stream's own tokens, [streams, heads, kept, channels]."""
    if kept.shape[1] == tokens.shape[2]:
        return tokens
    chosen = kept[:, None, :, None].expand(-1, tokens.shape[1], -1, tokens.shape[3])
    return tokens.gather(2, chosen)


def causal(frames: int, device: torch.device | str = "cpu") -> Tensor:
    """Return which frames see which, bool [frames, frames]."""
    return torch.ones(frames, frames, dtype=torch.bool, device=device).tril()


def window(frames: int, budget: int | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Return what frames see of frames, bool [frames, frames], if a cache holds ``budget`` of them.

    The first frame and the newest ``budget - 1`` before the present; the present comes on top.

    Args:
        frames: of a stream.
        budget: frames held, a number or a tensor that broadcasts to [frames, frames].
        device: of the result.

    """
    time = torch.arange(frames, device=device)
    age = time[:, None] - time[None, :]
    return (age >= 0) & ((age < budget) | (time[None, :] == 0))


def over_tokens(seen: Tensor, tokens: int) -> Tensor:
    """Return a mask over frames [frames, frames] as one over their tokens, for all layers."""
    return seen.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1).unsqueeze(0)


def windowed(
    config: NetworkConfig,
    frames: int,
    tokens: int,
    *,
    window: int | Tensor,
    interval: int | Tensor = 1,
    device: torch.device | str = "cpu",
) -> MaskedSequence:
    """Return a sequence as policy ``lingbot`` streams it: first pass, window, key frames.

    Of stored frames that have left the window the special tokens stay; the camera head sees every
    stored frame. With a window of ``frames`` and the interval 1 it is :class:`CausalSequence`.

    Args:
        config: of the network; says the frames of the first pass.
        frames: of a stream.
        tokens: of a frame.
        window: frames after the first pass that are seen whole, the present one included.
        interval: one of so many frames after the first pass is stored, the first of them is.
        device: of the mask.

    """
    anchors = min(config.stream.anchor_frames, frames)
    number = torch.arange(frames, device=device)
    stored = (number < anchors) | ((number - anchors) % interval == 0)
    before = stored.cumsum(0) - stored.long()
    first = (number[:, None] < anchors) & (number[None, :] < anchors)
    earlier = (number[None, :] < number[:, None]) & stored[None, :]
    seen = first | earlier | (number[:, None] == number[None, :])
    # A frame makes the oldest one leave only where it is stored itself.
    oldest = before - (window - stored.long())
    whole = seen & ((number[None, :] < anchors) | (before[None, :] >= oldest[:, None]))
    special = torch.arange(frames * tokens, device=device) % tokens < config.special_tokens
    mask = over_tokens(whole, tokens) | (over_tokens(seen, tokens) & special)
    return MaskedSequence(frames, mask, seen, anchors=anchors, times=before.float())


def drawn_window(
    config: NetworkConfig, frames: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return a window and a key-frame interval for :func:`windowed`, int64 scalars.

    Decided on the generator's device. Windows are as likely from one frame to the network's own,
    intervals from 1 to :data:`MOST_APART`.
    """
    longest = min(config.stream.window_frames, frames)
    chances = torch.rand(2, generator=generator, device=generator.device)
    return (chances[0] * longest).long() + 1, (chances[1] * MOST_APART).long() + 1


MOST_APART = 3
"""Largest key-frame interval of a training."""

_LEAST_MEAN, _MOST_MEAN = 0.3, 12.0
"""Frames that something is remembered for in the mean, beyond the frame after its own."""

_WHOLE, _BOUNDED = 1 / 3, 1 / 2


def forgetful(
    frames: int, tokens: int, layers: int, gaps: float, generator: torch.Generator
) -> MaskedSequence:
    """Return a sequence of which each layer forgets at random, for good, or does not.

    The anchor stays, and what is one frame old. Of three forgetful sequences one forgets whole
    frames, alike in all layers, and two forget tokens, which favours no policy; in every second one
    the camera head has a window. All is decided on the device, so that a captured step decides
    again whenever it is repeated.

    Args:
        frames: of a stream.
        tokens: of a frame.
        layers: of the network.
        gaps: share of the sequences that forget.
        generator: of the chances.

    """
    device = generator.device
    forgets, whole, bounded, length = torch.rand(4, generator=generator, device=device).unbind()
    mean = _LEAST_MEAN * (_MOST_MEAN / _LEAST_MEAN) ** length
    chances = torch.rand(layers, frames * tokens, generator=generator, device=device)
    shared = torch.rand(frames, generator=generator, device=device).repeat_interleave(tokens)
    chances = torch.where(whole < _WHOLE, shared, chances).clamp(min=1e-9)
    lasting = torch.where(forgets < gaps, (-mean * chances.log()).floor(), torch.inf)
    time = torch.arange(frames, device=device).repeat_interleave(tokens)
    gone = time + 2 + lasting
    gone[:, :tokens].fill_(torch.inf)
    mask = (time[None, :] <= time[:, None]) & (gone[:, None, :] > time[None, :, None])
    narrow = window(frames, 2 + (2 * mean).round(), device)
    cameras = torch.where((forgets < gaps) & (bounded < _BOUNDED), narrow, causal(frames, device))
    return MaskedSequence(frames, mask, cameras)
