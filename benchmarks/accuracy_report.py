# SPDX-License-Identifier: Apache-2.0
"""The tables and the figure of `accuracy.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
from accuracy_cells import (
    FULL,
    NO_HISTORY,
    PUBLISHED_BITS,
    Cell,
    Config,
    Means,
    published,
)
from intervals import SHARE, difference_of, mean_of, ratio_of

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

COLUMNS = (
    ("abs_rel_median", "AbsRel, median scale", 4),
    ("delta_1_median", "δ<1.25, median scale", 3),
    ("ate_sim3", "ATE Sim(3) %", 2),
    ("ate_se3_depth_scale", "ATE SE(3) %", 2),
    ("rpe_rotation_mean", "RPE rot. °", 3),
    ("rpe_translation_sim3", "RPE Sim(3) %", 2),
    ("rpe_translation_se3_depth_scale", "RPE SE(3) %", 2),
    ("accuracy_path_sim3", "accuracy m", 3),
    ("completeness_path_sim3", "completeness m", 3),
    ("network_ms", "network ms", 1),
    ("kib", "KiB", 0),
)
COMPARED = (
    "abs_rel_median", "delta_1_median", "ate_sim3", "ate_se3_depth_scale", "rpe_rotation_mean",
    "rpe_translation_sim3", "kib",
)  # fmt: skip
DRAWN = (
    ("abs_rel_median", "depth AbsRel after a median scale"),
    ("ate_sim3", "ATE after Sim(3) [% of extent]"),
    ("rpe_rotation_mean", "rotation RPE [degrees per frame]"),
)
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Told apart by colour-blind people too: Okabe, Ito, "Color Universal Design", 2008."""
MARKERS = "osD^vP"


def table(rows: Means) -> str:
    """Return the means as Markdown."""
    lines = [_line("cache", [title for _, title, _ in COLUMNS]), _rule(len(COLUMNS))]
    for config, row in rows.items():
        lines.append(_line(config.name, [f"{row[m]:.{digits}f}" for m, _, digits in COLUMNS]))
    return "\n".join(lines)


def comparisons(rows: Means) -> str:
    """Return each cache as a multiple of the full one and of the published one of its budget."""
    against_full = [(config, FULL) for config in rows if config != FULL and FULL in rows]
    against_published = [
        (config, published(config.budget))
        for config in rows
        if not config.published and config != FULL and published(config.budget) in rows
    ]
    parts = (("Full cache = 1", against_full),
             ("Published cache of the same budget = 1", against_published))  # fmt: skip
    return "\n\n".join(_comparison(title, rows, pairs) for title, pairs in parts if pairs)


PAIRED = ("abs_rel_median", "ate_sim3", "rpe_rotation_mean")


def paired(cells: dict[Config, list[Cell]]) -> str:
    """Return means with intervals, and against the full cache and the first bounded one.

    Differences are taken sequence by sequence; the path over the full cache's is one of means.
    """
    titles = {metric: title for metric, title, _ in COLUMNS}
    path = "ate_sim3"
    full = cells.get(FULL)
    first = next(
        (each for each in cells if each not in (FULL, NO_HISTORY) and not each.published), None
    )
    heads = [titles[metric] for metric in PAIRED]
    if full:
        heads += [f"{titles[metric]}: minus full cache" for metric in PAIRED]
        heads.append(f"{titles[path].removesuffix(' %')}: over full cache")
    if first:
        heads.append(f"{titles[path]}: minus {first.name}")
    lines = [_line(f"{SHARE} % intervals", heads), _rule(len(heads))]
    for config, each in cells.items():
        compared = [mean_of(_values(each, metric)) for metric in PAIRED]
        if full:
            compared += [
                difference_of(_values(each, metric), _values(full, metric)) for metric in PAIRED
            ]
            compared.append(ratio_of(_values(each, path), _values(full, path)))
        if first:
            compared.append(difference_of(_values(each, path), _values(cells[first], path)))
        texts = [estimate.show(3) for estimate in compared]
        if config == FULL:
            texts[len(PAIRED) : 2 * len(PAIRED) + 1] = ["-"] * (len(PAIRED) + 1)
        if config == first:
            texts[-1] = "-"
        lines.append(_line(config.name, texts))
    if full and NO_HISTORY in cells:
        lines += ["", need(cells)]
    return "\n".join(lines)


def _values(cells: list[Cell], metric: str) -> NDArray[np.float64]:
    return np.array([getattr(cell, metric) for cell in cells])


def need(cells: dict[Config, list[Cell]]) -> str:
    """Return how much worse no history is than everything, in words."""
    ratio = ratio_of(*(_values(cells[which], "ate_sim3") for which in (NO_HISTORY, FULL)))
    good = ratio.value >= 1.5 and ratio.low > 1
    verdict = "a yardstick" if good else "no yardstick: caches cannot be told apart here"
    what = "Need of memory, path without history over path with everything"
    return f"{what}: {ratio.show()}: {verdict}."


def draw_intervals(cells: dict[Config, list[Cell]], path: Path, title: str) -> None:
    """Draw the means of path and rotation errors with their intervals, best path first."""
    metrics = (("ate_sim3", "ATE after Sim(3) [% of extent]"),
               ("rpe_rotation_mean", "rotation, frame to frame [degrees]"))  # fmt: skip
    order = sorted(cells, key=lambda each: -sum(c.ate_sim3 for c in cells[each]))
    figure, places = plt.subplots(
        1, 2, figsize=(9.5, 0.32 * len(order) + 1.1), sharey=True, layout="constrained"
    )
    for place, (metric, label) in zip(places, metrics, strict=True):
        for row, config in enumerate(order):
            found = mean_of(_values(cells[config], metric))
            color = "black" if config in (FULL, NO_HISTORY) else COLORS[0]
            place.plot([found.low, found.high], [row, row], color=color, lw=2)
            place.plot(found.value, row, "o", color=color)
        place.set_xlabel(label)
        place.set_xlim(left=0)
        place.grid(alpha=0.3)
    places[0].set_yticks(range(len(order)), [config.name for config in order])
    figure.suptitle(f"{title}, {SHARE} % intervals", fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _comparison(title: str, rows: Means, pairs: list[tuple[Config, Config]]) -> str:
    titles = {metric: title for metric, title, _ in COLUMNS}
    heads = [titles[metric].removesuffix(" %").removesuffix(" °") for metric in COMPARED]
    lines = [_line(title, heads), _rule(len(COMPARED))]
    for config, reference in pairs:
        ratios = [_ratio(rows[config][m], rows[reference][m]) for m in COMPARED]
        lines.append(_line(config.name, ratios))
    return "\n".join(lines)


def _ratio(value: float, reference: float) -> str:
    return f"{value / reference:.3f}" if reference else "-"


def _line(name: str, cells: list[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def _rule(columns: int) -> str:
    return "|---|" + "---:|" * columns


def draw(rows: Means, path: Path, title: str) -> None:
    """Draw error against bytes: the policies above, the widths of the first one below."""
    halves = [(words, lines) for words, lines in _halves(rows) if lines]
    figure, axes = plt.subplots(
        len(halves), len(DRAWN), figsize=(15, 4.4 * len(halves)), sharey="col", sharex=True,
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for places, (words, lines) in zip(axes, halves, strict=True):
        for place, (metric, label) in zip(places, DRAWN, strict=True):
            _draw_lines(place, rows, lines, metric)
            place.set_ylabel(label)
            place.set_xscale("log")
            place.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            place.xaxis.set_major_formatter(FuncFormatter(lambda kib, _: f"{kib:g}"))
            place.xaxis.set_minor_formatter(NullFormatter())
            place.grid(alpha=0.3)
        places[-1].legend(title=words, loc="center left", bbox_to_anchor=(1.02, 0.5))
    for place in axes[-1]:
        place.set_xlabel("cache and scratch at the end [KiB]")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


Line = tuple[str, list[Config]]


def _halves(rows: Means) -> Iterator[tuple[str, list[Line]]]:
    ours = [config for config in rows if not config.published and config not in (FULL, NO_HISTORY)]
    policies = dict.fromkeys(config.policy for config in ours)
    released = ("published", [config for config in rows if config.published])
    by_policy = [
        (name, [c for c in ours if c.policy == name and c.bits == PUBLISHED_BITS])
        for name in policies
    ]
    yield f"policies, {PUBLISHED_BITS} bits", [released, *by_policy]
    first = next(iter(policies), "")
    widths = sorted({config.bits for config in ours if config.policy == first})
    yield (
        f"widths, {first}",
        [(f"{bits} bits", [c for c in ours if (c.policy, c.bits) == (first, bits)])
         for bits in widths],
    )  # fmt: skip


def _draw_lines(place: Axes, rows: Means, lines: list[Line], metric: str) -> None:
    if FULL in rows:
        place.axhline(rows[FULL][metric], color="black", lw=1.2, label="full cache")
    number = 0
    for name, configs in lines:
        points = sorted((rows[config]["kib"], rows[config][metric]) for config in configs)
        kib, errors = [x for x, _ in points], [y for _, y in points]
        if name == "published":
            place.plot(kib, errors, "x--", color="0.45", label=name)
            continue
        place.plot(kib, errors, MARKERS[number % len(MARKERS)] + "-", label=name, lw=1.6,
                   color=COLORS[number % len(COLORS)])  # fmt: skip
        number += 1
