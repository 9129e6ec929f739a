# SPDX-License-Identifier: Apache-2.0
"""Workflows, hooks and containers name files, options and versions that exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
CONTAINERS = [ROOT / "docker/Dockerfile", *sorted((ROOT / ".devcontainer").glob("*/*.json"))]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize(
    "path",
    [*WORKFLOWS, *sorted((ROOT / ".github").glob("**/*.yml")), ROOT / ".pre-commit-config.yaml"],
    ids=_name,
)
def test_it_is_yaml_with_content(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


@pytest.mark.parametrize("path", [*WORKFLOWS, *CONTAINERS], ids=_name)
def test_files_that_it_names_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/.])((?:scripts|benchmarks|docker)/[\w./*-]*[\w*])", text))
    assert named
    for name in named:
        assert list(ROOT.glob(name)), name


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("github-workflows", WORKFLOWS),
        ("dependabot", [ROOT / ".github/dependabot.yml"]),
        ("citation-file-format", [ROOT / "CITATION.cff"]),
    ],
)
def test_what_others_read_follows_its_schema(schema: str, paths: list[Path]) -> None:
    pytest.importorskip("check_jsonschema", reason="scripts/setup installs check-jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    found = subprocess.run([*command, *paths], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=_name)
def test_a_checkout_leaves_no_credentials(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    checkouts = [step for step in steps if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@pytest.mark.parametrize("path", WORKFLOWS, ids=_name)
def test_every_job_has_a_limit_and_reads_only(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 180 for job in workflow["jobs"].values())


def test_every_supported_python_is_tested() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    tested = workflow["jobs"]["pytest"]["strategy"]["matrix"]["python"]
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert tested == re.findall(r'"Programming Language :: Python :: (3\.\d+)"', setup)


@pytest.mark.parametrize("path", CONTAINERS, ids=_name)
def test_containers_take_the_torch_that_setup_takes(path: Path) -> None:
    pinned = (ROOT / "scripts/requirements/torch.txt").read_text(encoding="utf-8")
    version = re.findall(r"^torch==([\d.]+)$", pinned, re.M)[0]
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"(?:TORCH_VERSION=|torch==)(\d[\d.]*)", text)) <= {version}


@pytest.mark.parametrize("path", CONTAINERS[1:], ids=_name)
def test_development_containers_build_a_stage_that_exists(path: Path) -> None:
    build = json.loads(path.read_text(encoding="utf-8"))["build"]
    dockerfile = (path.parent / build["dockerfile"]).resolve()
    stages = re.findall(r"^FROM .* AS (\w+)$", dockerfile.read_text(encoding="utf-8"), re.M)
    assert build["target"] in stages
    assert (path.parent / build["context"]).resolve() == ROOT


def test_the_help_of_scripts_test_names_what_the_documents_run() -> None:
    command = [str(ROOT / "scripts/test"), "--help"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        options = set(re.findall(r"scripts/test +(--?\w+)", text))
        assert options, name
        assert all(f"scripts/test {option} " in told for option in options), name
