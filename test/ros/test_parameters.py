# SPDX-License-Identifier: Apache-2.0
"""The parameter table, and what is made from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from xsvggt_ros.declaration import Spec, nearest_name
from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.ros.parameter_texts import (
    TABLE_BEGIN,
    TABLE_END,
    default_yaml,
    markdown_table,
    with_table,
)
from xsvggt_ros.ros.parameters import Settings, specifications
from xsvggt_ros.stream.worker import FrameQueue

ROOT = Path(__file__).parents[2]


def _flat(tree: dict[str, dict[str, object]]) -> dict[str, object]:
    return {f"{group}.{name}": v for group, own in tree.items() for name, v in own.items()}


def test_default_yaml_is_what_the_table_makes() -> None:
    written = (ROOT / "config/default.yaml").read_text(encoding="utf-8")
    assert written == default_yaml(), "run python -m xsvggt_ros.ros.parameter_texts"


def test_documentation_is_what_the_table_makes() -> None:
    page = (ROOT / "docs/node.md").read_text(encoding="utf-8")
    assert page == with_table(page), "run python -m xsvggt_ros.ros.parameter_texts"


def test_default_yaml_holds_every_default_with_its_type() -> None:
    values = _flat(yaml.safe_load(default_yaml())["/**"]["ros__parameters"])
    expected = {spec.name: spec.default for spec in specifications()}
    assert values == expected
    assert {name: type(v) for name, v in values.items()} == {
        name: type(v) for name, v in expected.items()
    }


def test_the_table_replaces_what_is_between_its_marks() -> None:
    page = f"before\n{TABLE_BEGIN}\nold\n{TABLE_END}\nafter\n"
    assert with_table(page) == f"before\n{TABLE_BEGIN}\n{markdown_table()}\n{TABLE_END}\nafter\n"


def test_every_parameter_is_in_the_markdown_table_once() -> None:
    rows = markdown_table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [spec.name for spec in specifications()]


@pytest.mark.parametrize("spec", specifications(), ids=lambda spec: spec.name)
def test_defaults_are_legal_and_texts_are_sentences(spec: Spec) -> None:
    assert spec.text.endswith(".")
    assert not spec.choices or spec.default in spec.choices
    if spec.minimum is not None and spec.maximum is not None:
        assert spec.minimum <= float(spec.default) <= spec.maximum
        assert (float(spec.default) - spec.minimum) % spec.step == 0 or spec.step == 1


def test_a_snapshot_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().points.stride = 2  # type: ignore[misc]


def test_values_and_snapshots_are_the_same_thing() -> None:
    changed = Settings.from_values({"points.stride": 3, "frames.odom": "vo"})
    assert (changed.points.stride, changed.frames.odom) == (3, "vo")
    assert Settings.from_values(changed.values()) == changed


CHOICES = [spec for spec in specifications() if spec.choices]


@given(spec=st.sampled_from(CHOICES), value=st.text(max_size=12))
def test_only_the_choices_are_legal(spec: Spec, value: str) -> None:
    if value in spec.choices:
        assert Settings.from_values({spec.name: value}).values()[spec.name] == value
    else:
        with pytest.raises(ConfigurationError, match=spec.name):
            Settings.from_values({spec.name: value})


def test_a_misspelt_choice_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'latest'"):
        Settings.from_values({"input.queue_policy": "lastest"})


@pytest.mark.parametrize(
    "frames",
    [
        {"frames.map": "world", "frames.odom": "world"},
        {"frames.camera": "odom"},
        {"frames.camera": "map"},
    ],
)
def test_frames_must_differ(frames: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="must differ"):
        Settings.from_values(frames)


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("frames.map", "", "is empty"),
        ("frames.odom", "", "is empty"),
        ("frames.odom", "/odom", "begins with a slash"),
        ("frames.map", "a b", "holds a blank"),
        ("frames.camera", "/camera", "begins with a slash"),
    ],
)
def test_frames_have_names_that_tf_can_have(name: str, value: str, fault: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} '{value}' {fault}"):
        Settings.from_values({name: value})


@given(st.sampled_from([spec.name for spec in specifications()]), st.data())
def test_a_name_with_one_letter_missing_is_recognised(name: str, data: st.DataObject) -> None:
    missing = data.draw(st.integers(0, len(name) - 1))
    typo = name[:missing] + name[missing + 1 :]
    assert nearest_name(typo, [spec.name for spec in specifications()]) == name


def test_a_name_unlike_any_other_has_no_nearest() -> None:
    assert nearest_name("qqqq", [spec.name for spec in specifications()]) is None


@pytest.mark.parametrize("policy", ["latest", "all"])
def test_queue_policies_are_those_of_the_queue(policy: str) -> None:
    chosen = Settings.from_values({"input.queue_policy": policy}).input.queue_policy
    assert FrameQueue(chosen, 1).policy == policy


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 10**7),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.one_of(st.text("abc", max_size=3), st.integers(), st.floats()), max_size=3),
    st.binary(max_size=3),
)


@given(st.sampled_from(specifications()), ANYTHING)
def test_any_value_is_taken_with_its_type_or_refused_by_name(spec: Spec, value: object) -> None:
    try:
        settings = Settings.from_values({spec.name: value})
    except ConfigurationError as error:
        told = str(error)
    else:
        told = ""
    assert not told or spec.name in told or "frames." in told or "input.cameras" in told
    if told:
        return
    got = settings.values()[spec.name]
    assert type(got) is type(spec.default)
    if isinstance(got, float):
        assert spec.minimum is not None
        assert spec.minimum <= got <= spec.maximum  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("cache.budget_mib", 192, 192.0),
        ("tf.time_offset", 0, 0.0),
        ("input.cameras", [], ""),
        ("input.cameras", None, ""),
        ("input.cameras", ["left", "right"], "left right"),
        ("input.cameras", ("left",), "left"),
        ("cache.adaptive", False, "none"),
        ("cache.adaptive", "off", "none"),
    ],
)
def test_what_yaml_makes_of_a_value_is_taken(name: str, value: object, expected: object) -> None:
    got = Settings.from_values({name: value}).values()[name]
    assert (got, type(got)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("points.stride", None), ("points.stride", []), ("points.stride", 2.0),
        ("points.stride", True), ("points.stride", "2"), ("cache.budget_mib", None),
        ("cache.budget_mib", True), ("map.enabled", 1), ("map.enabled", None),
        ("frames.base", 5), ("frames.base", ["base_link"]), ("scale.value", float("nan")),
        ("scale.value", float("inf")), ("watchdog.timeout", 0), ("cache.policy", False),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Settings.from_values({name: value})
