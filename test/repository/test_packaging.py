# SPDX-License-Identifier: Apache-2.0
"""One version, one list of dependencies, and an installation that holds what it must."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterator
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from xsvggt_ros.installation import BESIDE_ROS, beside_ros_command, version

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "xsvggt_ros"
MANIFEST = ElementTree.parse(ROOT / "package.xml").getroot()
ROSDEP_KEYS = {
    # Of ros/rosdistro, read 2026-08-22, for jammy (humble) and noble (jazzy, kilted): by apt.
    "python3-numpy", "python3-opencv", "python3-yaml", "python3-pytest", "python3-hypothesis",
    "python3-pytest-timeout", "python3-pytest-xdist",
    # Packages released into humble, jazzy and kilted.
    "ament_cmake", "ament_cmake_python", "ament_cmake_pytest", "ament_index_python",
    "rosidl_default_generators", "rosidl_default_runtime", "rclpy", "launch", "launch_ros",
    "launch_testing", "ros2launch", "builtin_interfaces", "diagnostic_msgs", "geometry_msgs",
    "lifecycle_msgs", "nav_msgs", "rcl_interfaces", "rosgraph_msgs", "sensor_msgs", "std_msgs",
    "std_srvs", "tf2_msgs", "tf2_ros_py", "cv_bridge", "sensor_msgs_py", "tf_transformations",
    "bondpy",
}  # fmt: skip
"""What rosdep resolves on every supported distribution; no pip keys, which Ubuntu 24.04 refuses."""
MODULES_OF = {"tf2_ros": "tf2_ros_py"}
"""Modules of ROS packages of another name."""
PYPI_NAMES = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "flash_attn": "flash-attn",
    "mpl_toolkits": "matplotlib",
    "rerun": "rerun-sdk",
    "yaml": "PyYAML",
}
EXTRAS = ("eval", "demo", "train", "rerun", "int8", "flash", "cluster")
BUILT_FROM = ("package.xml", "CMakeLists.txt", "setup.py", "pyproject.toml", "LICENSE", "README.md")


def _lines(name: str) -> list[str]:
    text = (ROOT / "scripts" / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _requirements(name: str) -> set[str]:
    text = (ROOT / "scripts" / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return {match[1] for match in re.finditer(r"^([A-Za-z0-9_-]+)", text, re.MULTILINE)}


def _manifest_version() -> str:
    return MANIFEST.findtext("version", "")


def test_version_is_that_of_the_manifest() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", _manifest_version())
    assert version() == _manifest_version()


def test_pip_metadata_has_the_version_of_the_manifest() -> None:
    command = [sys.executable, "setup.py", "--version"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert output.split()[-1] == _manifest_version()


def test_installed_metadata_has_the_version_of_the_manifest() -> None:
    try:
        assert metadata.version("xsvggt_ros") == _manifest_version()
    except metadata.PackageNotFoundError:
        pytest.skip("xsvggt_ros is not installed here: run scripts/setup")


def test_the_citation_has_version_and_address_of_the_manifest() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    urls = {element.get("type"): element.text for element in MANIFEST.findall("url")}
    assert set(urls) == {"website", "repository", "bugtracker"}
    assert all((url or "").startswith(f"{urls['repository']}") for url in urls.values())
    assert citation["version"] == _manifest_version()
    assert citation["repository-code"] == urls["repository"]


def test_links_of_the_long_description_lead_somewhere_outside_a_checkout() -> None:
    command = [sys.executable, "setup.py", "--long-description"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 10
    assert all(link.startswith(("https://", "#")) for link in links)
    assert any("raw.githubusercontent.com" in link for link in links)


def test_changelog_names_the_version_of_the_manifest_first() -> None:
    lines = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "Changelog for package xsvggt_ros"
    headings = [line for line, below in pairwise(lines) if re.fullmatch("-+", below)]
    # What is not released yet stands under catkin's word for it.
    heading = next(line for line in headings if line != "Forthcoming")
    assert headings.index(heading) <= 1
    assert re.fullmatch(rf"{re.escape(_manifest_version())} \(\d{{4}}-\d{{2}}-\d{{2}}\)", heading)
    assert lines[lines.index(heading) + 1] == "-" * len(heading)


def _imports() -> Iterator[str]:
    for path in PACKAGE.rglob("*.py"):
        for node in _run_time_nodes(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                yield (node.module or "").partition(".")[0]


def _run_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _run_time_nodes(child)


def test_every_import_is_declared() -> None:
    own = {"xsvggt_ros", "__future__", *sys.stdlib_module_names}
    imported = {(PYPI_NAMES | MODULES_OF).get(name, name) for name in _imports()} - own
    ros = {element.text for element in MANIFEST if element.tag in ("depend", "exec_depend")}
    extras = set().union(*map(_requirements, EXTRAS))
    # What comes with PyTorch on a GPU, and is looked for before it is used.
    assert imported <= _requirements("runtime") | extras | ros | {"triton"}


def test_no_declared_requirement_is_unused() -> None:
    imported = {PYPI_NAMES.get(name, name) for name in _imports()}
    assert set().union(*map(_requirements, ("runtime", *EXTRAS))) <= imported


def test_rosdep_resolves_everything_that_the_manifest_names() -> None:
    keys = {element.text or "" for element in MANIFEST if element.tag.endswith("depend")}
    assert keys == ROSDEP_KEYS


def test_the_line_for_pip_brings_what_rosdep_does_not() -> None:
    """And docs/installing.md has that very line."""
    assert set(BESIDE_ROS) == _requirements("runtime") - {
        "numpy", "opencv-python-headless", "PyYAML",
    }  # fmt: skip
    assert beside_ros_command() in (ROOT / "docs" / "installing.md").read_text(encoding="utf-8")


def test_what_is_missing_is_told_with_what_to_install(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    template = (ROOT / "scripts" / "program.py.in").read_text(encoding="utf-8")
    program.write_text(
        template.replace("@module@", "wanting").replace("@name@", "xsvggt"), encoding="utf-8"
    )
    for module, words in (
        ("typer", ["xsvggt needs the package typer", "pip install", "demo", "numpy=="]),
        ("torch", ["torch is missing", "--system-site-packages", "pip install torch safetensors"]),
        ("cv2", ["opencv-python-headless is missing"]),
        ("tf_transformations", ["sudo apt-get install ros-jazzy-tf-transformations"]),
    ):
        code = f"raise ModuleNotFoundError('No module', name='{module}.deep')"
        (tmp_path / "wanting.py").write_text(code, encoding="utf-8")
        # Compiled code of the module before would be taken: as long, and as old to the second.
        paths = {
            "PYTHONPATH": f"{ROOT}:{tmp_path}",
            "ROS_DISTRO": "jazzy",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        run = subprocess.run(
            [sys.executable, program],
            env=os.environ | paths,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 1
        assert "Traceback" not in run.stderr
        assert not [word for word in words if word not in run.stderr], run.stderr


def test_the_requirements_take_what_the_oldest_distribution_brings() -> None:
    """Of Ubuntu 22.04, under Humble: scripts/setup keeps the distribution's numpy."""
    bounds = dict(re.findall(r"^([\w-]+)>=([\d.]+)", "\n".join(_lines("runtime")), re.MULTILINE))
    for name, brought in {"numpy": (1, 21, 5), "PyYAML": (5, 4, 1)}.items():
        assert tuple(map(int, bounds[name].split("."))) <= brought, name


def test_torch_is_pinned_exactly() -> None:
    text = (ROOT / "scripts" / "requirements" / "torch.txt").read_text(encoding="utf-8")
    assert re.findall(r"^torch(.*)$", text, re.MULTILINE) == ["==2.13.0"]


def test_fast_dds_profile_holds_large_messages() -> None:
    space = {"dds": "http://www.eprosima.com"}
    root = ElementTree.parse(ROOT / "config" / "fastdds_shm.xml").getroot()
    assert int(root.findtext(".//dds:segment_size", "0", space)) == 32 * 2**20
    assert root.findtext(".//dds:useBuiltinTransports", "", space) == "false"


def test_installed_programs_have_modules() -> None:
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    modules = re.findall(r"^install_program\(\w+ ([\w.]+)\)$", text, re.MULTILINE)
    assert modules == ["xsvggt_ros.ros.node", "xsvggt_ros.ros.replay", "xsvggt_ros.__main__"]
    for module in modules:
        source = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
        assert "main" in {n.name for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}


@pytest.mark.parametrize("name", ["scripts/setup", "scripts/test", "scripts/demo", ".ci/run"])
def test_scripts_are_executable(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)


@pytest.fixture
def source_copy(tmp_path: Path) -> Path:
    """Return a copy of what an installation is made from, so that the checkout stays clean."""
    copy = tmp_path / "source"
    directories = ("xsvggt_ros", "msg", "srv", "launch", "config", "scripts")
    for name in filter(lambda name: (ROOT / name).is_dir(), directories):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, copy)
    return copy


def test_wheel_holds_modules_data_and_command(source_copy: Path, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*pip, "--wheel-dir", tmp_path, source_copy], check=True, cwd=tmp_path)
    wheel = zipfile.ZipFile(tmp_path / f"xsvggt_ros-{_manifest_version()}-py3-none-any.whl")
    names = set(wheel.namelist())
    modules = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    share = f"xsvggt_ros-{_manifest_version()}.data/data/share/xsvggt_ros"
    assert modules <= names
    pages = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.j2")}
    assert pages
    assert pages <= names
    assert {f"{share}/package.xml", f"{share}/config/fastdds_shm.xml"} <= names
    entry_points = f"xsvggt_ros-{_manifest_version()}.dist-info/entry_points.txt"
    assert "xsvggt = xsvggt_ros.__main__:main" in wheel.read(entry_points).decode()
    described = wheel.read(f"xsvggt_ros-{_manifest_version()}.dist-info/METADATA").decode()
    for extra in ("eval", "demo", "train", "all"):
        assert f"Provides-Extra: {extra}\n" in described
    needed = re.findall(r"^Requires-Dist: ([A-Za-z0-9_.-]+)[^;\n]*$", described, re.MULTILINE)
    # Some releases of wheel write underscores as dashes.
    assert {name.lower().replace("_", "-") for name in needed} == {
        "torch", "numpy", "opencv-python-headless", "safetensors", "huggingface-hub", "pyyaml",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--symlink-install",)], ids=["plain", "symlinks"])
def test_colcon_installs_modules_messages_and_programs(
    options: tuple[str, ...], source_copy: Path, tmp_path: Path
) -> None:
    if not shutil.which("colcon") or not os.environ.get("AMENT_PREFIX_PATH"):
        pytest.skip("needs colcon and a sourced ROS 2: run scripts/test")
    build = ["colcon", "build", "--base-paths", str(source_copy), *options]
    subprocess.run(build, check=True, cwd=tmp_path, capture_output=True)
    prefix = tmp_path / "install" / "xsvggt_ros"
    code = "import xsvggt_ros.msg as m, xsvggt_ros.installation as v; print(m.__file__, v.__file__)"
    shell = f". install/setup.sh && cd / && '{sys.executable}' -c '{code}; print(v.version())'"
    run = subprocess.run(
        ["sh", "-c", shell], check=True, cwd=tmp_path, capture_output=True, text=True
    )
    messages, module, found = run.stdout.split()
    assert Path(messages).is_relative_to(prefix)
    assert Path(module).is_relative_to(prefix)
    assert Path(module).is_symlink() == bool(options)
    assert not list(prefix.rglob("__pycache__/test_*"))
    weights = Path(module).parent / "weights" / "demo.safetensors"
    assert weights.stat().st_size > 1 << 20
    assert found == _manifest_version()
    for program in ("reconstruct_node", "replay_node", "xsvggt"):
        assert os.access(prefix / "lib" / "xsvggt_ros" / program, os.X_OK)
    assert (prefix / "share" / "xsvggt_ros" / "config" / "fastdds_shm.xml").is_file()
