# SPDX-License-Identifier: Apache-2.0
"""Every transform of the node that another node broadcasts, too, is told with what mends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

REASON = "needs ROS 2: run scripts/test, or source a workspace"
pytest.importorskip("rclpy", reason=REASON)
pytest.importorskip("tf2_msgs", reason=REASON)

from geometry_msgs.msg import TransformStamped
from rclpy.time import Time

from xsvggt_ros.geometry.rigid import Placement
from xsvggt_ros.ros.conversions import header
from xsvggt_ros.ros.parameters import Settings
from xsvggt_ros.ros.transforms import (
    FORGOTTEN,
    TransformBroadcaster,
    TransformOwners,
    broadcast,
    own_links,
)

PLACE = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
CAMERA = "camera_color_optical_frame"
DRIVER = [  # what realsense2_camera broadcasts on /tf_static
    ("camera_link", "camera_color_frame", True),
    ("camera_color_frame", CAMERA, True),
]
INVERTED = {"tf.invert_odom": True}
EXTERNAL = {"tf.odometry": "external"}


class _Clock:
    now = 0.0


def _faults(
    foreign: list[tuple[str, str, bool]], carrier: str = CAMERA, **values: Any
) -> list[str]:
    owners = TransformOwners()
    owners.note_carrier(carrier)
    for parent, child, static in foreign:
        owners.note_foreign(parent, child, static=static)
    named = {name.replace("__", "."): value for name, value in values.items()}
    return owners.conflicts(Settings.from_values(named))


CASES: dict[str, tuple[list[tuple[str, str, bool]], str, dict[str, Any], str, str, str]] = {
    "driver alone": (DRIVER, CAMERA, {}, CAMERA, "camera_color_frame",
                     "set frames.base to 'camera_link'"),
    "driver on a robot": ([*DRIVER, ("base_link", "camera_link", True)], CAMERA, {}, CAMERA,
                          "camera_color_frame", "set frames.base to 'base_link'"),
    "driver on a robot with wheels": (
        [*DRIVER, ("base_link", "camera_link", True), ("odom", "base_link", False)], CAMERA, {},
        CAMERA, "camera_color_frame", "set tf.odometry to external"),
    "amcl": ([("map", "odom", False)], CAMERA, {}, "odom", "map", "set tf.publish_map to false"),
    "static map": ([("map", "odom", True)], CAMERA, {}, "odom", "map",
                   "set tf.publish_map to false"),
    "another world": ([("earth", "odom", False)], CAMERA, {}, "odom", "earth",
                      "set tf.publish_map to false"),
    "amcl, external": ([("map", "odom", False), ("odom", "base_link", False)], "base_link",
                       {**EXTERNAL, "frames.base": "base_link"}, "odom", "map",
                       "set tf.publish_map to false"),
    "wheel odometry": ([("odom", "base_link", False)], "base_link", {"frames.base": "base_link"},
                       "base_link", "odom", "set tf.odometry to external"),
    "footprint": ([("base_footprint", "base_link", True)], "base_link",
                  {"frames.base": "base_link"}, "base_link", "base_footprint",
                  "set frames.base to 'base_footprint'"),
    "odometry of another name": ([("odom_combined", "base_link", False)], "base_link",
                                 {"frames.base": "base_link"}, "base_link", "odom_combined",
                                 "or frames.odom to 'odom_combined' and tf.odometry to external"),
    "motion capture": ([("map", "base_link", False)], "base_link", {"frames.base": "base_link"},
                       "base_link", "map", "set tf.publish_odom to false"),
    "inverted, amcl": ([("map", "odom", False)], CAMERA, INVERTED, "odom", "map",
                       "set tf.publish_odom to false"),
    "inverted, world": ([("earth", "map", True)], CAMERA, INVERTED, "map", "earth",
                        "set tf.publish_map to false"),
}  # fmt: skip


def _own_parent(child: str, carrier: str, values: dict[str, Any]) -> str:
    links = own_links(carrier, Settings.from_values(values))
    return next(link.parent for link in links if link.child == child)


@pytest.mark.parametrize("case", CASES)
def test_a_second_parent_is_told_with_its_name_and_the_remedy(case: str) -> None:
    foreign, carrier, values, child, parent, remedy = CASES[case]
    warnings = _faults(foreign, carrier, **values)
    if parent == _own_parent(child, carrier, values):
        (warning,) = warnings
        assert f"another node broadcasts the transform from '{parent}' to '{child}', too" in warning
        assert remedy in warning
        return
    (warning,) = [text for text in warnings if "two parents" in text]
    assert f"frame '{child}' has two parents" in warning
    assert f"another one below '{parent}'" in warning
    assert remedy in warning


@pytest.mark.parametrize(
    ("foreign", "carrier", "values", "switch"),
    [
        ([("base_link", "odom", False)], "base_link",
         {"frames.base": "base_link", "tf.publish_map": False}, "tf.publish_odom"),
        ([("odom", "map", False)], CAMERA, {}, "tf.publish_map"),
        ([("odom", CAMERA, False)], CAMERA, INVERTED, "tf.publish_odom"),
    ],
)  # fmt: skip
def test_a_loop_is_told(
    foreign: list[tuple[str, str, bool]], carrier: str, values: dict[str, Any], switch: str
) -> None:
    warnings = _faults(foreign, carrier, **values)
    assert any("a loop" in text and f"set {switch} to false" in text for text in warnings)


@pytest.mark.parametrize("case", CASES)
def test_the_remedy_helps(case: str) -> None:
    """What the warning asks for leaves no warning about the same frame."""
    foreign, carrier, values, child, _, remedy = CASES[case]
    if "set frames.base to 'camera_link'" in remedy or "set frames.base to 'base" in remedy:
        carrier = remedy.split("'")[1]
        values = {**values, "frames.base": carrier}
    elif "tf.odometry to external" in remedy:
        values = {**values, **EXTERNAL}
    else:
        values = {**values, remedy.split()[1]: False}
    assert not any(f"'{child}' has two" in text for text in _faults(foreign, carrier, **values))


DRIVERS = {
    "realsense": DRIVER,
    "zed": [
        ("odom", "zed_camera_link", False),
        ("zed_camera_link", "zed_camera_center", True),
        ("zed_camera_center", "zed_left_camera_frame", True),
        ("zed_left_camera_frame", CAMERA, True),
    ],
    "usb_cam": [],
    "jetson": [],
}
"""What the drivers of the shipped configurations broadcast."""


@pytest.mark.parametrize("name", DRIVERS)
def test_shipped_configurations_leave_the_drivers_their_transforms(name: str) -> None:
    path = Path(__file__).parents[2] / f"config/{name}.yaml"
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))["/**"]["ros__parameters"]
    values = {
        f"{group}.{own}": value for group, some in tree.items() for own, value in some.items()
    }
    carrier = values.get("frames.base") or values.get("frames.camera") or CAMERA
    assert _faults(DRIVERS[name], carrier, **values) == []


def test_transforms_of_others_that_do_not_meet_ours_are_no_fault() -> None:
    below = [
        ("base_link", "camera_link", True),
        ("camera_link", CAMERA, True),
        ("earth", "map", True),
    ]
    assert _faults(below, "base_link", **{"frames.base": "base_link"}) == []
    wheels = [*below, ("odom", "base_link", False)]
    assert _faults(wheels, "base_link", **{"frames.base": "base_link", **EXTERNAL}) == []
    silent = {"tf.publish_odom": False, "tf.publish_map": False}
    assert _faults([*DRIVER, ("map", "odom", False)], CAMERA, **silent) == []


def test_own_transforms_are_known_by_what_they_say() -> None:
    owners = TransformOwners()
    own = ("map", "odom", 7, PLACE)
    owners.note_own(own)
    assert not owners.comes_back(("map", "odom", 8, PLACE))
    assert not owners.comes_back(("map", "odom", 7, (1.0, *PLACE[1:])))
    assert owners.comes_back(own)
    assert not owners.comes_back(own), "another node that says the same"
    for _ in range(2):  # both cameras of a rig
        owners.note_own(own)
    assert [owners.comes_back(own) for _ in range(3)] == [True, True, False]
    for i in range(2000):
        owners.note_own(("odom", "c", i, PLACE))
    assert not owners.comes_back(("odom", "c", 0, PLACE))
    assert owners.comes_back(("odom", "c", 1999, PLACE))


def test_a_broadcaster_that_has_gone_is_forgotten_a_static_one_is_not() -> None:
    clock = _Clock()
    owners = TransformOwners(lambda: clock.now)
    owners.note_carrier(CAMERA)
    owners.note_foreign("map", "odom", static=False)
    owners.note_foreign("camera_color_frame", CAMERA, static=True)
    assert len(owners.conflicts(Settings())) == 2
    clock.now = FORGOTTEN
    (left,) = owners.conflicts(Settings())
    assert CAMERA in left
    owners.forget()
    assert owners.conflicts(Settings()) == []


def test_a_loop_among_others_ends_the_search() -> None:
    owners = TransformOwners()
    owners.note_carrier("a")
    for parent, child in (("b", "a"), ("a", "b")):
        owners.note_foreign(parent, child, static=True)
    assert owners.conflicts(Settings())


class _Paused:
    """A clock of a simulation that stands still until it is told otherwise."""

    seconds = 5

    def now(self) -> Time:
        return Time(seconds=self.seconds)


def test_a_clock_that_stands_repeats_nothing_nor_one_that_jumped_back(
    node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, sent = _Paused(), list[int]()
    monkeypatch.setattr(node, "get_clock", lambda: clock)
    broadcaster = TransformBroadcaster(node, TransformOwners())
    monkeypatch.setattr(
        broadcaster._broadcaster,
        "sendTransform",
        lambda links: sent.append(links[0].header.stamp.sec),
    )
    settings = Settings.from_values({"tf.map_tolerance": 1.0, "tf.odometry": "external"})
    still = Placement(np.eye(4), np.eye(4), np.eye(4), np.eye(4))

    def repeat() -> None:
        for _ in range(5):
            broadcaster.repeat_map(settings)

    broadcaster.publish(5_000_000_000, CAMERA, still, settings)
    repeat()
    assert sent == [5, 6]
    clock.seconds = 7
    repeat()
    assert sent == [5, 6, 8]
    clock.seconds = 2
    repeat()
    clock.seconds = 9
    repeat()
    assert sent == [5, 6, 8]
    clock.seconds = 3
    broadcaster.publish(3_000_000_000, CAMERA, still, settings)
    clock.seconds = 4
    repeat()
    assert sent == [5, 6, 8, 3, 5]


def test_own_links_are_what_is_broadcast() -> None:
    links = own_links("base", Settings.from_values(INVERTED))
    assert [(link.parent, link.child) for link in links] == [("odom", "map"), ("base", "odom")]


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_slash_of_ros_1_is_left_out_of_transforms(slash: str) -> None:
    link = TransformStamped(header=header(7, f"{slash}map"), child_frame_id=f"{slash}odom")
    assert broadcast(link) == ("map", "odom", 7, PLACE)
