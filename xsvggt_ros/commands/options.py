# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, spelt and explained alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xsvggt_ros.cache.settings import POLICY_CHOICES, CacheSettings
from xsvggt_ros.threads import ask_for_threads

if TYPE_CHECKING:
    from xsvggt_ros.stream.rerun_log import RerunLog

SourceArgument = Annotated[Path, typer.Argument(help="Directory of images, video, or ROS 1/2 bag.")]
Checkpoint = Annotated[
    str,
    typer.Option(
        help="Weights: a file, a Hugging Face id, or demo, the bundled ones. Default: demo, or "
        "random ones of a --preset."
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Sizes of the network (streamvggt, small, demo, tiny); default: the weights' own."
    ),
]
StoredPreset = Annotated[
    str | None,
    typer.Option(help="Sizes that the weights have; default: their own, or the official ones."),
]
Width = Annotated[
    int | None,
    typer.Option(help="Width of the network's input, a multiple of 14; default: the network's."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, ... or auto = cuda where there is one.")]
ARITHMETIC = "Arithmetic"
Dtype = Annotated[
    str,
    typer.Option(
        help="Of the aggregator: float32, bfloat16, float16, or auto = bfloat16 or float16 on "
        "CUDA, by its age, and float32 elsewhere.",
        rich_help_panel=ARITHMETIC,
    ),
]
HeadsDtype = Annotated[
    str,
    typer.Option(
        help="Of the heads: float32, bfloat16, float16, or auto = float32.",
        rich_help_panel=ARITHMETIC,
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        help="How linear layers are stored: full, int8_camera = with 8 bits in the camera head, "
        "int8 = everywhere; needs torchao.",
        rich_help_panel=ARITHMETIC,
    ),
]
Compiled = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Have torch.compile make kernels, which takes a minute at the first frame.",
        rich_help_panel=ARITHMETIC,
    ),
]


def _ask_for_threads(count: int) -> int:
    ask_for_threads(count)
    return count


Threads = Annotated[
    int,
    typer.Option(
        min=0,
        callback=_ask_for_threads,
        help="Threads on the CPU; 0 = OMP_NUM_THREADS, or as suits the network.",
        rich_help_panel=ARITHMETIC,
    ),
]
Policy = Annotated[
    str,
    typer.Option(
        help=f"What chooses the history: {', '.join(POLICY_CHOICES[:-1])} or {POLICY_CHOICES[-1]}."
    ),
]
Budget = Annotated[int, typer.Option(help="Most tokens that a layer holds after a frame.")]
BudgetMib = Annotated[
    float, typer.Option(help="Most MiB that the cache allocates, instead of --budget; 0 = off.")
]
KeyBits = Annotated[int, typer.Option(help="Width of cached keys: 2, 4, 8, or 16 = as they come.")]
ValueBits = Annotated[int, typer.Option(help="Width of cached values, likewise.")]
MaxFrames = Annotated[
    int | None,
    typer.Option(min=1, help="Stop after this many images."),
]
Topic = Annotated[
    str | None,
    typer.Option(help="Image topic of a bag, needed where it holds several."),
]
RerunViewer = Annotated[
    bool, typer.Option("--rerun", help="Show frames as they come in the Rerun viewer.")
]
RerunFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE.rrd", help="Write them into a recording for the Rerun viewer."),
]


def cache_settings(
    policy: str, budget: int, budget_mib: float, key_bits: int, value_bits: int
) -> CacheSettings:
    """Return the settings of the cache that the options ask for."""
    return CacheSettings(
        policy=policy,
        budget_tokens=budget,
        budget_mib=budget_mib,
        key_bits=key_bits,
        value_bits=value_bits,
    )


def rerun_log(viewer: bool, file: Path | None) -> RerunLog | None:
    """Return what hands frames to Rerun, None where nobody asked for it."""
    if not viewer and file is None:
        return None
    from xsvggt_ros.stream.rerun_log import RerunLog

    return RerunLog(viewer=viewer, file=file)
