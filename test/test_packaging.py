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

from xsvggt_ros.version import version

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "xsvggt_ros"
MANIFEST = ElementTree.parse(ROOT / "package.xml").getroot()
PYPI_NAMES = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "mpl_toolkits": "matplotlib",
    "rerun": "rerun-sdk",
    "yaml": "PyYAML",
}
BUILT_FROM = ("package.xml", "CMakeLists.txt", "setup.py", "pyproject.toml", "LICENSE")


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
    imported = {PYPI_NAMES.get(name, name) for name in _imports()} - own
    ros = {element.text for element in MANIFEST if element.tag in ("depend", "exec_depend")}
    extras = _requirements("rerun") | _requirements("int8") | _requirements("cluster")
    # What comes with PyTorch on a GPU, and is looked for before it is used.
    assert imported <= _requirements("runtime") | extras | ros | {"triton"}


def test_no_declared_requirement_is_unused() -> None:
    imported = {PYPI_NAMES.get(name, name) for name in _imports()}
    assert _requirements("runtime") <= imported


def test_the_manifest_names_nothing_that_apt_lacks() -> None:
    keys = {element.text or "" for element in MANIFEST if element.tag.endswith("depend")}
    assert not {key for key in keys if "torch" in key or key.endswith("-pip")}


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
    assert modules == ["xsvggt_ros.ros.node", "xsvggt_ros.ros.replay", "xsvggt_ros.cli"]
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
    assert "xsvggt = xsvggt_ros.cli:app" in wheel.read(entry_points).decode()


@pytest.mark.parametrize("options", [(), ("--symlink-install",)], ids=["plain", "symlinks"])
def test_colcon_installs_modules_messages_and_programs(
    options: tuple[str, ...], source_copy: Path, tmp_path: Path
) -> None:
    if not shutil.which("colcon") or not os.environ.get("AMENT_PREFIX_PATH"):
        pytest.skip("needs colcon and a sourced ROS 2: run scripts/test")
    build = ["colcon", "build", "--base-paths", source_copy, *options]
    subprocess.run(build, check=True, cwd=tmp_path, capture_output=True)
    prefix = tmp_path / "install" / "xsvggt_ros"
    code = "import xsvggt_ros.msg as m, xsvggt_ros.version as v; print(m.__file__, v.__file__)"
    shell = f". install/setup.sh && cd / && '{sys.executable}' -c '{code}; print(v.version())'"
    run = subprocess.run(
        ["sh", "-c", shell], check=True, cwd=tmp_path, capture_output=True, text=True
    )
    messages, module, found = run.stdout.split()
    assert Path(messages).is_relative_to(prefix)
    assert Path(module).is_relative_to(prefix)
    assert found == _manifest_version()
    for program in ("reconstruct_node", "replay_node", "xsvggt"):
        assert os.access(prefix / "lib" / "xsvggt_ros" / program, os.X_OK)
    assert (prefix / "share" / "xsvggt_ros" / "config" / "fastdds_shm.xml").is_file()
