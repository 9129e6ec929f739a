# SPDX-License-Identifier: Apache-2.0
"""What may be missing, where a test needs it to be there."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # the tests of the network need no package that evaluation needs
    from xsvggt_ros.evaluation.sources.base import EvaluationFrame, FrameTruth
    from xsvggt_ros.geometry.cameras import Intrinsics

Value = TypeVar("Value")


def present(value: Value | None) -> Value:
    """Return the value, which must not be None."""
    assert value is not None
    return value


def truth_of(frame: EvaluationFrame) -> FrameTruth:
    """Return what is known about a frame."""
    return present(frame.truth)


def true_pose(frame: EvaluationFrame) -> NDArray[np.float64]:
    """Return camera to world, optical frame, float64 [4, 4]."""
    return present(truth_of(frame).camera_to_world)


def true_depth(frame: EvaluationFrame) -> NDArray[np.float32]:
    """Return metres along the optical axis, float32 [H, W]."""
    return present(truth_of(frame).depth)


def true_intrinsics(frame: EvaluationFrame) -> Intrinsics:
    """Return the pinhole camera of a frame's depth, or else of its image."""
    return present(truth_of(frame).intrinsics)
