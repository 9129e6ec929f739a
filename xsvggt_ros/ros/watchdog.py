# SPDX-License-Identifier: Apache-2.0
"""Says why nothing comes out."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from rclpy.node import Node

from xsvggt_ros.ros import qos
from xsvggt_ros.ros.image_input import ImageInput
from xsvggt_ros.ros.topics import TRANSPORTS, advice, published_topics

if TYPE_CHECKING:
    from xsvggt_ros.stream.pipeline import Activity

_REMEDIES: dict[str, str] = {
    "decoding": "publish smaller images",
    "waiting for transforms": "lower tf.timeout",
    "reconstructing": "lower input.width or the budget of the cache (cache.budget_mib, where it is "
    "set, else cache.budget_tokens), or run on a faster model.device",
    "checking": "lower input.width",
    "scaling": "lower input.width",
    "mapping": "raise map.stride or map.voxel_size, or lower map.max_points",
    "publishing": "raise points.stride, or close a subscriber that is too slow",
    "commanded": "wait for it to end",
}


class Watchdog:
    """Looks, on a steady clock, for silence at the input and for a frame that is stuck."""

    def __init__(
        self,
        node: Node,
        images: ImageInput,
        activity: Callable[[], Activity],
        name: str = "image",
    ) -> None:
        """Watch ``images``, which are called ``name`` before they are remapped.

        Args:
            node: whose graph is looked at.
            images: the input of one camera.
            activity: what the worker is doing.
            name: of the images before remapping.

        """
        self._node = node
        self._images = images
        self._activity = activity
        self._name = name

    def stuck(self, timeout: float) -> str | None:
        """Return the warning about a frame that stays in one stage for ``timeout`` seconds."""
        activity = self._activity()
        seconds = monotonic() - activity.since
        if activity.stage == "idle" or seconds < timeout:
            return None
        return (
            f"an image has been in stage '{activity.stage}' for {seconds:.0f} s "
            f"(watchdog.timeout is {timeout:g} s): {_REMEDIES[activity.stage]}"
        )

    def silence(self, timeout: float) -> str | None:
        """Return the warning about an input without an image for ``timeout`` seconds."""
        seconds = monotonic() - self._images.last_image
        if self._images.held_back or seconds < timeout:
            return None
        return f"no image for {seconds:.0f} s on {self._images.topic}: {self._reason()}"

    def mixture(self) -> str | None:
        """Return the warning about images of several publishers on one topic."""
        mixed = self._images.mixed_publishers()
        if not mixed:
            return None
        return (
            f"{self._images.topic} has {len(mixed)} publishers ({', '.join(mixed)}), and their "
            f"images mix: stop all but one, or remap {self._name} to a topic that only "
            "one publishes"
        )

    def _reason(self) -> str:
        publishers = self._images.publishers()
        wanted = self._images.type_name
        if not publishers:
            return f"it has no publisher; {self._advice()}"
        types = sorted({each.topic_type for each in publishers})
        if wanted not in types:
            return f"it carries {', '.join(types)}, not {wanted}; {self._advice()}"
        return (
            f"publishers {qos.describe(publishers)}, subscription {self._images.reliability}; "
            "either they are silent, or their images are lost on the way (see 'Large images' "
            "in docs/node.md)"
        )

    def _advice(self) -> str:
        return advice(
            self._images.topic,
            TRANSPORTS.get(self._images.type_name, "raw"),
            self._name,
            published_topics(self._node),
        )
