# SPDX-License-Identifier: Apache-2.0
"""The memory of one stream: a cache per global layer, and the camera head's.

`layout.py` begins with a table of where each byte of it is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from xsvggt_ros.cache.adaptation import Adaptation, KeyframeSchedule
from xsvggt_ros.cache.attention import backend
from xsvggt_ros.cache.camera_memory import CameraMemory
from xsvggt_ros.cache.layer_group import GroupedLayer, LayerGroup
from xsvggt_ros.cache.layer_plan import MIB, check_budget, full_budget, parts_of
from xsvggt_ros.cache.layout import CacheLayout, CacheStatistics, Scratch
from xsvggt_ros.cache.policies import policy_for
from xsvggt_ros.cache.published import LayerCache, PublishedCache, PublishedCameraMemory
from xsvggt_ros.cache.quantization import UNQUANTIZED
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.cuda import SideStreams
from xsvggt_ros.errors import ConfigurationError

_FIXED = ("compatibility", "index_sets", "group_size", "anchor_frames")
"""Settings that decide what a stored token is; another value needs another cache."""
_GIVE_WAY = 0.98
"""What is left of a budget where groups that outlive their tokens would break a byte budget."""


class KvCache:
    """What the network is handed as its memory.

    A frame goes through ``attend`` and ``absorb`` of one layer after the other, and through
    ``attend_camera``. Between two frames stands :meth:`end_frame`; there, :meth:`configure` may
    change budget, widths and policy. :meth:`clear` begins a new stream in the same allocation.
    """

    def __init__(
        self, settings: CacheSettings, layout: CacheLayout, side: SideStreams | None = None
    ) -> None:
        """Make an empty cache.

        Args:
            settings: how it behaves.
            layout: of the network's tokens.
            side: the network's, for what may run beside it; its own by default.

        Raises:
            ConfigurationError: a budget below the smallest possible one, which is named; an
                attention backend that is not there.

        """
        settings = settings.settled(layout)
        self._side = side or SideStreams()
        self._own_layout = layout
        self.layout = replace(layout, anchor_frames=settings.anchor_frames)
        self._check(settings)
        self.settings = settings
        self._adaptation = Adaptation(settings, layout.smallest_budget)
        self._scratch = Scratch()
        self._keyframes = KeyframeSchedule(settings.keyframe_interval, layout.trained_frames)
        self._camera = ""
        self._together = 1
        self._stores = True
        # Stored frames, on the device, so that a captured step can count on.
        self._time = torch.zeros(1, device=layout.token.device)
        self._anchor = self._frames = 0
        self._sizes: set[int] = set()
        self._full: int | None = None
        self._evicted = self._evicted_before = 0
        # Grows with every change of settings; a captured step is not valid beyond one.
        self._changes = 0
        self._groups: list[LayerGroup] = []
        self.layers: list[LayerCache] = []
        self._make_layers()
        self.camera = self._camera_memory()

    def _make_layers(self) -> None:
        """Make the caches of all layers, empty."""
        settings, layout = self.settings, self.layout
        if settings.published:
            attend = backend(settings.attention_backend)
            self.layers = [
                PublishedCache(settings, layout.special_tokens, attend)
                for _ in range(layout.layers)
            ]
        else:
            self._group([self._new_group(part) for part in parts_of(settings, layout)])

    def _group(self, groups: list[LayerGroup]) -> None:
        self._groups = groups
        self.layers = [
            GroupedLayer(group, index) for group in groups for index in range(group.layers)
        ]

    def _new_group(self, part: range) -> LayerGroup:
        settings, layout = self.settings, self.layout
        return LayerGroup(
            settings,
            settings.budget_tokens if settings.bounded else None,
            policy=policy_for(settings),
            shape=layout.token,
            first_layer=part.start,
            layers=len(part),
            special=layout.special_tokens,
            attend=backend(settings.attention_backend),
            scratch=self._scratch,
            side=self._side,
        )

    def _camera_memory(self) -> CameraMemory | PublishedCameraMemory:
        settings, layout = self.settings, self.layout
        if settings.published:
            attend = backend("sdpa")
            blocks = layout.camera_blocks
            return PublishedCameraMemory(settings, blocks, layout.special_tokens, attend)
        return CameraMemory(
            _camera_places(settings),
            layout.camera_iterations,
            layout.camera_blocks,
            layout.anchor_frames,
        )

    @property
    def first_frame(self) -> bool:
        """Whether the next frame is the first of its stream."""
        return self._frames == 0

    @property
    def stores_next(self) -> bool:
        """Whether the next frame will be remembered; else it attends and leaves nothing."""
        return self.first_frame or self._keyframes.is_due(self._camera)

    @property
    def keyframe_interval(self) -> int:
        """One of so many frames of a camera is remembered now."""
        return self._keyframes.interval

    def expect_camera(self, camera: str) -> None:
        """Say whose frame comes next: key frames are counted for each camera of a rig."""
        self._camera = camera

    def begin_pass(self, frames: int) -> int:
        """Take note that ``frames`` come together; return how many of them are anchors.

        Raises:
            ConfigurationError: several frames that are not the first of their stream.

        """
        if frames > 1 and not (self.first_frame and frames <= self.layout.anchor_frames):
            most = self.layout.anchor_frames if self.first_frame else 1
            raise ConfigurationError(
                f"a cache takes {most} frames at a time here, not {frames}; step through the stream"
            )
        self._together, self._stores = frames, self.stores_next
        for group in self._groups:
            group.begin_pass(frames, stores=self._stores)
        return frames if self.first_frame else 0

    def times(self, frames: int, device: torch.device) -> Tensor:
        """Return how many frames were stored before each of this pass, float32 [frames]."""
        if frames == 1:
            return self._time
        return torch.arange(frames, device=device, dtype=torch.float32)

    def prepare(self, frame: int, anchors: int = 0) -> None:
        """Make ready for a frame of ``frame`` tokens, before anything of it is remembered.

        Args:
            frame: tokens of the frame.
            anchors: frames of the first pass, where that is to come; 0 = as many as it may have.

        Raises:
            ConfigurationError: ``budget_mib`` does not hold the least that such frames need.

        """
        anchor = frame * (anchors or self.layout.anchor_frames)
        if frame in self._sizes and (not self.first_frame or anchor == self._anchor):
            return
        first = anchor if self.first_frame else self._anchor
        sizes = {frame} if self.first_frame else self._sizes | {frame}
        full = self._full_budget(self.settings, first, sizes)
        if self.first_frame or full != self._full:
            self._set_budgets([full] * len(self._groups))
        self._anchor, self._sizes, self._full = first, sizes, full

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend in global block ``layer`` over what is remembered and the new frame.

        Queries, keys and values are [1, heads, tokens, head_dim] of the new frame.

        Raises:
            ConfigurationError: more than one stream at a time, tokens of another shape than the
                layout's, or what :meth:`prepare` raises.

        """
        if layer == 0:
            self._check_frame(key)
            self.prepare(key.shape[2] // self._together, self._together)
        if layer == self.layout.layers // 2 and self._stores:
            self._adaptation.observe(key[0], self.layout.special_tokens)
        return self.layers[layer].attend(query, key, value)

    def absorb(self, layer: int, update: Tensor) -> None:
        """Prune global block ``layer``, whose MLP added ``update`` [1, tokens, dim]."""
        self.layers[layer].absorb(update)
        if layer == self.layout.layers - 1 and self._stores and self.layout.trained_frames:
            self._time += self._together

    def attend_camera(
        self, iteration: int, block: int, query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """Attend over the camera tokens remembered for this iteration and block.

        Queries, keys and values are [1, heads, frames, head_dim].

        Raises:
            ConfigurationError: more than one frame at a time.

        """
        if query.shape[2] != self._together:
            raise ConfigurationError(
                f"a cache takes {self._together} frames here, not {query.shape[2]}; step through "
                "the stream"
            )
        return self.camera.attend(iteration, block, query, key, value, stores=self._stores)

    def join(self) -> None:
        """Wait for what runs beside the network: within a capture, before it ends."""
        self._side.join("cache")

    def end_frame(self, motion: float = 0.0) -> None:
        """Say that a pass is complete: a frame, or all frames of the first pass.

        Args:
            motion: how far the camera has moved since the frame before, in any unit that stays
                the same during a session; only an adaptive budget looks at it.

        """
        self._keyframes.note(self._camera, self._together, anchors=self.first_frame)
        self._frames += self._together
        self._together = 1
        self._evicted_before = self._evicted
        self._evicted = sum(layer.seen - layer.tokens for layer in self.layers)
        if self.settings.adapts:
            self._adapt(motion)
        self._keep_within_mib()

    def _adapt(self, motion: float) -> None:
        groups = self._groups
        self._set_budgets(
            self._adaptation.budgets(
                [group.budget or 0 for group in groups],
                full=self._full or 0,
                frames=self._frames,
                motion=motion,
                similarity=torch.stack([group.similarity for group in groups]),
            )
        )

    @property
    def state(self) -> tuple[object, ...] | None:
        """What decides about the operations, shapes and addresses of the next step.

        A step that leaves it as it found it can be captured, and played again for as long as it
        stays the same. None where no step is like the one before: nothing bounds the cache, its
        budgets adapt, or it is the released code's.
        """
        settings = self.settings
        fixed = settings.bounded and not settings.adapts and not settings.published
        if not fixed or not isinstance(self.camera, CameraMemory) or self.first_frame:
            return None
        groups = tuple(group.state for group in self._groups)
        return (self._changes, self._scratch.generation, self.camera.generation, groups)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors that outlive a step; replaced only where ``state`` changes."""
        assert isinstance(self.camera, CameraMemory)
        groups = (tensor for group in self._groups for tensor in group.tensors)
        return (self._time, *groups, *self._scratch.tensors, *self.camera.tensors)

    def knows(self, frame: int) -> bool:
        """Whether a frame of ``frame`` tokens was stored: another one needs no allocation."""
        return frame in self._sizes and all(group.knows(frame) for group in self._groups)

    def counts(self) -> tuple[int, int, int]:
        """Return what the host counts: tokens of a layer, of its newest frame, camera tokens."""
        assert isinstance(self.camera, CameraMemory)
        group = self._groups[0]
        return group.seen, group.newest_frame, self.camera.seen

    def restore(self, counts: tuple[int, int, int]) -> None:
        """Count as :meth:`counts` said: a step that was to be captured has not happened."""
        assert isinstance(self.camera, CameraMemory)
        self._side.forget()
        seen, frame, cameras = counts
        for group in self._groups:
            group.count(seen, frame)
        self.camera.count(cameras)

    def replayed(self, frame: int) -> None:
        """Count a frame of ``frame`` tokens that a captured step took in, unseen by the host."""
        assert isinstance(self.camera, CameraMemory)
        if not self.stores_next:
            return
        for group in self._groups:
            group.count(group.seen + frame, frame)
        self.camera.count(self.camera.seen + 1)

    def clear(self) -> None:
        """Forget the stream; what is allocated stays for the next one."""
        if len(self._groups) not in (0, len(parts_of(self.settings, self.layout))):
            self._make_layers()
        for layer in self.layers:
            layer.clear()
        self.camera.clear()
        self._adaptation.clear()
        self._scratch.release()
        self._keyframes.restart()
        self._camera = ""
        self._time.zero_()
        self._together, self._stores = 1, True
        self._anchor = self._frames = 0
        self._sizes = set()
        self._evicted = self._evicted_before = 0

    def configure(self, settings: CacheSettings) -> None:
        """Take on other settings at once, between two frames.

        What is held and still fits stays. Narrower widths round it once more, wider ones leave it
        as it is and count for what comes.

        Raises:
            ConfigurationError: settings that no cache could have, or that this one cannot take on
                without a new session; everything is as before then.

        """
        settings = settings.settled(self._own_layout)
        self.check(settings)
        if settings != self.settings:
            self._take_on(settings, self._full_budget(settings, self._anchor, self._sizes))

    def share_budget(self, caches: int) -> None:
        """Share ``budget_mib`` among ``caches`` that live at once, from now on.

        What was held stays allocated until all layers have their new share. Whatever fails before
        that, such as for want of memory, leaves everything as before.

        Raises:
            ConfigurationError: that many do not fit.

        """
        budget = self._full_budget(self.settings, self._anchor, self._sizes, caches)
        before = self.layout, self._full, self._adaptation
        groups = [group.twin() for group in self._groups]
        self.layout = replace(self.layout, caches=caches)
        try:
            self._take_on(self.settings, budget)
        except Exception:
            self.layout, self._full, self._adaptation = before
            if groups:
                self._group(groups)
            raise

    def check(self, settings: CacheSettings, *, caches: int = 0) -> None:
        """Raise ConfigurationError where :meth:`configure` would; changes nothing.

        Args:
            settings: that are asked for.
            caches: that are to share ``budget_mib`` from then on; 0 = as many as now.

        """
        settings = settings.settled(self._own_layout)
        for name in _FIXED:
            if getattr(settings, name) != getattr(self.settings, name):
                raise ConfigurationError(
                    f"cache.{name} cannot change from {getattr(self.settings, name)} to "
                    f"{getattr(settings, name)} within a session; make a new cache"
                )
        if settings.published and settings != self.settings:
            raise ConfigurationError(
                "cache.compatibility published cannot change while it runs, as the released code "
                "cannot; make a new cache"
            )
        self._check(settings)
        self._full_budget(settings, self._anchor, self._sizes, caches)

    def _take_on(self, settings: CacheSettings, budget: int | None) -> None:
        self._changes += 1
        scores_otherwise = settings.judging != self.settings.judging
        if settings.adapts_layers and len(self._groups) < self.layout.layers:
            self._group([layer for group in self._groups for layer in group.split()])
        for group in self._groups:
            policy = policy_for(settings) if scores_otherwise else None
            group.reconfigure(settings, budget, policy, backend(settings.attention_backend))
        if isinstance(self.camera, CameraMemory):
            self.camera.resize(_camera_places(settings))
        self._keyframes.change(settings.keyframe_interval)
        self.settings = settings
        self._adaptation = Adaptation(settings, self.layout.smallest_budget)
        self._full = budget
        self._keep_within_mib()

    def _check(self, settings: CacheSettings) -> None:
        backend(settings.attention_backend)
        counted = settings.bounded and not settings.published and not settings.keeps_frames
        if counted and not settings.budget_mib:
            check_budget(settings.budget_tokens, self.layout.smallest_budget)
        least = self.layout.smallest_budget
        if settings.adapts_to_scene and 0 < settings.budget_min_tokens < least:
            raise ConfigurationError(
                f"cache.budget_min_tokens is {settings.budget_min_tokens}; no budget is below "
                f"{least}, so set it to 0 or to at least that"
            )

    def _check_frame(self, key: Tensor) -> None:
        if key.shape[0] != 1:
            raise ConfigurationError(
                f"a cache holds one stream, not a batch of {key.shape[0]}; use one cache per stream"
            )
        token = self.layout.token
        if (*key.shape[1::2], key.dtype) != (token.heads, token.channels, token.dtype):
            raise ConfigurationError(
                f"the cache was made for {token.heads} heads of {token.channels} channels in "
                f"{token.dtype}, not for {key.shape[1]} of {key.shape[3]} in {key.dtype}; "
                "make the cache with the network's own layout"
            )

    def _full_budget(
        self, settings: CacheSettings, anchor: int, frames: Collection[int], caches: int = 0
    ) -> int | None:
        """Return what a layer may hold where nothing adapts; None = no bound."""
        layout = replace(self.layout, caches=caches or self.layout.caches)
        return full_budget(settings, layout, anchor=anchor, frames=frames)

    def _set_budgets(self, budgets: Sequence[int | None]) -> None:
        """Give each group its budget, those first that shrink."""
        pairs = list(zip(self._groups, budgets, strict=True))
        for group, budget in sorted(pairs, key=lambda pair: (pair[1] or 0) - (pair[0].budget or 0)):
            group.rebudget(budget)

    def _keep_within_mib(self) -> None:
        """Give up a little more where groups that outlive their tokens tip the scale.

        Raises:
            ConfigurationError: the smallest budget is too much as well.

        """
        caches = self.layout.caches
        allowed = self.settings.budget_mib * MIB / caches
        if not self.settings.bounded or self.settings.published or self.first_frame:
            return
        least = self.layout.smallest_budget
        while allowed and self.nbytes + self._scratch_needed > allowed:
            shrinking = [group for group in self._groups if (group.budget or 0) > least]
            if not shrinking:
                needed = caches * (self.nbytes + self._scratch_needed) / MIB
                raise ConfigurationError(
                    f"{self.layout.budget_words} is {self.settings.budget_mib:g}, but this stream "
                    f"needs {needed:.3f} MiB; set it to at least that"
                )
            for group in shrinking:
                held = group.budget or 0
                group.rebudget(max(least, min(held - 1, int(held * _GIVE_WAY))))
            self._full = self._budget
        if self._scratch.nbytes > self._scratch_needed:
            self._scratch.release()

    @property
    def _scratch_needed(self) -> int:
        return max(group.scratch_nbytes for group in self._groups)

    @property
    def _budget(self) -> int:
        """Tokens that a layer may hold, the mean over layers; 0 = no bound."""
        if self.settings.published:
            return self.settings.budget_tokens if self.settings.bounded else 0
        total = sum((group.budget or 0) * group.layers for group in self._groups)
        return total // self.layout.layers

    def history_tokens(self, tokens_per_frame: int) -> int | None:
        """Return how much history fits beside anchor and window; None where all of it does."""
        if not self.settings.bounded:
            return None
        return max(0, self._budget - (self.layout.anchor_frames + 1) * tokens_per_frame)

    def smallest_history_budget(self, tokens_per_frame: int) -> int:
        """Return the least budget that leaves room for one token of history."""
        return (self.layout.anchor_frames + 1) * tokens_per_frame + 1

    @property
    def nbytes(self) -> int:
        """Allocated bytes of the global layers, and of what follows the scene."""
        held = self._groups or self.layers
        return sum(part.nbytes for part in held) + self._adaptation.nbytes

    @property
    def scratch_nbytes(self) -> int:
        """Allocated bytes of the scratch that all layers share."""
        return self._scratch.nbytes

    @property
    def camera_nbytes(self) -> int:
        """Allocated bytes of the camera head's memory."""
        return self.camera.nbytes

    def statistics(self) -> CacheStatistics:
        """Return what the cache says of itself after the last complete frame."""
        settings = self.settings
        simulated = settings.published
        held = tuple(layer.tokens for layer in self.layers)
        seen = [layer.seen for layer in self.layers]
        return CacheStatistics(
            policy=settings.policy,
            budget_tokens=self._budget,
            tokens=max(held),
            key_bits=UNQUANTIZED if simulated else settings.key_bits,
            value_bits=UNQUANTIZED if simulated else settings.value_bits,
            nbytes=self.nbytes,
            scratch_nbytes=self.scratch_nbytes,
            camera_nbytes=self.camera_nbytes,
            uncompressed_nbytes=2 * self.layout.token.nbytes * sum(seen),
            evicted=self._evicted - self._evicted_before,
            evicted_total=self._evicted,
            layer_tokens=held,
        )


def _camera_places(settings: CacheSettings) -> int:
    return settings.camera_frames if settings.bounded else 0
