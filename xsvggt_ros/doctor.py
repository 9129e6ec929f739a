# SPDX-License-Identifier: Apache-2.0
"""Looks at the machine: what is there, what is missing, and what to do about it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from xsvggt_ros.errors import ConfigurationError, EnvironmentMissingError
from xsvggt_ros.installation import (
    EXTRA_OF_COMMAND,
    EXTRAS,
    OF_EXTRA,
    OF_THE_NODE,
    installation_of,
    pip_remedy,
    ros_package_remedy,
)
from xsvggt_ros.model.device import free_host_memory
from xsvggt_ros.process import (
    THREAD_COUNT,
    asked_threads,
    available_cores,
    suitable_threads,
    waiting_in_words,
)

LEAST_MEMORY_GIB = 2.0
OLDEST_PYTHON, NEWEST_PYTHON = (3, 10), (3, 13)
_NEW_VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"
_OLD_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
SET_UP = "run scripts/setup, or source the set-up file of a ROS 2 distribution"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; ``remedy`` is empty where all is well.

    ``needed`` tells a fault, without which nothing runs, from advice.
    """

    subject: str
    state: str
    remedy: str = ""
    needed: bool = True

    @property
    def fault(self) -> bool:
        """Whether something that is needed is missing."""
        return self.needed and bool(self.remedy)


def examine(*, ros: bool) -> list[Finding]:
    """Return all findings; without ``ros`` only of what `xsvggt reconstruct` needs."""
    checks: list[Callable[[], Finding]] = [
        _package, _python, _torch, _threads, _device, _kernels, _memory,
    ]  # fmt: skip
    findings = [check() for check in checks]
    findings += [_module(name, package) for name, package in OF_THE_NODE.items() if name != "torch"]
    findings += [_extra(name) for name in EXTRAS]
    return findings + _ros() if ros else findings


def _ros() -> list[Finding]:
    """Return what the node needs of ROS; where there is none, that alone, and not what it lacks."""
    rclpy = _rclpy()
    if rclpy.fault:
        return [rclpy]
    checks = (_distribution, _domain, _middleware, _messages, _ros_packages, _transport)
    return [rclpy, *(check() for check in checks), _shared_memory()]


def require_ros() -> None:
    """Raise EnvironmentMissingError where the node cannot run here."""
    for finding in (_rclpy(), _messages(), _ros_packages()):
        if finding.fault:
            raise EnvironmentMissingError(
                f"{finding.subject}: {finding.state}; {finding.remedy}. `xsvggt reconstruct` "
                "works without ROS"
            )


def _package() -> Finding:
    from xsvggt_ros.installation import version

    return Finding("xsvggt_ros", version())


def _python() -> Finding:
    state = f"{platform.python_version()} at {sys.executable}"
    if OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        return Finding("Python", state)
    return Finding("Python", state, "use one from 3.10 to 3.13", needed=False)


def _import_error(name: str) -> str:
    """Return why a module cannot be imported, empty where it can."""
    try:
        importlib.import_module(name)
    except (ImportError, OSError) as error:
        return str(error).splitlines()[0]
    return ""


def _module(name: str, package: str) -> Finding:
    if error := _import_error(name):
        return Finding(package, f"missing ({error})", pip_remedy(name))
    try:
        return Finding(package, importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        return Finding(package, "found")


def _extra(name: str) -> Finding:
    """Return whether the packages of an extra are there; the node needs none of them."""
    packages = {
        package: importlib.util.find_spec(module) is not None
        for module, package in OF_EXTRA[name].items()
        if module != "backports" or sys.version_info < (3, 14)
    }
    missing = [package for package, there in packages.items() if not there]
    commands = ", ".join(each for each, extra in EXTRA_OF_COMMAND.items() if extra == name)
    subject = f"extra {name} ({commands})"
    if missing:
        return Finding(
            subject, f"without {', '.join(missing)}", installation_of(name), needed=False
        )
    return Finding(subject, "complete")


def _torch() -> Finding:
    if error := _import_error("torch"):
        return Finding("PyTorch", f"missing ({error})", "pip install torch, or run scripts/setup")
    import torch

    return Finding("PyTorch", f"{torch.__version__}, CUDA {torch.version.cuda or 'no'}")


def _threads() -> Finding:
    from xsvggt_ros.model.config import PRESETS

    cores = f"{available_cores()} cores"
    if asked := asked_threads():
        return Finding(
            "threads", f"{asked} of {cores}, as {THREAD_COUNT} says; {waiting_in_words()}"
        )
    suitable = {
        name: suitable_threads(PRESETS[name].embed_dim, available_cores())
        for name in ("demo", "streamvggt")
    }
    words = ", ".join(f"{count} for a network like {name}" for name, count in suitable.items())
    return Finding("threads", f"{cores}: {words}; {waiting_in_words()}")


def _device() -> Finding:
    if _import_error("torch"):
        return Finding("device", "unknown without PyTorch")
    import torch

    if not torch.cuda.is_available():
        return Finding("device", "cpu")
    free, total = (size / 2**30 for size in torch.cuda.mem_get_info())
    from xsvggt_ros.model.device import dtype_named

    name = torch.cuda.get_device_name()
    dtype = str(dtype_named("auto", torch.device("cuda"))).removeprefix("torch.")
    state = f"cuda: {name}, {free:.1f} of {total:.1f} GiB free, {dtype} by default"
    return Finding("device", state)


def _kernels() -> Finding:
    if _import_error("torch"):
        return Finding("Triton kernels", "unknown without PyTorch")
    import torch

    if not torch.cuda.is_available():
        return Finding("Triton kernels", "not needed on a CPU")
    from xsvggt_ros.cuda import why_not

    try:
        reason = why_not(torch.cuda.current_device())
    except torch.OutOfMemoryError:
        remedy = "free memory of the GPU, then try again"
        return Finding("Triton kernels", "unknown: the GPU is full", remedy, needed=False)
    if not reason:
        return Finding("Triton kernels", "run")
    remedy = "install a PyTorch build for CUDA with its triton, and a C compiler such as gcc"
    return Finding("Triton kernels", f"do not run: {reason}", remedy, needed=False)


def _memory() -> Finding:
    gibibytes = free_host_memory() / 2**30
    state = f"{gibibytes:.1f} GiB free"
    if gibibytes >= LEAST_MEMORY_GIB:
        return Finding("memory", state)
    remedy = f"close other programs: the network wants at least {LEAST_MEMORY_GIB:g} GiB"
    return Finding("memory", state, remedy, needed=False)


def _rclpy() -> Finding:
    error = _import_error("rclpy")
    if not error:
        return Finding("ROS 2 (rclpy)", "found")
    remedy = SET_UP
    if distribution := os.environ.get("ROS_DISTRO", ""):
        remedy = (
            f"ROS 2 {distribution} is sourced, so start this with the Python that it was built "
            f"for, such as /usr/bin/python3; {sys.executable} is another"
        )
    return Finding("ROS 2 (rclpy)", f"missing ({error})", remedy)


def _distribution() -> Finding:
    if distribution := os.environ.get("ROS_DISTRO", ""):
        return Finding("ROS distribution", distribution)
    return Finding("ROS distribution", "unknown (ROS_DISTRO is not set)", SET_UP, needed=False)


def _domain() -> Finding:
    from xsvggt_ros.ros.processes import given_domain

    try:
        return Finding("ROS domain", str(given_domain() or 0))
    except ConfigurationError as error:
        return Finding("ROS domain", "unusable", str(error))


def _middleware() -> Finding:
    try:
        name = importlib.import_module("rclpy").get_rmw_implementation_identifier()
        return Finding("middleware", name)
    except RuntimeError as error:
        return Finding("middleware", f"none ({error})", SET_UP)


def _messages() -> Finding:
    if error := _import_error("xsvggt_ros.msg"):
        remedy = "run scripts/setup, or colcon build and source install/setup.bash"
        return Finding("messages of xsvggt_ros", f"not generated ({error})", remedy)
    return Finding("messages of xsvggt_ros", "generated")


def _ros_packages() -> Finding:
    subject = "ROS packages in Python"
    for name in ("tf2_msgs.msg", "tf2_ros", "cv_bridge", "sensor_msgs_py", "tf_transformations"):
        if error := _import_error(name):
            package = name.partition(".")[0]
            return Finding(subject, f"{package} is missing ({error})", ros_package_remedy(package))
    return Finding(subject, "found")


def profile_variable() -> str:
    """Return the variable that names the profiles of the Fast DDS that is there.

    Fast DDS 2, of Humble and Jazzy, knows the old name alone, and 3 warns of it.
    """
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    libraries = [Path(prefix) / "lib" for prefix in prefixes if prefix]
    libraries += [Path(path) for path in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)]
    for directory in libraries:
        if any(directory.glob("libfastdds.so*")):
            return _NEW_VARIABLE
        if any(directory.glob("libfastrtps.so*")):
            return _OLD_VARIABLE
    return _OLD_VARIABLE if os.environ.get("ROS_DISTRO") in ("humble", "jazzy") else _NEW_VARIABLE


def _transport() -> Finding:
    subject, variable = "Fast DDS profile", profile_variable()
    if variable == _NEW_VARIABLE and variable not in os.environ and _OLD_VARIABLE in os.environ:
        variable = _OLD_VARIABLE  # still read, with a warning
    profile = os.environ.get(variable, "")
    if profile and not Path(profile).is_file():
        remedy = f"correct {variable}: Fast DDS ignores a file that is not there"
        return Finding(subject, f"{profile} does not exist", remedy, needed=False)
    if profile or "fastrtps" not in os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp"):
        return Finding(subject, profile or "not needed")
    ignored = variable == _OLD_VARIABLE and _NEW_VARIABLE in os.environ
    remedy = (
        f"set {variable} to config/fastdds_shm.xml: without it, nearly all large best-effort "
        "images are lost"
    )
    state = f"not set; {_NEW_VARIABLE} means nothing to this version" if ignored else "not set"
    return Finding(subject, state, remedy, needed=False)


def _shared_memory() -> Finding:
    from xsvggt_ros.ros.processes import abandoned

    sizes = [segment.stat().st_size for segment in abandoned() if segment.exists()]
    if not sizes:
        return Finding("shared memory", "all in use")
    state = f"{sum(sizes) / 2**20:.0f} MiB belong to processes that are gone"
    remedy = "run `fastdds shm clean`, or, while no ROS program runs, rm /dev/shm/fast{dds,rtps}_*"
    return Finding("shared memory", state, remedy, needed=False)
