# SPDX-License-Identifier: Apache-2.0
"""No parameter of the engine is forgotten on its way there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from xsvggt_ros.declaration import Spec, Value
from xsvggt_ros.model import checkpoint
from xsvggt_ros.ros import engine
from xsvggt_ros.ros.engine import build_reconstructor
from xsvggt_ros.ros.parameters import Settings, specifications
from xsvggt_ros.stream import chain, memory

OF_THE_ENGINE = [
    spec
    for spec in specifications()
    if spec.name.startswith(("model.", "cache.", "chain.", "pose.")) or spec.name == "input.width"
]


def _another(spec: Spec) -> Value:
    if spec.choices:
        return next(choice for choice in spec.choices if choice != spec.default)
    if isinstance(spec.default, bool):
        return not spec.default
    if isinstance(spec.default, str):
        return "other"
    larger = spec.default + spec.step
    return larger if spec.maximum is None or larger <= spec.maximum else spec.default / 2


@pytest.mark.parametrize("spec", OF_THE_ENGINE, ids=lambda spec: spec.name)
def test_every_parameter_of_the_engine_changes_the_engine(
    spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def collect(*arguments: Any, **named: Any) -> Any:
        return arguments, named

    def load(*arguments: Any, **named: Any) -> SimpleNamespace:
        config = SimpleNamespace(image_size=112)
        return SimpleNamespace(arguments=arguments, named=named, config=config)

    monkeypatch.setattr(checkpoint, "load_network", load)
    monkeypatch.setattr(chain, "ChainedReconstructor", collect)
    monkeypatch.setattr(memory, "check_memory", lambda *arguments, **named: None)
    monkeypatch.setattr(memory, "warm_up", lambda *arguments: None)
    # A policy that goes with every value of every other parameter.
    base: dict[str, Value] = {} if spec.name == "cache.policy" else {"cache.policy": "xstreamvggt"}
    threads: list[int] = []
    monkeypatch.setattr(engine, "ask_for_threads", threads.append)
    made = build_reconstructor(Settings.from_values({**base, spec.name: _another(spec)}))
    plain = build_reconstructor(Settings.from_values(base))
    assert (made, threads[0]) != (plain, threads[1])
