# SPDX-License-Identifier: Apache-2.0
"""The map of the session on ~/map: latched, at a rate of its own, packed only for listeners."""

from __future__ import annotations

import logging
from array import array
from time import monotonic, perf_counter

import numpy as np
from rclpy.node import Node
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import PointCloud2
from sensor_msgs_py import point_cloud2
from std_msgs.msg import Header

from xsvggt_ros.ros import qos
from xsvggt_ros.ros.clouds import FIELDS, POINT, POINT_STEP
from xsvggt_ros.ros.conversions import header
from xsvggt_ros.ros.parameters import Map, Settings
from xsvggt_ros.stream.mapping import MapBuilder
from xsvggt_ros.stream.pipeline import FrameUpdate

logger = logging.getLogger(__name__)


class MapPublisher:
    """Keeps the map and publishes it; all on the worker's thread but :meth:`due`."""

    def __init__(self, node: Node) -> None:
        self._publisher = node.create_publisher(
            PointCloud2,
            "~/map",
            qos.LATCHED,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        self.builder = MapBuilder()
        self.seconds = 0.0
        """What the newest frame cost."""
        self._message = point_cloud2.create_cloud(Header(), FIELDS, np.zeros(1, POINT))
        self._message.is_dense = True
        self._too_large: Map | None = None
        self._stamp = 0
        self._published_changes = 0
        self._published_at = -float("inf")

    @property
    def points(self) -> int:
        """Voxels held."""
        return 0 if self.builder.map is None else len(self.builder.map)

    @property
    def nbytes(self) -> int:
        """Bytes allocated for the map and for packing it."""
        held = self.builder.map
        return (0 if held is None else held.nbytes) + len(self._message.data)

    def add(self, update: FrameUpdate, settings: Settings) -> None:
        """Take in what one frame brought, but nothing of an image that shows nothing."""
        started = perf_counter()
        result = update.result
        if update.unit_changed or (update.blind and result.index == 0):
            self.builder.clear()
        self._stamp = result.stamp
        if not settings.map.enabled:
            self.builder.drop()
        elif settings.map != self._too_large and not update.blind:
            self._add(update, settings)
        self.seconds = perf_counter() - started

    def _add(self, update: FrameUpdate, settings: Settings) -> None:
        try:
            self.builder.add(update.result, update.placement.map_from_camera, settings.map_settings)
        except MemoryError:
            # Whatever else comes of this image must come out all the same.
            self.builder.drop()
            self._too_large = settings.map
            logger.error(
                f"no memory for a map of {settings.map.max_points} points, so none is kept; lower "
                "map.max_points"
            )

    def due(self, rate: float) -> bool:
        """Return whether it is time to publish: changed, listened to, and not too soon."""
        return (
            self._published_changes != self.builder.changes
            and monotonic() - self._published_at >= 1 / rate
            and bool(self._publisher.get_subscription_count())
        )

    def publish(self, frame_id: str) -> None:
        """Publish the whole map; who comes later gets the same."""
        changes = self.builder.changes
        self._pack()
        self._message.header = header(self._stamp, frame_id)
        self._publisher.publish(self._message)
        self._published_changes = changes
        self._published_at = monotonic()

    def clear(self, frame_id: str) -> None:
        """Forget every point, and say so: what was latched would outlive it."""
        self.builder.clear()
        self.publish(frame_id)

    def drop(self, frame_id: str) -> None:
        """Forget every point and free the memory."""
        self.builder.drop()
        self.publish(frame_id)

    def _pack(self) -> None:
        count = self.points
        self._resize(count * POINT_STEP)
        self._message.width = count
        self._message.row_step = count * POINT_STEP
        if self.builder.map is not None:
            rows = np.frombuffer(self._message.data, np.float32)
            self.builder.map.pack(rows.reshape(count, len(FIELDS)))

    def _resize(self, size: int) -> None:
        """Let the message hold ``size`` bytes; fresh memory each time would cost more."""
        data = self._message.data
        assert isinstance(data, array)
        missing = size - len(data)
        if missing > 0:
            data.frombytes(bytes(missing))
        else:
            del data[size:]
