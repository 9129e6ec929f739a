# SPDX-License-Identifier: Apache-2.0
"""The node's parameters, each declared once.

A field of one of the groups below is the whole declaration: name, type, default, limits, unit,
whether it may change while the node runs, and the text. Descriptors, ``config/default.yaml`` and
the table of ``docs/node.md`` are made from it, and a :class:`Settings` is an immutable snapshot.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Literal

from xsvggt_ros.cache.settings import (
    ADAPTATIONS,
    ANCHOR_WIDTHS,
    BACKENDS,
    COMPATIBILITIES,
    DEFAULT_BUDGET_TOKENS,
    DEFAULT_POLICY,
    INDEX_SETS,
    MOST_MIB,
    POLICIES,
    WIDTHS,
    WINDOW_WIDTHS,
    CacheSettings,
)
from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.geometry.voxel_map import EVICTIONS, MOST_POINTS, VoxelSettings
from xsvggt_ros.model.config import PRESETS
from xsvggt_ros.ros.frame_names import fault_of
from xsvggt_ros.stream.mapping import MapSettings

Value = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Spec:
    """What one parameter is; limits are inclusive, ``choices`` exhaustive.

    A ``live`` one may change at any time, a ``fixed`` one never, all others while the node is
    unconfigured. ``words`` may be given as a list, too.
    """

    name: str
    default: Value
    text: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    step: int = 1
    choices: tuple[str, ...] | tuple[int, ...] = ()
    live: bool = False
    fixed: bool = False
    words: bool = False

    @property
    def limits(self) -> str:
        """Return the legal values in words, empty where every value is legal."""
        if self.choices:
            return ", ".join(str(choice) or '""' for choice in self.choices)
        if self.minimum is None:
            return ""
        step = f" in steps of {self.step}" if self.step > 1 else ""
        return f"{self.minimum:.10g} to {self.maximum:.10g}{step}"


def _parameter(default: Value, text: str, **rest: Any) -> Any:
    return field(default=default, metadata={"default": default, "text": text, **rest})


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """How the node comes up."""

    autostart: bool = _parameter(
        True,
        "Configure and activate at start; false = wait for a lifecycle manager, or for ros2 "
        "lifecycle set.",
        fixed=True,
    )


@dataclass(frozen=True, slots=True)
class Model:
    """Which network runs, and where."""

    checkpoint: str = _parameter(
        "",
        "Weights: a file (.pth, .safetensors), a Hugging Face id (owner/name), or demo, which come "
        "with the package and know only made-up rooms; empty = demo, or random ones of a preset.",
    )
    preset: str = _parameter(
        "",
        "Sizes of the network, for weights that do not carry them; empty = those they carry.",
        choices=("", *PRESETS),
    )
    device: str = _parameter(
        "auto", "Where the network runs, as PyTorch spells it; auto = cuda where there is one."
    )
    dtype: str = _parameter(
        "auto",
        "Precision of the network but its heads; auto = bfloat16 where CUDA computes in it, "
        "float16 on older cards, float32 on CPUs.",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    heads_dtype: str = _parameter(
        "auto",
        "Precision of the heads for camera and depth; auto = float32, as TF32 on CUDA where dtype "
        "is a half type.",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    weights: str = _parameter(
        "full",
        "How linear layers are stored: full as dtype says, int8_camera with 8 bits in the camera "
        "head, int8 everywhere; these need the package torchao.",
        choices=("full", "int8_camera", "int8"),
    )
    compile: bool = _parameter(
        False, "Have torch.compile make kernels, which takes a minute when the node is configured."
    )
    threads: int = _parameter(
        0,
        "Threads that compute on the CPU; 0 = OMP_NUM_THREADS where it is set, else as many as "
        "suit the network and the cores.",
        unit="threads",
        minimum=0,
        maximum=1024,
    )
    seed: int = _parameter(0, "Seed of the random weights.", minimum=0, maximum=2**31 - 1)
    attention_backend: str = _parameter(
        "auto",
        "Who attends over the cache; auto = the package flash-attn where it is installed and "
        "applies, else sdpa (PyTorch).",
        choices=BACKENDS,
    )
    cuda_graphs: bool = _parameter(
        True,
        "Whether a GPU is given a whole step at once, as soon as the cache is full; ~/status says "
        "whether it is.",
    )


@dataclass(frozen=True, slots=True)
class Cache:
    """How much history the network keeps, and how finely."""

    policy: str = _parameter(
        DEFAULT_POLICY,
        "What chooses the history that stays in the cache; none drops nothing, and memory grows.",
        choices=POLICIES,
        live=True,
    )
    budget_tokens: int = _parameter(
        DEFAULT_BUDGET_TOKENS,
        "Most tokens that a layer holds after a frame, the mean over layers where adaptive shares "
        "them out; policy none ignores it.",
        unit="tokens",
        minimum=1,
        maximum=2**24,
        live=True,
    )
    budget_mib: float = _parameter(
        0.0,
        "Most memory that the cache allocates, the camera head's aside; replaces budget_tokens by "
        "what fits at these widths and this resolution; policy none ignores it. 0 = no such bound.",
        unit="MiB",
        minimum=0.0,
        maximum=MOST_MIB,
        live=True,
    )
    key_bits: int = _parameter(
        4,
        "Width of a cached key; 16 = as the network gives it.",
        unit="bits",
        choices=WIDTHS,
        live=True,
    )
    value_bits: int = _parameter(
        4,
        "Width of a cached value; 16 = as the network gives it.",
        unit="bits",
        choices=WIDTHS,
        live=True,
    )
    anchor_bits: int = _parameter(
        0,
        "Width of the first frame's tokens and of all special tokens, where finer than the rest; "
        "0 = like the rest.",
        unit="bits",
        choices=ANCHOR_WIDTHS,
        live=True,
    )
    window_bits: int = _parameter(
        0,
        "16 = the newest frame is stored as it came until the next one comes; 0 = it is rounded at "
        "the end of its own step, which saves a frame's unquantized bytes in each layer.",
        unit="bits",
        choices=WINDOW_WIDTHS,
        live=True,
    )
    adaptive: str = _parameter(
        "off",
        "layers shares the budget out by each layer's need, scene lets it follow motion and "
        "novelty, both does both.",
        choices=ADAPTATIONS,
        live=True,
    )
    budget_min_tokens: int = _parameter(
        0,
        "Budget of a scene at rest, where adaptive follows the scene; 0 = half of the full one.",
        unit="tokens",
        minimum=0,
        maximum=2**24,
        live=True,
    )
    pool_size: int = _parameter(
        16,
        "Queries that are averaged into one before xstreamvggt scores tokens.",
        unit="tokens",
        minimum=1,
        maximum=4096,
        live=True,
    )
    camera_frames: int = _parameter(
        256,
        "Most frames that the camera head remembers; policy none ignores it.",
        unit="frames",
        minimum=2,
        maximum=2**20,
        live=True,
    )
    group_size: int = _parameter(
        64,
        "Keys that share a grid per channel.",
        unit="tokens",
        minimum=1,
        maximum=4096,
    )
    index_sets: str = _parameter(
        "layer",
        "layer = all heads of a layer keep the same tokens; head = each keeps its own.",
        choices=INDEX_SETS,
    )
    seed: int = _parameter(0, "Seed of the policy random.", minimum=0, maximum=2**31 - 1, live=True)
    compatibility: str = _parameter(
        "none",
        "published reproduces the released XStreamVGGT code, its overshoot of small budgets and "
        "its merely simulated quantization included; for comparisons.",
        choices=COMPATIBILITIES,
    )


@dataclass(frozen=True, slots=True)
class Input:
    """What is subscribed to, and what happens to images that come too fast."""

    image_transport: str = _parameter(
        "raw",
        "raw subscribes to `image`, compressed to `image/compressed`.",
        choices=("raw", "compressed"),
    )
    width: int = _parameter(
        0,
        "Width that images are resized to for the network; 0 = what the network was made for.",
        unit="pixels",
        minimum=0,
        maximum=2044,
        step=14,
    )
    queue_policy: Literal["latest", "all"] = _parameter(
        "latest",
        "latest drops the oldest waiting image and counts it; all takes every image in order, "
        "as far as the middleware keeps them (see Queue).",
        choices=("latest", "all"),
    )
    queue_size: int = _parameter(
        2,
        "Most images that wait for the network; with all, as many wait in the middleware, at "
        "least 50.",
        unit="frames",
        minimum=1,
        maximum=1024,
    )
    cameras: str = _parameter(
        "",
        "Names of the cameras of a rig, such as `left right` or a list of them: images come on "
        "`left/image` and so on, outputs go to `~/left/points` and so on; empty = a single camera.",
        words=True,
    )
    rig_wait: float = _parameter(
        0.1,
        "Longest that an image of a rig waits for those of the same time from other cameras.",
        unit="seconds",
        minimum=0.0,
        maximum=10.0,
    )
    reliability: str = _parameter(
        "auto",
        "QoS of the subscription; auto = reliable where all publishers are, else best_effort.",
        choices=("auto", "reliable", "best_effort"),
    )
    calibration: Literal["auto", "raw", "rectified", "ignore"] = _parameter(
        "auto",
        "What is made of camera_info: raw = distortion is removed and the intrinsics replace the "
        "network's, rectified = only the latter, auto = rectified where a word of the "
        "topic's name, between / and _, is rect or rectified, else raw, ignore = nothing.",
        choices=("auto", "raw", "rectified", "ignore"),
    )

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Names of the cameras; that of a single one is empty."""
        return tuple(self.cameras.replace(",", " ").split()) or ("",)


@dataclass(frozen=True, slots=True)
class Frames:
    """Names of the coordinate frames."""

    map: str = _parameter("map", "World frame, z up.")
    odom: str = _parameter("odom", "Frame of ~/odometry and ~/path, z up.")
    base: str = _parameter(
        "",
        "The robot's frame, whose pose is published, with where TF says the camera is on it; empty "
        "= the pose of the camera itself.",
    )
    camera: str = _parameter("", "Optical frame of the camera; empty = the image's frame_id.")

    def fault_of_camera(self, name: str) -> str | None:
        """Return why ``name`` cannot be the camera's optical frame, None where it can."""
        if name in (self.map, self.odom):
            return "is the name of frames.map or frames.odom, and no frame is its own parent"
        return fault_of(name)


@dataclass(frozen=True, slots=True)
class Points:
    """What goes into ~/points."""

    stride: int = _parameter(
        1, "Every how many pixels a point.", unit="pixels", minimum=1, maximum=64, live=True
    )
    min_confidence: float = _parameter(
        1.0,
        "Points below this confidence are NaN; confidences begin at 1.",
        minimum=0.0,
        maximum=1e6,
        live=True,
    )


@dataclass(frozen=True, slots=True)
class Depth:
    """What goes into ~/depth/image."""

    encoding: str = _parameter(
        "32FC1",
        "32FC1 = metres, NaN where unknown; 16UC1 = millimetres, 0 where unknown.",
        choices=("32FC1", "16UC1"),
        live=True,
    )


@dataclass(frozen=True, slots=True)
class Tf:
    """Which transforms are broadcast."""

    odometry: str = _parameter(
        "own",
        "own = odom to base (or camera) is this node's estimate, map to odom the identity; "
        "external = another node broadcasts odom to base, and only map to odom is broadcast here.",
        choices=("own", "external"),
    )
    publish_odom: bool = _parameter(
        True, "Broadcast odom to base (or camera); never with odometry external.", live=True
    )
    publish_map: bool = _parameter(True, "Broadcast map to odom.", live=True)
    invert_odom: bool = _parameter(
        False,
        "Broadcast base (or camera) to odom to map instead, where base has another parent already.",
        live=True,
    )
    timeout: float = _parameter(
        0.2,
        "How long an image waits for the transforms of its time before it is refused.",
        unit="seconds",
        minimum=0.0,
        maximum=10.0,
        live=True,
    )
    time_offset: float = _parameter(
        0.0,
        "Added to the stamp of transforms, so that others may look up slightly newer times.",
        unit="seconds",
        minimum=-10.0,
        maximum=10.0,
        live=True,
    )


@dataclass(frozen=True, slots=True)
class Scale:
    """What makes lengths metres."""

    source: str = _parameter(
        "none",
        "none = lengths in the model's own unit; fixed = scale.value; depth = measured depth of "
        "the same camera on `depth`; odometry = the way of the robot on `odom`.",
        choices=("none", "fixed", "depth", "odometry"),
    )
    value: float = _parameter(
        1.0,
        "Metres per unit of the model, for source fixed.",
        unit="m",
        minimum=1e-6,
        maximum=1e6,
        live=True,
    )


@dataclass(frozen=True, slots=True)
class Path:
    """What goes into ~/path."""

    max_poses: int = _parameter(
        500, "Newest poses that are kept.", unit="poses", minimum=1, maximum=5000, live=True
    )


@dataclass(frozen=True, slots=True)
class Map:
    """What is kept of the session on ~/map."""

    enabled: bool = _parameter(True, "Keep a map of the session; false frees it.", live=True)
    voxel_size: float = _parameter(
        0.05,
        "Edge of a voxel, which is one point of the map; a change takes the points over.",
        unit="metres",
        minimum=0.001,
        maximum=100.0,
        live=True,
    )
    max_points: int = _parameter(
        1_000_000,
        "Most voxels in the map; about 60 to 75 bytes each, and 20 more while somebody listens.",
        unit="points",
        minimum=1,
        maximum=MOST_POINTS,
        live=True,
    )
    eviction: Literal["age", "count"] = _parameter(
        "age",
        "What goes first when the map is full: age = what was longest not seen, count = what was "
        "seen in fewest points.",
        choices=EVICTIONS,
        live=True,
    )
    min_confidence: float = _parameter(
        1.5,
        "Points below this confidence stay out of the map; confidences begin at 1.",
        minimum=0.0,
        maximum=1e6,
        live=True,
    )
    stride: int = _parameter(
        1,
        "Every how many pixels a point; of near surfaces fewer are taken, 1.5 to 3 along each edge "
        "of a voxel.",
        unit="pixels",
        minimum=1,
        maximum=64,
        live=True,
    )
    rate: float = _parameter(
        1.0,
        "Most publications a second, where the map has changed and somebody listens.",
        unit="Hz",
        minimum=0.01,
        maximum=10.0,
        live=True,
    )


@dataclass(frozen=True, slots=True)
class Watchdog:
    """When silence is worth a warning."""

    timeout: float = _parameter(
        4.0,
        "Wall time without an image, or of one image in one stage, that is warned of.",
        unit="seconds",
        minimum=1.0,
        maximum=3600.0,
        live=True,
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of all parameters at one moment."""

    lifecycle: Lifecycle = Lifecycle()
    model: Model = Model()
    cache: Cache = Cache()
    input: Input = Input()
    frames: Frames = Frames()
    points: Points = Points()
    depth: Depth = Depth()
    tf: Tf = Tf()
    scale: Scale = Scale()
    path: Path = Path()
    map: Map = Map()
    watchdog: Watchdog = Watchdog()

    @classmethod
    def from_values(cls, values: Mapping[str, object]) -> Settings:
        """Build a snapshot from values by dotted name; those absent keep their default.

        Raises:
            ConfigurationError: values that are illegal, alone or together.

        """
        grouped: dict[str, dict[str, Value]] = {group: {} for group in _groups()}
        specs = {spec.name: spec for spec in specifications()}
        for name, value in values.items():
            group_name, _, own_name = name.partition(".")
            grouped[group_name][own_name] = taken(specs[name], value)
        settings = cls(**{name: group(**grouped[name]) for name, group in _groups().items()})
        _check(settings)
        return settings

    @property
    def cache_settings(self) -> CacheSettings:
        """What the cache is told.

        Raises:
            ConfigurationError: values that do not go together.

        """
        return CacheSettings(
            **{own.name: getattr(self.cache, own.name) for own in fields(Cache)},
            attention_backend=self.model.attention_backend,
        )

    @property
    def map_settings(self) -> MapSettings:
        """What the map is told."""
        own = self.map
        return MapSettings(
            VoxelSettings(own.voxel_size, own.max_points, own.eviction),
            min_confidence=own.min_confidence,
            stride=own.stride,
        )

    def values(self) -> dict[str, Value]:
        """Return all values by dotted name."""
        return {spec.name: self._value(spec.name) for spec in specifications()}

    def _value(self, name: str) -> Value:
        group, _, own = name.partition(".")
        value: Value = getattr(getattr(self, group), own)
        return value


def _groups() -> dict[str, type[Any]]:
    return {group.name: type(group.default) for group in fields(Settings)}


@cache
def specifications() -> tuple[Spec, ...]:
    """Return the declaration of every parameter, in the order of this file."""
    return tuple(
        Spec(name=f"{name}.{own.name}", **own.metadata)
        for name, group in _groups().items()
        for own in fields(group)
    )


def taken(spec: Spec, value: object) -> Value:
    """Return a value as the parameter has it: what YAML makes of it may be of another type.

    An integer is taken for a float, a list for words, and false for off, as YAML reads that.

    Raises:
        ConfigurationError: a value that cannot be meant, or that is beyond its limits.

    """
    kind = type(spec.default)
    if spec.words and (value is None or _is_list(value)):
        value = " ".join(map(str, value or ()))  # type: ignore[call-overload]
    elif kind is float and type(value) is int:
        value = float(value)
    elif value is False and "off" in spec.choices:
        value = "off"
    if type(value) is not kind:
        what = "has no value (null, or an empty list)" if value is None else f"is {value!r}"
        raise ConfigurationError(
            f"parameter {spec.name} must be of type {kind.__name__}, such as {spec.default!r}, but "
            f"{what}; correct it, or leave it out"
        )
    assert isinstance(value, (bool, int, float, str))
    _check_limits(spec, value)
    return value


def _check_limits(spec: Spec, value: Value) -> None:
    if spec.minimum is None or spec.maximum is None or isinstance(value, str):
        return
    if not spec.minimum <= value <= spec.maximum:  # NaN is in no range
        raise ConfigurationError(
            f"{spec.name} is {value}; legal are {spec.limits} {spec.unit}".rstrip()
        )


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple)) or type(value).__name__ in ("array", "ndarray")


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that ``name`` was probably meant to be."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def _check(settings: Settings) -> None:
    values = settings.values()
    for spec in specifications():
        _check_choice(spec, values[spec.name])
    _check_frames(settings.frames)
    _check_transforms(settings.tf)
    _check_cameras(settings)
    _ = settings.cache_settings


def _check_choice(spec: Spec, value: Value) -> None:
    if spec.choices and value not in spec.choices:
        nearest = nearest_name(str(value), map(str, spec.choices))
        hint = f"; did you mean '{nearest}'?" if nearest else ""
        raise ConfigurationError(f"{spec.name} is '{value}', not one of {spec.limits}{hint}")


def _check_frames(frames: Frames) -> None:
    given = {field.name: str(getattr(frames, field.name)) for field in fields(Frames)}
    for own_name, name in given.items():
        fault = fault_of(name)
        if fault and (name or own_name not in ("base", "camera")):
            raise ConfigurationError(
                f"frames.{own_name} '{name}' {fault}; name the frame, such as '{own_name}'"
            )
    names = [name for name in given.values() if name]
    if len(set(names)) < len(names):
        told = [f"frames.{own} '{name}'" for own, name in given.items() if name]
        raise ConfigurationError(
            f"{', '.join(told)} must differ: a frame has one parent; rename one of them"
        )


def _check_transforms(tf: Tf) -> None:
    if tf.invert_odom and tf.odometry == "external":
        raise ConfigurationError(
            "tf.invert_odom has nothing to invert with tf.odometry external, where another node "
            "broadcasts odom to base; set one of them otherwise"
        )


def _check_cameras(settings: Settings) -> None:
    names = settings.input.camera_names
    for name in names:
        if name and not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
            raise ConfigurationError(
                f"input.cameras names '{name}', which no topic can carry; use letters, digits and _"
            )
    if len(set(names)) < len(names):
        raise ConfigurationError(
            f"input.cameras names a camera twice: '{settings.input.cameras}'; give each its own"
        )
    if len(names) > 1 and settings.frames.camera:
        raise ConfigurationError(
            "frames.camera is one name for all cameras of input.cameras; leave it empty, and let "
            "each driver name its own frame"
        )
