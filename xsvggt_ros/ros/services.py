# SPDX-License-Identifier: Apache-2.0
"""~/reset, ~/reanchor, ~/pause and ~/save_map: handed to the worker, answered when done.

The handlers are coroutines, so that the executor's thread goes on meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any, Protocol, TypeVar

from rclpy.node import Node
from rclpy.task import Future as RosFuture
from std_srvs.srv import SetBool, Trigger

from xsvggt_ros.errors import ConfigurationError, XsvggtError, first_line
from xsvggt_ros.geometry.files import cloud_writer
from xsvggt_ros.paths import in_home
from xsvggt_ros.srv import SaveMap
from xsvggt_ros.stream.mapping import MapBuilder

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Served(Protocol):
    """What the services act on; each raises ConfigurationError where there is no engine."""

    def reset(self, reason: str) -> Future[None]:
        """Forget stream, path and map before the next frame."""

    def reanchor(self, reason: str) -> Future[None]:
        """Start from a new first frame, in the same world."""

    def with_map(self, look: Callable[[MapBuilder], T]) -> Future[T]:
        """Call ``look`` with the map between two frames."""

    @property
    def paused(self) -> bool:
        """Whether images are dropped because somebody asked for it."""

    def pause(self) -> None:
        """Drop and count images from now on."""

    def resume(self) -> int:
        """Take images again; return how many were dropped meanwhile."""


class Services:
    """Offers the services of a node."""

    def __init__(self, node: Node, served: Served) -> None:
        self._node = node
        self._served = served
        self._paused_at = 0.0
        self._files = ThreadPoolExecutor(1, "xsvggt-files")
        """Writing a large map takes longer than the worker may be kept from its frames."""
        node.create_service(Trigger, "~/reset", self._reset)
        node.create_service(Trigger, "~/reanchor", self._reanchor)
        node.create_service(SetBool, "~/pause", self._pause)
        node.create_service(SaveMap, "~/save_map", self._save_map)

    def close(self) -> None:
        """Finish the current file."""
        self._files.shutdown()

    async def _reset(self, request: Any, response: Any) -> Any:
        try:
            await self._done(self._served.reset("asked for by ~/reset"))
        except XsvggtError as error:
            return self._refuse(response, f"no reset: {error}")
        return self._agree(response, "a new session begins with the next image")

    async def _reanchor(self, request: Any, response: Any) -> Any:
        try:
            await self._done(self._served.reanchor("asked for by ~/reanchor"))
        except XsvggtError as error:
            return self._refuse(response, f"no new first frame: {error}")
        return self._agree(
            response,
            "the next image is a new first frame; chain_joins and chain_state in ~/status say "
            "whether it could be joined to the world so far",
        )

    def _pause(self, request: Any, response: Any) -> Any:
        try:
            already = self._served.paused == request.data
        except ConfigurationError as error:
            return self._refuse(response, f"no pause: {error}")
        if already:
            return self._agree(response, f"{'paused' if request.data else 'running'} already")
        if request.data:
            self._paused_at = monotonic()
            self._served.pause()
            return self._agree(response, "paused: images are dropped and counted; all else stays")
        missed = self._served.resume()
        gap = monotonic() - self._paused_at
        return self._agree(response, f"resumed after {gap:.1f} s, {missed} images were dropped")

    async def _save_map(self, request: Any, response: Any) -> Any:
        try:
            path = in_home(request.path)
            response.points = await self._save(path)
        except XsvggtError as error:
            return self._refuse(response, f"the map was not saved: {error}")
        place = path.absolute()
        return self._agree(response, f"{response.points} points saved to {place}")

    async def _save(self, path: Path) -> int:
        write = cloud_writer(path)
        columns = await self._done(self._served.with_map(MapBuilder.snapshot))
        points = len(columns[0])
        if not points:
            raise ConfigurationError(
                "it is empty; wait for images, lower map.min_confidence, or set map.enabled"
            )
        await self._done(self._files.submit(write, path, *columns))
        return points

    def _agree(self, response: Any, text: str) -> Any:
        self._node.get_logger().info(text)
        response.success, response.message = True, text
        return response

    def _refuse(self, response: Any, text: str) -> Any:
        self._node.get_logger().error(text)
        response.success, response.message = False, text
        return response

    async def _done(self, work: Future[T]) -> T:
        """Wait for work on another thread without blocking the executor.

        Raises:
            XsvggtError: what it raised, or that it will not be done.

        """
        executor = self._node.executor
        finished: RosFuture[None] = RosFuture(executor=executor)

        def wake(_: object) -> None:
            finished.set_result(None)
            if executor is not None:
                executor.wake()

        work.add_done_callback(wake)
        await finished
        try:
            return work.result()
        except CancelledError as error:
            raise ConfigurationError("the node stops; start it again") from error
        except XsvggtError:
            raise
        except Exception as error:
            logger.exception("a service failed")
            raise ConfigurationError(
                f"unexpected {type(error).__name__}: {first_line(error)}; see the node's log"
            ) from error
