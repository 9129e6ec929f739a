# SPDX-License-Identifier: Apache-2.0
"""The node's parameters, each declared once.

A field of one of the groups below is the whole declaration: name, type, default, limits, unit,
whether it may change while the node runs, and the text. Descriptors, ``config/default.yaml`` and
the table of ``docs/node.md`` are made from it, and a :class:`Settings` is an immutable snapshot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Literal, get_type_hints

from xsvggt_ros.cache.settings import CacheSettings
from xsvggt_ros.declaration import Spec, Value, checked_value, declared
from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.geometry.voxel_map import EVICTIONS, MOST_POINTS, VoxelSettings
from xsvggt_ros.model.config import PRESETS
from xsvggt_ros.stream.chain_settings import ChainSettings
from xsvggt_ros.stream.frame import REFINEMENTS
from xsvggt_ros.stream.mapping import MapSettings


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """How the node comes up."""

    autostart: bool = declared(
        True,
        "Configure and activate at start; false = wait for a lifecycle manager or for ros2 "
        "lifecycle set.",
        fixed=True,
    )


@dataclass(frozen=True, slots=True)
class Model:
    """Which network runs, and where."""

    checkpoint: str = declared(
        "",
        "Weights: a file (.pth, .safetensors), a Hugging Face id (owner/name), or demo, the "
        "weights that come with the package and know only synthetic rooms; empty = demo, or random "
        "weights where a preset is given.",
    )
    preset: str = declared(
        "",
        "Sizes of the network, for weights that do not tell them; empty = as the weights tell.",
        choices=("", *PRESETS),
    )
    device: str = declared(
        "auto", "Where the network runs, as PyTorch spells it; auto = cuda where there is one."
    )
    dtype: str = declared(
        "auto",
        "Precision of the network without its heads; auto = bfloat16 where CUDA computes in it, "
        "float16 on older cards, float32 on CPUs.",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    heads_dtype: str = declared(
        "auto",
        "Precision of the camera and depth heads; auto = float32, computed in TF32 on CUDA where "
        "dtype is a half type.",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    weights: str = declared(
        "full",
        "How linear layers are stored: full = as dtype says, int8_camera = 8 bits in the camera "
        "head, int8 = 8 bits everywhere; both need the package torchao.",
        choices=("full", "int8_camera", "int8"),
    )
    compile: bool = declared(
        False, "Let torch.compile generate kernels; configuring then takes a minute longer."
    )
    threads: int = declared(
        0,
        "Threads that compute on the CPU; 0 = OMP_NUM_THREADS if set, else a number that suits the "
        "network and the cores.",
        unit="threads",
        minimum=0,
        maximum=1024,
    )
    seed: int = declared(0, "Seed of the random weights.", minimum=0, maximum=2**31 - 1)
    cuda_graphs: bool = declared(
        True,
        "Launch a whole step on a GPU as one CUDA graph once the cache is full; ~/status says "
        "whether that happens.",
    )


@dataclass(frozen=True, slots=True)
class Input:
    """What is subscribed to, and what happens to images that come too fast."""

    image_transport: str = declared(
        "raw",
        "raw subscribes to `image`, compressed to `image/compressed`.",
        choices=("raw", "compressed"),
    )
    width: int = declared(
        0,
        "Width to which images are resized for the network; 0 = the width it was trained for.",
        unit="pixels",
        minimum=0,
        maximum=2044,
        step=14,
    )
    queue_policy: Literal["latest", "all"] = declared(
        "latest",
        "latest drops the oldest waiting image and counts it; all processes every image in order, "
        "as far as the middleware keeps them (see Queue).",
        choices=("latest", "all"),
    )
    queue_size: int = declared(
        2,
        "Largest number of images that wait for the network; with all, as many again wait in the "
        "middleware, at least 50.",
        unit="frames",
        minimum=1,
        maximum=1024,
    )
    cameras: str = declared(
        "",
        "Names of the cameras of a rig, such as `left right` or a list of them: images come on "
        "`left/image` and so on, outputs go to `~/left/points` and so on; empty = a single camera.",
        words=True,
    )
    rig_wait: float = declared(
        0.1,
        "How long an image of a rig waits at most for those of the same time from other cameras.",
        unit="seconds",
        minimum=0.0,
        maximum=10.0,
    )
    reliability: str = declared(
        "auto",
        "QoS of the subscription; auto = reliable where all publishers are, else best_effort.",
        choices=("auto", "reliable", "best_effort"),
    )
    calibration: Literal["auto", "raw", "rectified", "ignore"] = declared(
        "auto",
        "How camera_info is used: raw = distortion is removed and the intrinsics replace the "
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

    map: str = declared("map", "The world frame, z up.")
    odom: str = declared("odom", "The frame of ~/odometry, z up.")
    base: str = declared(
        "",
        "The robot's frame, whose pose is published; TF must tell where the camera is on it. Empty "
        "= the pose of the camera itself is published.",
    )
    camera: str = declared("", "The camera's optical frame; empty = the image's frame_id.")

    def fault_of_camera(self, name: str) -> str | None:
        """Return why ``name`` cannot be the camera's optical frame, None where it can."""
        if name in (self.map, self.odom):
            return "is the name of frames.map or frames.odom, and no frame is its own parent"
        return fault_of(name)


@dataclass(frozen=True, slots=True)
class Points:
    """What goes into ~/points."""

    stride: int = declared(
        1, "Take every nth pixel, along both axes.", unit="pixels", minimum=1, maximum=64, live=True
    )
    min_confidence: float = declared(
        1.0,
        "Points below this confidence are NaN; confidences start at 1.",
        minimum=0.0,
        maximum=1e6,
        live=True,
    )


@dataclass(frozen=True, slots=True)
class Depth:
    """What goes into ~/depth/image."""

    encoding: str = declared(
        "32FC1",
        "32FC1 = metres, NaN where unknown; 16UC1 = millimetres, 0 where unknown.",
        choices=("32FC1", "16UC1"),
        live=True,
    )
    min_confidence: float = declared(
        1.0,
        "Depth below this confidence is unknown; confidences start at 1.",
        minimum=0.0,
        maximum=1e6,
        live=True,
    )


@dataclass(frozen=True, slots=True)
class Tf:
    """Which transforms are broadcast."""

    odometry: str = declared(
        "own",
        "own = odom to base (or camera) is this node's estimate, map to odom "
        "the difference between the pose in the map and the sum of steps; "
        "external = another node broadcasts odom to base, and only map to odom is broadcast here.",
        choices=("own", "external"),
    )
    publish_odom: bool = declared(
        True, "Broadcast odom to base (or camera); never with odometry external.", live=True
    )
    publish_map: bool = declared(True, "Broadcast map to odom.", live=True)
    invert_odom: bool = declared(
        False,
        "Broadcast base (or camera) to odom to map instead, where base has another parent already.",
        live=True,
    )
    timeout: float = declared(
        0.2,
        "How long an image waits for the transforms of its time before it is refused.",
        unit="seconds",
        minimum=0.0,
        maximum=10.0,
        live=True,
    )
    map_rate: float = declared(
        10.0,
        "How often map to odom is repeated, stamped ahead of the clock: always where another "
        "node broadcasts odom to the base, else in pauses; 0 = never.",
        unit="Hz",
        minimum=0.0,
        maximum=20.0,
        live=True,
    )
    map_tolerance: float = declared(
        0.2,
        "How far ahead of the clock a repeated map to odom is stamped; keep it 0.1 s above the "
        "time between two.",
        unit="seconds",
        minimum=0.0,
        maximum=5.0,
        live=True,
    )
    time_offset: float = declared(
        0.0,
        "Added to the stamps of transforms, so that others can look up slightly newer times.",
        unit="seconds",
        minimum=-10.0,
        maximum=10.0,
        live=True,
    )


@dataclass(frozen=True, slots=True)
class Scale:
    """What makes lengths metres."""

    source: str = declared(
        "none",
        "none = lengths stay in the model's own unit; fixed = scale.value; depth = measured depth "
        "of the same camera on `depth`; odometry = the path of the robot on `odom`.",
        choices=("none", "fixed", "depth", "odometry"),
    )
    value: float = declared(
        1.0,
        "Metres per unit of the model, for source fixed.",
        unit="m",
        minimum=1e-6,
        maximum=1e6,
        live=True,
    )


@dataclass(frozen=True, slots=True)
class Pose:
    """How poses are refined."""

    refinement: str = declared(
        "auto",
        "off = poses as the network predicts them; auto = steps in odom fused with steps measured "
        "on the images; on = also poses in map fused with a registration of the points of the "
        "point head, which then runs as well (LingBot-Map has none). Where the measurement is the "
        "less precise of the two, the pose stays as it is.",
        choices=REFINEMENTS,
        live=True,
        renamed={False: "off", True: "on"},
    )


@dataclass(frozen=True, slots=True)
class Path:
    """What goes into ~/path."""

    max_poses: int = declared(
        500,
        "How many of the newest poses are kept.",
        unit="poses",
        minimum=1,
        maximum=5000,
        live=True,
    )


@dataclass(frozen=True, slots=True)
class Map:
    """What is kept of the session on ~/map."""

    enabled: bool = declared(True, "Keep a map of the session; false frees its memory.", live=True)
    voxel_size: float = declared(
        0.05,
        "Edge of a voxel, which is one point of the map; a change keeps the points.",
        unit="metres",
        minimum=0.001,
        maximum=100.0,
        live=True,
    )
    max_points: int = declared(
        1_000_000,
        "Largest number of voxels in the map; each takes 60 to 75 bytes, and 20 more while "
        "somebody listens.",
        unit="points",
        minimum=1,
        maximum=MOST_POINTS,
        live=True,
    )
    eviction: Literal["age", "count"] = declared(
        "age",
        "What is removed first when the map is full: age = the voxels not seen for longest, count "
        "= those with the fewest points.",
        choices=EVICTIONS,
        live=True,
    )
    min_confidence: float = declared(
        1.5,
        "Points below this confidence stay out of the map; confidences start at 1.",
        minimum=0.0,
        maximum=1e6,
        live=True,
    )
    stride: int = declared(
        1,
        "Take every nth pixel, along both axes; of near surfaces fewer, so that 1.5 to 3 points "
        "fall on each edge of a voxel.",
        unit="pixels",
        minimum=1,
        maximum=64,
        live=True,
    )
    clear_after: int = declared(
        3,
        "Remove a voxel once this many images in a row have seen through it; 0 = never.",
        unit="frames",
        minimum=0,
        maximum=100,
        live=True,
    )
    movers_delay: float = declared(
        8.0,
        "Points that appear where images of this time back saw empty space stay out of the map, as "
        "people do who walk by; 0 = everything goes in at once.",
        unit="seconds",
        minimum=0.0,
        maximum=3600.0,
        live=True,
    )
    rate: float = declared(
        1.0,
        "How often the map is published at most, when it has changed and somebody listens.",
        unit="Hz",
        minimum=0.01,
        maximum=10.0,
        live=True,
    )


@dataclass(frozen=True, slots=True)
class Watchdog:
    """When silence is worth a warning."""

    timeout: float = declared(
        4.0,
        "Warn after this wall time without an image, or with one image in the same stage.",
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
    cache: CacheSettings = field(default_factory=CacheSettings)
    input: Input = Input()
    frames: Frames = Frames()
    points: Points = Points()
    depth: Depth = Depth()
    tf: Tf = Tf()
    scale: Scale = Scale()
    pose: Pose = Pose()
    chain: ChainSettings = field(default_factory=ChainSettings)
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
            grouped[group_name][own_name] = checked_value(specs[name], value)
        settings = cls(**{name: group(**grouped[name]) for name, group in _groups().items()})
        _check(settings)
        return settings

    @property
    def map_settings(self) -> MapSettings:
        """What the map is told."""
        own = self.map
        return MapSettings(
            VoxelSettings(own.voxel_size, own.max_points, own.eviction),
            min_confidence=own.min_confidence,
            stride=own.stride,
            clear_after=own.clear_after,
            movers_delay=own.movers_delay,
        )

    def values(self) -> dict[str, Value]:
        """Return all values by dotted name."""
        return {spec.name: self._value(spec.name) for spec in specifications()}

    def _value(self, name: str) -> Value:
        group, _, own = name.partition(".")
        value: Value = getattr(getattr(self, group), own)
        return value


def _groups() -> dict[str, type[Any]]:
    return get_type_hints(Settings)


@cache
def specifications() -> tuple[Spec, ...]:
    """Return the declaration of every parameter, in the order of this file."""
    return tuple(
        Spec(name=f"{name}.{own.name}", **own.metadata)
        for name, group in _groups().items()
        for own in fields(group)
    )


def _check(settings: Settings) -> None:
    _check_frames(settings.frames)
    _check_transforms(settings.tf)
    _check_cameras(settings)


def fault_of(name: str) -> str | None:
    """Return what is wrong with a name, None where nothing is."""
    if not name:
        return "is empty"
    if name.startswith("/"):
        return "begins with a slash, which tf2 refuses"
    if any(map(str.isspace, name)):
        return "holds a blank"
    return None


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
