# SPDX-License-Identifier: Apache-2.0
"""Finds out what a path holds, and opens it with its ground truth."""

from __future__ import annotations

from pathlib import Path

from xsvggt_ros.errors import SourceError
from xsvggt_ros.evaluation.frame import EvaluationFrame, FrameTruth
from xsvggt_ros.evaluation.sources.base import EvaluationSource, SourceOptions
from xsvggt_ros.evaluation.sources.synthetic import PREFIX, SyntheticSource

__all__ = ["EvaluationFrame", "EvaluationSource", "FrameTruth", "SourceOptions", "open_source"]


def open_source(path: str | Path, options: SourceOptions | None = None) -> EvaluationSource:
    """Open a recording with its ground truth.

    Args:
        path: a bag, a folder of a data set, or ``synthetic:NAME`` of a held-out sequence.
        options: what to take of it.

    Raises:
        SourceError: nothing is there, nothing can read it, or it may be read in several ways; the
            message lists them.
        ConfigurationError: an option that is out of range or does not apply.

    """
    options = options or SourceOptions()
    if str(path).startswith(PREFIX):
        return SyntheticSource(str(path), options)
    raise SourceError(f"{path} is nothing that can be evaluated: give {PREFIX}NAME")
