# SPDX-License-Identifier: Apache-2.0
"""The few numbers that sum up a recording, for a page and for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from xsvggt_ros.stream.ground_truth import Comparison
    from xsvggt_ros.stream.recording import Recording

MIB = 1 << 20


class Figure(NamedTuple):
    """A number that counts: its value with the unit, and what it is."""

    value: str
    meaning: str


def mebibytes(count: int) -> str:
    """Return bytes in MiB, to three digits."""
    mib = count / MIB
    return f"{mib:.{max(0, min(2, 2 - len(str(int(mib))) + 1))}f} MiB"


def summarize_path(recording: Recording) -> list[Figure]:
    """Return how many frames there are and how long the path is, whatever becomes of the files."""
    places = np.array([pose[:3, 3] for pose in recording.poses]).reshape(-1, 3)
    length = float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum())
    figures = [Figure(f"{len(recording)}", "frames in the results")]
    figures.append(Figure(f"{length:.3f}", "length of the path, in the network's unit"))
    if recording.joins:
        figures.append(Figure(f"{recording.joins}", "times a new first frame took over"))
    return figures


def summarize(recording: Recording, comparison: Comparison | None) -> list[Figure]:
    """Return errors, where the truth is known, and the bytes of the cache after the last frame."""
    figures: list[Figure] = []
    if comparison is not None:
        figures += [
            Figure(
                f"{100 * comparison.relative_ate_sim3:.1f} %",
                "ATE after Sim(3), of the path's extent",
            ),
            Figure(
                f"{comparison.abs_rel_median:.3f}",
                f"depth AbsRel after one median scale, {len(comparison.depths)} frames",
            ),
        ]
    if recording.cache:
        last = recording.cache[-1]
        held = last.allocated + last.scratch
        figures += [
            Figure(mebibytes(held), "allocated for the cache, scratch included"),
            Figure(
                mebibytes(last.uncompressed),
                f"uncompressed: {last.uncompressed / max(held, 1):.1f} times as much",
            ),
        ]
    return figures
