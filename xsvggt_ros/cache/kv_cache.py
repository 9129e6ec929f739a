# SPDX-License-Identifier: Apache-2.0
"""The memory of one stream: a cache per global layer, and the camera head's."""

from __future__ import annotations

from torch import Tensor

from xsvggt_ros.cache.camera_cache import CameraCache
from xsvggt_ros.cache.candidates import Policy
from xsvggt_ros.cache.layer_cache import LayerCache, UnpackedLayerCache
from xsvggt_ros.cache.policies import policy_for
from xsvggt_ros.cache.selection import check_budget
from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.cache.statistics import CacheStatistics
from xsvggt_ros.errors import ConfigurationError

UNQUANTIZED_BITS = 16


class KvCache:
    """What the network is handed as its memory.

    Between two frames stands :meth:`end_frame`; :meth:`clear` begins a new stream in the same
    allocation.
    """

    def __init__(
        self,
        settings: CacheSettings,
        *,
        layers: int,
        special_tokens: int,
        camera_blocks: int,
        camera_iterations: int,
    ) -> None:
        """Make an empty cache.

        Args:
            settings: policy and bounds.
            layers: global blocks of the network.
            special_tokens: tokens in front of the patches of each frame.
            camera_blocks: blocks of the camera head's trunk.
            camera_iterations: refinements of the camera head.

        Raises:
            ConfigurationError: a budget below the smallest possible one, which is named.

        """
        if settings.bounded and not settings.published:
            check_budget(settings.budget_tokens, special_tokens)
        self.settings = settings
        self._special = special_tokens
        policy = policy_for(settings)
        # The published code may overshoot its budget; its room then grows once and stays.
        expected = settings.budget_tokens if settings.bounded else 0
        self.layers: list[LayerCache] = [
            UnpackedLayerCache(policy, special_tokens, expected) for _ in range(layers)
        ]
        self.camera = self._camera_caches(policy, camera_blocks, camera_iterations)
        self._first = True
        self._evicted = 0
        self._evicted_before = 0
        self._token_nbytes = 0

    def _camera_caches(
        self, policy: Policy, blocks: int, iterations: int
    ) -> list[list[CameraCache]] | list[list[UnpackedLayerCache]]:
        if self.settings.published:
            # There the trunk uses the very attention of the global blocks, budget included, and
            # all iterations share one cache.
            shared = [UnpackedLayerCache(policy, self._special) for _ in range(blocks)]
            return [shared] * iterations
        frames = self.settings.camera_frames if self.settings.bounded else 0
        return [[CameraCache(frames) for _ in range(blocks)] for _ in range(iterations)]

    @property
    def first_frame(self) -> bool:
        """Whether the next frame is the first of its stream."""
        return self._first

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend in global block ``layer``, then prune that layer.

        Raises:
            ConfigurationError: more than one stream at a time.

        """
        if query.shape[0] != 1:
            raise ConfigurationError(
                f"a cache holds one stream, not a batch of {query.shape[0]}; "
                "use one cache per stream"
            )
        if layer == 0:
            self._token_nbytes = 2 * key.shape[1] * key.shape[3] * key.element_size()
        return self.layers[layer].attend(query, key, value)

    def attend_camera(
        self, iteration: int, block: int, query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        """Attend over the camera tokens remembered for this iteration and block.

        Raises:
            ConfigurationError: more than one frame at a time.

        """
        if query.shape[2] != 1:
            raise ConfigurationError(
                f"a cache takes one frame at a time, not {query.shape[2]}; step through the stream"
            )
        return self.camera[iteration][block].attend(query, key, value)

    def end_frame(self) -> None:
        """Say that a frame is complete."""
        self._first = False
        self._evicted_before = self._evicted
        self._evicted = sum(layer.seen - layer.tokens for layer in self.layers)

    def clear(self) -> None:
        """Forget the stream; what is allocated stays for the next one."""
        for layer in self.layers:
            layer.clear()
        for iteration in self.camera:
            for cache in iteration:
                cache.clear()
        self._first = True
        self._evicted = self._evicted_before = 0

    def history_tokens(self, tokens_per_frame: int) -> int | None:
        """Return how much history fits beside anchor and window; None where all of it does."""
        if not self.settings.bounded:
            return None
        return max(0, self.settings.budget_tokens - 2 * tokens_per_frame)

    def smallest_history_budget(self, tokens_per_frame: int) -> int:
        """Return the least budget that leaves room for one token of history."""
        return 2 * tokens_per_frame + 1

    @property
    def nbytes(self) -> int:
        """Allocated bytes of the global layers."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def camera_nbytes(self) -> int:
        """Allocated bytes of the camera head's memory."""
        caches = {id(c): c for iteration in self.camera for c in iteration}
        return sum(cache.store.nbytes for cache in caches.values())

    def statistics(self) -> CacheStatistics:
        """Return what the cache says of itself after the last complete frame."""
        return CacheStatistics(
            policy=self.settings.policy,
            budget_tokens=self.settings.budget_tokens if self.settings.bounded else 0,
            tokens=max(layer.tokens for layer in self.layers),
            key_bits=UNQUANTIZED_BITS,
            value_bits=UNQUANTIZED_BITS,
            nbytes=self.nbytes,
            camera_nbytes=self.camera_nbytes,
            uncompressed_nbytes=self._token_nbytes * sum(layer.seen for layer in self.layers),
            evicted=self._evicted - self._evicted_before,
            evicted_total=self._evicted,
        )
