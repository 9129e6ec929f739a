# SPDX-License-Identifier: Apache-2.0
"""The one family of errors of this package.

Every message names the value, the limit and the remedy.
"""

from __future__ import annotations

from pathlib import Path


class XsvggtError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigurationError(XsvggtError):
    """A parameter or an option has a value that cannot work."""


class CheckpointError(XsvggtError):
    """Weights cannot be read, or are not those of this network."""


class SourceError(XsvggtError):
    """A directory, video or bag cannot be opened or read."""


class EvaluationError(XsvggtError):
    """There is too little to compute a metric from."""


class OutputError(XsvggtError):
    """A result cannot be written where it was asked for."""


class PartlyWrittenError(OutputError):
    """Some of several results cannot be written; the others are.

    Attributes:
        written: paths of the others.

    """

    def __init__(self, message: str, written: list[Path]) -> None:
        super().__init__(message)
        self.written = written


class FrameError(XsvggtError):
    """One frame is unusable: it is refused, and the stream goes on."""


class NonFiniteOutputError(FrameError):
    """The network answered NaN or infinity: the frame is refused and the session starts again."""


class DeviceFullError(FrameError):
    """The device ran out of memory: the frame is refused and the session starts again.

    Attributes:
        changes: parameters that the new session has another value of, by dotted name; empty where
            nothing could be given up.

    """

    def __init__(self, message: str, changes: dict[str, int | float]) -> None:
        super().__init__(message)
        self.changes = changes


class TransformMissingError(FrameError):
    """Where one coordinate frame is in another is not known at the time of a frame."""


class TransformTimeError(TransformMissingError):
    """A transform is known, but not at the time of a frame."""


class EnvironmentMissingError(XsvggtError):
    """Something outside this package is not installed or not reachable."""


def first_line(error: BaseException) -> str:
    """Return what ``error`` says in its first line, or its type where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
