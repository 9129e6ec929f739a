# SPDX-License-Identifier: Apache-2.0
"""Bytes of the cache over frames, against what all tokens would take as they came."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xsvggt_ros.stream.drawing.style import ESTIMATE, MUTED, WARM, Box, axes_at, dress
from xsvggt_ros.stream.summary import MIB, mebibytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from xsvggt_ros.stream.recording import Recording

MOST_DRAWN = 2_000
"""Frames of the curves; of more, every so many."""


def draw_cache(figure: Figure, box: Box, recording: Recording) -> None:
    """Draw allocated and uncompressed bytes; each curve says what it ends at."""
    axes = axes_at(figure, box)
    dress(axes, "memory of the past, MiB")
    axes.set_xlabel("frames")
    if not recording.cache:
        return
    stride = -(-len(recording.cache) // MOST_DRAWN)
    frames = np.arange(1, len(recording.cache) + 1)[::-1][::stride][::-1]
    rows = np.array([recording.cache[frame - 1] for frame in frames], np.float64) / MIB
    held, uncompressed = rows[:, 0] + rows[:, 1], rows[:, 2]
    axes.fill_between(frames, uncompressed, color=WARM, alpha=0.12, linewidth=0)
    axes.plot(frames, uncompressed, color=WARM, linewidth=2)
    axes.fill_between(frames, held, color=ESTIMATE, alpha=0.35, linewidth=0)
    axes.plot(frames, held, color=ESTIMATE, linewidth=2)
    top = 1.18 * max(uncompressed.max(), held.max(), 1e-9)
    axes.set(xlim=(0, max(1.0, 1.02 * frames[-1])), ylim=(0, top))
    last = recording.cache[-1]
    _name(axes, uncompressed[-1], top, f"uncompressed: {mebibytes(last.uncompressed)}", WARM)
    _name(axes, held[-1], top, f"allocated: {mebibytes(last.allocated + last.scratch)}", ESTIMATE)
    if last.scratch:
        axes.text(
            0.03, 0.95, f"allocated = cache {mebibytes(last.allocated)} + scratch "
            f"{mebibytes(last.scratch)}", color=MUTED, size=8.5, va="top",
            transform=axes.transAxes, parse_math=False,
        )  # fmt: skip


def _name(axes: Axes, height: float, top: float, text: str, color: str) -> None:
    """Write what a curve is above its end."""
    axes.text(
        0.985, height / top + 0.02, text, color=color, size=10, ha="right", va="bottom",
        transform=axes.transAxes, parse_math=False,
    )  # fmt: skip
