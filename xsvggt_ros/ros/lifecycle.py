# SPDX-License-Identifier: Apache-2.0
"""A managed node whose transitions say why they fail.

See https://design.ros2.org/articles/node_lifecycle.html. A step that raises an XsvggtError has left
everything as it was: its transition fails, and may be tried again once the cause is mended.
Whatever else it raises sends the node through error processing, which gives all up again.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from xsvggt_ros.errors import XsvggtError, first_line

logger = logging.getLogger(__name__)


class ManagedNode(LifecycleNode):
    """Turns the transitions of a lifecycle node into four steps."""

    _failure: Exception | None = None
    _raises = False

    @abstractmethod
    def take_up(self) -> None:
        """Take what it needs to work."""

    @abstractmethod
    def activate(self) -> None:
        """Begin to work."""

    @abstractmethod
    def deactivate(self) -> None:
        """Stop to work, and keep what was taken."""

    @abstractmethod
    def give_up(self) -> None:
        """Give back what was taken; from any state, also half-way."""

    @property
    def label(self) -> str:
        """Name of the lifecycle state, such as inactive."""
        # rclpy offers no public way to ask a node of one's own.
        return str(self._state_machine.current_state[1])

    def destroy_node(self) -> None:
        """Destroy the node and its lifecycle, which rclpy forgets.

        The lifecycle holds on to the node below, and so to the shared memory of DDS.
        """
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()

    def autostart(self) -> None:
        """Configure and activate; raise what stands in the way."""
        self._raises = True
        try:
            for trigger in (self.trigger_configure, self.trigger_activate):
                if trigger() != TransitionCallbackReturn.SUCCESS and self._failure:
                    raise self._failure
        finally:
            self._raises = False

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Take up."""
        return self._attempt("configure", self.take_up)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to work."""
        return self._attempt("activate", self.activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop to work."""
        return self._attempt("deactivate", self.deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give up."""
        return self._attempt("clean up", self.give_up)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give up for good."""
        return self._attempt("shut down", self.give_up)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give up, so that the node may be configured again."""
        return self._attempt("recover", self.give_up)

    def _attempt(self, what: str, step: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            step()
        except XsvggtError as error:
            self._note_failure(error, f"cannot {what}: {error}")
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            text = f"cannot {what}: unexpected {type(error).__name__}: {first_line(error)}"
            logger.debug("%s", text, exc_info=True)
            self._note_failure(XsvggtError(text), text)
            return TransitionCallbackReturn.ERROR
        return TransitionCallbackReturn.SUCCESS

    def _note_failure(self, error: Exception, text: str) -> None:
        self._failure = error
        if not self._raises:
            logger.error("%s", text)
