# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, named and explained in one place.

A command takes a whole class of settings as one parameter, ``cache: Annotated[CacheSettings,
CACHE]``; :func:`takes_options` makes an option of each of its fields. Defaults come from the class,
and so do texts and choices where its fields declare them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.paths import in_home
from xsvggt_ros.process import ask_for_threads

if TYPE_CHECKING:
    from xsvggt_ros.stream.rerun_log import RerunLog

SourceArgument = Annotated[Path, typer.Argument(help="Directory of images, video, or ROS 1/2 bag.")]
StoredPreset = Annotated[
    str | None,
    typer.Option(help="Sizes of the stored network; default: its own, or the official ones."),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, ... or auto = cuda where there is one.")]
ARITHMETIC = "Arithmetic"


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
MaxFrames = Annotated[int | None, typer.Option(min=1, help="Stop after this many images.")]
Topic = Annotated[
    str | None, typer.Option(help="Image topic of a bag, needed where it holds several.")
]
Refinement = Annotated[
    str,
    typer.Option(
        help="What poses are fused with: off = nothing, auto = steps in odom with the images, on = "
        "also poses in the map with the point head's points."
    ),
]
RerunViewer = Annotated[
    bool, typer.Option("--rerun", help="Show frames as they come in the Rerun viewer.")
]
RerunFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE.rrd", help="Write frames into a recording for the Rerun viewer."),
]


@dataclass(frozen=True)
class Group:
    """How the fields of a class of settings appear as options.

    Attributes:
        panel: heading in ``--help``.
        names: options of fields that are not called like the field.
        texts: help of fields that do not declare their own, by field.
        panels: other headings, by field.
        parsers: what turns the words of an option into the value of the field.
        without: fields that are no options.

    """

    panel: str | None = None
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    panels: Mapping[str, str] = field(default_factory=dict)
    parsers: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    def options(self, settings: type[Any]) -> list[inspect.Parameter]:
        """Return a parameter of a command for each field of a class of settings."""
        kinds = get_type_hints(settings)
        return [
            inspect.Parameter(
                each.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=each.default,
                annotation=Annotated[
                    str | None if each.name in self.parsers else kinds[each.name],
                    self._option(each),
                ],
            )
            for each in fields(settings)
            if each.name not in self.without
        ]

    def spelling(self, name: str) -> str:
        """Return the option of a field, such as ``--key-bits``."""
        return self.names.get(name, (f"--{name.replace('_', '-')}",))[0]

    def _option(self, declared: Field[Any]) -> Any:
        name = declared.name
        text = self.texts.get(name) or declared.metadata["text"]
        if choices := declared.metadata.get("choices"):
            text = f"{text} One of {', '.join(map(str, choices))}."
        return typer.Option(
            *self.names.get(name, (self.spelling(name),)),
            help=text,
            rich_help_panel=self.panels.get(name, self.panel),
        )

    def settings(self, kind: type[Any], given: dict[str, Any]) -> Any:
        """Return the settings that options ask for, and take these out of ``given``."""
        own = {each.name: given.pop(each.name) for each in fields(kind) if each.name in given}
        for name, parse in self.parsers.items():
            if own.get(name) is not None:
                own[name] = parse(own[name])
        return kind(**own)


@dataclass(frozen=True)
class MadeBy:
    """A parameter that a function makes of options of its own.

    Attributes:
        function: its parameters are the options; those that the command names too are shared.

    """

    function: Callable[..., Any]


def takes_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take its options as users give them.

    A leading ``~`` of a path is the home directory: shells leave it in ``--output=~/results``, and
    launch files in every argument. A parameter of the type ``Annotated[settings, Group(...)]``
    becomes an option for each field of the settings, one of the type ``Annotated[type,
    MadeBy(...)]`` the options of its function; the command is called with what these make.
    """
    # Not by get_type_hints: in Python 3.10 it hides the words of an option whose default is None.
    named = inspect.signature(command, eval_str=True).parameters
    makers: dict[str, Callable[[dict[str, Any]], Any]] = {}
    parameters: list[inspect.Parameter] = []
    for each in named.values():
        hint = each.annotation
        for way in getattr(hint, "__metadata__", ()):
            if isinstance(way, Group):
                makers[each.name] = functools.partial(way.settings, hint.__origin__)
                parameters += way.options(hint.__origin__)
                break
            if isinstance(way, MadeBy):
                inner = takes_options(way.function)
                options = inspect.signature(inner).parameters
                own = frozenset(options) - frozenset(named)
                makers[each.name] = functools.partial(_made, inner, frozenset(options), own)
                parameters += [option for name, option in options.items() if name in own]
                break
        else:
            parameters.append(each)

    @functools.wraps(command)
    def grouped(**given: Any) -> Any:
        for name, value in given.items():
            given[name] = in_home(value) if isinstance(value, Path) else value
        made = {name: make(given) for name, make in makers.items()}
        return command(**given, **made)

    grouped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    grouped.__annotations__ = {each.name: each.annotation for each in parameters}
    return grouped


def _made(
    function: Callable[..., Any],
    options: frozenset[str],
    own: frozenset[str],
    given: dict[str, Any],
) -> Any:
    """Return what a function makes of its options, and take its own ones out of ``given``."""
    return function(**{name: (given.pop if name in own else given.get)(name) for name in options})


CACHE = Group(
    panel="Cache",
    names={
        "budget_tokens": ("--budget", "--budget-tokens"),
        "seed": ("--cache-seed",),
    },
)
CHAIN = Group(
    panel="Chain of first frames",
    names={
        name: ("--" + f"chain_{name}".replace("_", "-"),)
        for name in ("length", "overlap", "min_confidence", "retry")
    },
)
NETWORK = Group(
    names={"compiled": ("--compile",)},
    texts={
        "checkpoint": "Weights: a file, a Hugging Face id, or demo, the bundled ones. Default: "
        "demo, or random ones of a --preset.",
        "preset": "Sizes of the network (streamvggt, lingbot, small, demo, ...); default: the "
        "weights' own.",
        "width": "Width of the network's input, a multiple of 14; default: the network's.",
        "device": "cpu, cuda, ... or auto = cuda where there is one.",
        "dtype": "Data type of the aggregator: float32, bfloat16, float16, or auto = float32 on "
        "CPUs, and on CUDA bfloat16, or float16 on cards before Ampere.",
        "heads_dtype": "Data type of the heads: float32, bfloat16, float16, or auto = float32.",
        "weights": "How linear layers are stored: full, int8_camera = with 8 bits in the camera "
        "head, int8 = everywhere; needs torchao.",
        "compiled": "Let torch.compile make kernels, which takes a minute at the first frame.",
    },
    panels=dict.fromkeys(("dtype", "heads_dtype", "weights", "compiled"), ARITHMETIC),
)


def four_numbers(text: str) -> tuple[float, float, float, float]:
    """Return the numbers of ``--intrinsics``.

    Raises:
        ConfigurationError: they are not four.

    """
    try:
        fx, fy, cx, cy = map(float, text.split(","))
    except ValueError:
        raise ConfigurationError(
            f"--intrinsics '{text}' is not FX,FY,CX,CY, such as 481.2,-480,319.5,239.5"
        ) from None
    return fx, fy, cx, cy


SELECTION = Group(
    panel="What is read from the source",
    names={"limit": ("--max-frames",)},
    texts={
        "kind": "Kind of a directory, such as tum, where its files leave it open.",
        "sequence": "One sequence of a path that holds several.",
        "start": "Frames left out at the beginning.",
        "stride": "Take every nth frame.",
        "limit": "Stop after this many frames.",
        "topic": "Image topic of a bag that holds several.",
        "depth_topic": "Depth topic of a bag that holds several; none = no depth.",
        "truth": "True poses of a bag: a topic, two TF frames as map->camera, a TUM, KITTI or "
        "EuRoC file, or none.",
        "tolerance": "Seconds by which stamps of image and ground truth may differ.",
        "intrinsics": "fx,fy,cx,cy in pixels, where the recording does not say.",
        "depth_scale": "Steps per metre of 16-bit depth, where it is not as usual for the kind.",
        "room": "Kind of room of a synthetic: source.",
    },
    parsers={"intrinsics": four_numbers},
    without=("width", "height"),
)
SCORING = Group(
    panel="How results are compared with the ground truth",
    texts={
        "rpe_delta": "Frames of a relative pose error.",
        "farthest": "Metres beyond which true depth is left out; default: none.",
        "cloud_points": "Points that clouds are compared with; 0 = none.",
        "fscore_distance": "Metres within which a point counts as found.",
        "scale_source": "What tells metres while the run goes on: depth or odometry, taken from "
        "the ground truth, none, or auto = depth where there is some.",
    },
    without=("depth_pixels",),
)


def rerun_log(viewer: bool, file: Path | None) -> RerunLog | None:
    """Return what sends frames to Rerun, None where it is not asked for."""
    if not viewer and file is None:
        return None
    from xsvggt_ros.stream.rerun_log import RerunLog

    return RerunLog(viewer=viewer, file=file)
