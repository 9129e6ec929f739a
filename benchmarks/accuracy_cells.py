# SPDX-License-Identifier: Apache-2.0
"""The cells of `accuracy.py`: one cache on one sequence, kept in a file from run to run."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import mean
from typing import Any

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.errors import ConfigurationError


@dataclass(frozen=True)
class Config:
    """One cache; ``budget`` in frames, 0 = all; ``changes`` are other settings by name."""

    policy: str
    budget: int
    bits: int
    published: bool = False
    changes: tuple[tuple[str, int | str], ...] = ()

    @property
    def name(self) -> str:
        """What the table calls it."""
        if self == FULL:
            return "full cache"
        if self == NO_HISTORY:
            return "2 frames: no history"
        if self.published:
            return f"published, {self.budget} frames"
        changes = "".join(f", {name} {value}" for name, value in self.changes)
        return f"{self.policy}, {self.budget} frames, {self.bits} bits{changes}"

    def settings(self, frame_tokens: int) -> CacheSettings:
        """Return the settings for frames of so many tokens."""
        settings = CacheSettings(
            policy=self.policy,
            budget_tokens=max(1, self.budget * frame_tokens),
            key_bits=self.bits,
            value_bits=self.bits,
            camera_frames=2 if self == NO_HISTORY else CacheSettings().camera_frames,
            compatibility="published" if self.published else "none",
        )
        return replace(settings, **dict(self.changes))  # type: ignore[arg-type]


def changes_of(text: str) -> tuple[tuple[str, int | str], ...]:
    """Return what ``anchor_bits=8,adaptive=both`` says.

    Raises:
        ConfigurationError: a setting that a cache does not have, or that the benchmark varies.

    """
    kinds = {each.name: type(getattr(CacheSettings(), each.name)) for each in fields(CacheSettings)}
    known = [name for name in kinds if name not in ("policy", "budget_tokens", "compatibility")]
    changes = []
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            if name not in known:
                raise ValueError
            changes.append((name, kinds[name](value)))
        except ValueError as error:
            raise ConfigurationError(
                f"--changes '{part}' is no setting and value; write NAME=VALUE with one of "
                f"{', '.join(known)}"
            ) from error
    return tuple(changes)


FULL = Config("none", 0, 16)
NO_HISTORY = Config("sliding_window", 2, 16)
"""The anchor and the frame before, for tokens and the camera head alike."""
PUBLISHED_BITS = 4


def published(budget: int) -> Config:
    """Return the released code's cache."""
    return Config("xstreamvggt", budget, PUBLISHED_BITS, published=True)


@dataclass(frozen=True)
class Cell:
    """One cache on one sequence.

    Depth after one median scale per sequence. Paths after Sim(3), and after SE(3) once their
    lengths were multiplied with the scale of depth: ATE in percent of the path's extent, RPE from
    frame to frame, its translation in percent of the extent too, its rotation (which no alignment
    changes) in degrees. Cloud errors in metres after Sim(3). Milliseconds of the network per frame;
    KiB of the cache, scratch included. ``identity`` stands for all that decides the numbers: see
    `accuracy.py`.
    """

    identity: str
    name: str
    sequence: str
    abs_rel_median: float
    delta_1_median: float
    ate_sim3: float
    ate_se3_depth_scale: float
    rpe_rotation_mean: float
    rpe_translation_sim3: float
    rpe_translation_se3_depth_scale: float
    accuracy_path_sim3: float
    completeness_path_sim3: float
    network_ms: float
    kib: float


METRICS = tuple(field.name for field in fields(Cell) if field.type == "float")
Means = dict[Config, dict[str, float]]


def cell_of(row: Mapping[str, str]) -> Cell:
    """Return the cell that a row of a table's texts says."""
    values: dict[str, Any] = {
        name: float(text) if name in METRICS else text for name, text in row.items()
    }
    return Cell(**values)


def read_cells(path: Path) -> dict[str, Cell]:
    """Return the cells of earlier runs by their identity; a file of other columns has none."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if reader.fieldnames != [field.name for field in fields(Cell)]:
            return {}
        cells = [cell_of(row) for row in reader]
    return {cell.identity: cell for cell in cells}


def write_cells(cells: Iterable[Cell], path: Path) -> None:
    """Write all cells so far; whoever reads meanwhile finds the old file or the new one."""
    beside = path.with_suffix(".part")
    with beside.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Cell)])
        writer.writeheader()
        writer.writerows(asdict(cell) for cell in cells)
    beside.replace(path)


def means(cells: Mapping[Config, Sequence[Cell]]) -> Means:
    """Return the mean of each metric over the sequences."""
    return {
        config: {metric: mean(getattr(cell, metric) for cell in each) for metric in METRICS}
        for config, each in cells.items()
    }
