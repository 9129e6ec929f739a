# SPDX-License-Identifier: Apache-2.0
"""The files of config/: every value is legal, and every topic exists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from xsvggt_ros.ros.parameters import Settings, specifications

CONFIG = Path(__file__).parents[2] / "config"
OUTPUTS = {"points", "depth/image", "depth/camera_info", "confidence/image"}
OUTPUTS |= {"odometry", "pose", "path", "status", "map"}


def _values(path: Path) -> dict[str, Any]:
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))["/**"]["ros__parameters"]
    return {f"{group}.{name}": value for group, own in tree.items() for name, value in own.items()}


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.yaml")), ids=lambda path: path.stem)
def test_values_are_legal_together(path: Path) -> None:
    values = _values(path)
    known = {spec.name: spec for spec in specifications()}
    assert set(values) <= set(known)
    for name, value in values.items():
        spec = known[name]
        assert type(value) is type(spec.default), name
        if not isinstance(value, str) and spec.minimum is not None and spec.maximum is not None:
            assert spec.minimum <= value <= spec.maximum, name
            assert isinstance(value, float) or (value - spec.minimum) % spec.step == 0, name
    assert Settings.from_values(values)


def test_cameras_and_machines_differ_from_the_default() -> None:
    default = Settings().values()
    for path in CONFIG.glob("*.yaml"):
        changed = {name for name, value in _values(path).items() if default[name] != value}
        assert path.stem == "default" or changed == set(_values(path)), path.stem


def _topics(tree: Any) -> set[str]:
    if isinstance(tree, dict):
        return set().union(*(_topics([*pair]) for pair in tree.items()), set())
    if isinstance(tree, list):
        return set().union(*map(_topics, tree), set())
    return {tree.split(".")[0]} if isinstance(tree, str) and tree.startswith("/") else set()


def test_views_show_topics_that_exist() -> None:
    foxglove = json.loads((CONFIG / "xsvggt.foxglove.json").read_text(encoding="utf-8"))
    rviz = yaml.safe_load((CONFIG / "xsvggt.rviz").read_text(encoding="utf-8"))
    known = {f"/xsvggt/{topic}" for topic in OUTPUTS} | {"/diagnostics"}
    for topics in (_topics(foxglove), _topics(rviz)):
        assert topics <= known
        assert {"/xsvggt/points", "/xsvggt/map", "/xsvggt/path", "/xsvggt/depth/image"} <= topics


def test_the_layout_of_foxglove_holds_every_panel_once() -> None:
    layout = json.loads((CONFIG / "xsvggt.foxglove.json").read_text(encoding="utf-8"))

    def leaves(tree: Any) -> list[str]:
        if isinstance(tree, str):
            return [tree]
        return leaves(tree["first"]) + leaves(tree["second"])

    assert sorted(leaves(layout["layout"])) == sorted(layout["configById"])
