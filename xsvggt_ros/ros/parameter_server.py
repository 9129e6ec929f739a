# SPDX-License-Identifier: Apache-2.0
"""The parameters as a ROS node declares, checks and answers them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, LivelinessPolicy, ReliabilityPolicy

from xsvggt_ros.declaration import Spec, Value, checked_value, nearest_name
from xsvggt_ros.errors import ConfigurationError
from xsvggt_ros.ros.parameters import Settings, specifications

_QOS = "qos_overrides."
_POLICIES = {
    "durability": DurabilityPolicy,
    "history": HistoryPolicy,
    "liveliness": LivelinessPolicy,
    "reliability": ReliabilityPolicy,
}

Check = Callable[[Settings], None]


class ParameterServer:
    """Declares the parameters on a node and holds the newest valid snapshot of them.

    ``settings`` is replaced as a whole, so that any thread may take it at any moment. While it is
    ``locked`` only live parameters may change.

    Raises:
        ConfigurationError: a value given at start is illegal.

    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._check: Check = lambda settings: None
        self._accepted: Check = lambda settings: None
        self.locked = False
        _refuse_senseless_overrides(node)
        self.settings = Settings.from_values({s.name: _declare(node, s) for s in specifications()})
        # Humble has no pre-set callback; there only values of the declared type can be set later.
        if hasattr(node, "add_pre_set_parameters_callback"):
            node.add_pre_set_parameters_callback(_as_taken)
        node.add_on_set_parameters_callback(self._validate)
        # Humble has no post-set callback; there a value counts as accepted once it is valid.
        self._has_post_set = hasattr(node, "add_post_set_parameters_callback")
        if self._has_post_set:
            node.add_post_set_parameters_callback(self._apply)

    def attach(self, check: Check, accepted: Check) -> None:
        """Call ``check`` before values are accepted, and ``accepted`` once they are.

        ``check`` raises ConfigurationError for what it cannot take on.
        """
        self._check, self._accepted = check, accepted

    def warn_of_unknown(self, *, qos: bool) -> None:
        """Warn of every value given at start that belongs to no parameter.

        Those of ``qos`` overrides are known once the node has subscribed, others from the start.
        """
        # rclpy offers no public way to ask for overrides that nobody declared.
        for name in self._node._parameter_overrides:
            if name.startswith(_QOS) == qos and not self._node.has_parameter(name):
                self._node.get_logger().warning(unknown_parameter(name))

    def _validate(self, parameters: Iterable[Parameter[Any]]) -> SetParametersResult:
        try:
            settings = self._with(parameters)
            self._refuse_locked(settings)
            self._check(settings)
        except ConfigurationError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if not self._has_post_set:
            self._accept(settings)
        return SetParametersResult(successful=True)

    def _refuse_locked(self, settings: Settings) -> None:
        before, after = self.settings.values(), settings.values()
        for spec in specifications():
            if self.locked and not spec.live and before[spec.name] != after[spec.name]:
                raise ConfigurationError(
                    f"{spec.name} is read-only while the node is configured: it was read then; "
                    "deactivate and clean up the node first (ros2 lifecycle set), or start it again"
                )

    def _apply(self, parameters: Iterable[Parameter[Any]]) -> None:
        self._accept(self._with(parameters))

    def _accept(self, settings: Settings) -> None:
        self.settings = settings
        self._accepted(settings)

    def _with(self, parameters: Iterable[Parameter[Any]]) -> Settings:
        values = self.settings.values()
        changed = {p.name: p.value for p in parameters if p.name in values}
        return Settings.from_values({**values, **changed})


def unknown_parameter(name: str) -> str:
    """Return the warning for a parameter that does not exist."""
    nearest = nearest_name(name, (spec.name for spec in specifications()))
    hint = f"did you mean '{nearest}'?" if nearest else "ros2 param list names those that exist"
    return f"parameter '{name}' does not exist and is ignored; {hint}"


def descriptor(spec: Spec) -> ParameterDescriptor:
    """Return what ``ros2 param describe`` shows."""
    message = ParameterDescriptor(
        name=spec.name,
        description=f"{spec.text} [{spec.unit}]" if spec.unit else spec.text,
        additional_constraints="; ".join(_constraints(spec)),
        read_only=spec.fixed,
    )
    if spec.minimum is not None and spec.maximum is not None:
        _limit(message, spec, spec.minimum, spec.maximum)
    return message


def _constraints(spec: Spec) -> Iterator[str]:
    if spec.choices:
        yield f"one of {spec.limits}"
    if not spec.live and not spec.fixed:
        yield "read-only while the node is configured"


def _limit(message: ParameterDescriptor, spec: Spec, minimum: float, maximum: float) -> None:
    if isinstance(spec.default, int):
        message.integer_range = [
            IntegerRange(from_value=int(minimum), to_value=int(maximum), step=spec.step)
        ]
    else:
        message.floating_point_range = [
            FloatingPointRange(from_value=float(minimum), to_value=float(maximum))
        ]


def _refuse_senseless_overrides(node: Node) -> None:
    """Raise ConfigurationError where a QoS override is nothing, or no such policy.

    rclpy would end with an error that does not name the parameter.
    """
    for name, given in node._parameter_overrides.items():
        if not name.startswith(_QOS):
            continue
        if given.value is None:
            raise ConfigurationError(
                f"parameter {name} has no value (null, or an empty list); correct it, or leave it "
                "out"
            )
        policy = _POLICIES.get(name.rpartition(".")[2])
        legal = [word for word in policy.short_keys() if word != "unknown"] if policy else []
        if legal and str(given.value).lower() not in legal:
            raise ConfigurationError(
                f"parameter {name}: {given.value!r} is none of {', '.join(legal)}; correct it, or "
                "leave it out"
            )


def _as_taken(parameters: list[Parameter[Any]]) -> list[Parameter[Any]]:
    """Return values with the types that they are declared with, where they can have these."""
    specs = {spec.name: spec for spec in specifications()}
    return [
        _of_own_type(specs[each.name], each) if each.name in specs else each for each in parameters
    ]


def _of_own_type(spec: Spec, given: Parameter[Any]) -> Parameter[Any]:
    """Return a parameter as it is taken; one that cannot be stays, and rclpy refuses it."""
    try:
        return Parameter(spec.name, value=checked_value(spec, given.value))
    except ConfigurationError:
        return given


def _declare(node: Node, spec: Spec) -> Value:
    # rclpy offers no public way to look at an override before it is declared, and takes an empty
    # list for a parameter without a value, which has any type.
    given = node._parameter_overrides.get(spec.name)
    if given is not None:
        meant = Parameter(spec.name, value=checked_value(spec, given.value))
        node._parameter_overrides[spec.name] = meant
    try:
        value: Value = node.declare_parameter(spec.name, spec.default, descriptor(spec)).value
    except InvalidParameterTypeException as error:
        raise ConfigurationError(
            f"parameter {spec.name} must be of type {type(spec.default).__name__}, such as "
            f"{spec.default!r}: {error}"
        ) from error
    except InvalidParameterValueException as error:
        raise ConfigurationError(f"{error}; legal are {spec.limits} {spec.unit}") from error
    return value
