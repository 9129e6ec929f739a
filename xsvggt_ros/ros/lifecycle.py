# SPDX-License-Identifier: Apache-2.0
"""A managed node whose transitions say why they fail.

See https://design.ros2.org/articles/node_lifecycle.html. A step that raises an XsvggtError has left
everything as it was: its transition fails, and may be tried again once the cause is mended.
Whatever else it raises sends the node through error processing, which cleans up.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable
from functools import partial

from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from xsvggt_ros.errors import XsvggtError, first_line
from xsvggt_ros.ros.lifecycle_manager import ManagerBond

logger = logging.getLogger(__name__)


class ManagedNode(LifecycleNode):
    """Turns the transitions of a lifecycle node into four steps, with a bond while it is active."""

    _failure: Exception | None = None
    _raises = False
    _bond: ManagerBond | None = None

    @abstractmethod
    def configure(self) -> None:
        """Acquire resources."""

    @abstractmethod
    def activate(self) -> None:
        """Start working."""

    @abstractmethod
    def deactivate(self) -> None:
        """Stop working, and keep all resources."""

    @abstractmethod
    def cleanup(self) -> None:
        """Release all resources; from any state, also half-configured."""

    @abstractmethod
    def recover(self, failure: str) -> None:
        """Clean up after an unforeseen failure."""

    @property
    def label(self) -> str:
        """Name of the lifecycle state, such as inactive."""
        # rclpy offers no public way to ask a node of one's own.
        return str(self._state_machine.current_state[1])

    def destroy_node(self) -> None:
        """Destroy the node and its lifecycle, which rclpy forgets.

        The lifecycle holds on to the node below, and so to the shared memory of DDS.
        """
        self._end_bond()
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
        """Acquire resources."""
        return self._attempt("configure", self.configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to work."""
        answer = self._attempt("activate", self.activate)
        if answer == TransitionCallbackReturn.SUCCESS:
            self._bond = ManagerBond(self)
            self._bond.start()
        return answer

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop working."""
        self._end_bond()
        return self._attempt("deactivate", self.deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release all resources."""
        return self._attempt("clean up", self.cleanup)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give back what was taken, for good."""
        self._end_bond()
        return self._attempt("shut down", self.cleanup)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Clean up, so that the node may be configured again."""
        self._end_bond()
        failure = str(self._failure or "an unforeseen error")
        return self._attempt("recover", partial(self.recover, failure))

    def _end_bond(self) -> None:
        if self._bond is not None:
            self._bond.stop()
            self._bond = None

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
