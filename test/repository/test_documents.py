# SPDX-License-Identifier: Apache-2.0
"""What people read: links lead somewhere, and the words are those of the field."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page
    for pattern in ("*.md", "docs/*.md", "xsvggt_ros/weights/*.md", ".github/*.md")
    for page in ROOT.glob(pattern)
)

# A word that this project once used for something that has a name, that name, and how often it
# may still stand in code and texts. Lower a number whenever you can; none may grow.
PRIVATE_WORDS = {
    r"pictures?": ("image", 0),
    r"folders?": ("directory", 0),
    r"anew": ("again", 0),
    r"complaints?": ("error, problem", 0),
    r"take_up": ("configure, start", 0),
    r"give_up": ("cleanup, stop", 0),
    r"goodbyes?": ("shutdown timeout", 0),
    r"rehears\w*": ("warm-up", 0),
    r"births?": ("insertion", 0),
    r"likeness": ("similarity", 0),
    r"albums?": ("clip cache", 0),
    r"guides": ("auxiliary heads", 0),
    r"mending": ("recovery, repair", 0),
    r"manieth": ("nth", 0),
    r"yardsticks?": ("benchmark", 10),
}
TEXT = (
    ".py",
    ".md",
    ".rst",
    ".yaml",
    ".yml",
    ".xml",
    ".msg",
    ".srv",
    ".toml",
    ".j2",
    ".txt",
    ".cff",
)
NOT_OURS = ("benchmarks/measured/", "test/golden/", "test/repository/test_documents.py")


def _anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in _anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_a_document_names_exist(page: Path) -> None:
    known = {path.name for path in ROOT.glob("test/**/test_*.py")}
    assert set(re.findall(r"\btest_\w+\.py\b", page.read_text(encoding="utf-8"))) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_modules_that_a_document_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    rooms = "benchmarks|config|docker|docs|launch|scripts|test|xsvggt_ros"
    files = re.findall(
        rf"(?<![\w/.])(?:{rooms})/[\w./-]+\.(?:py|yaml|xml|txt|md|rviz|json)\b", text
    )
    assert [name for name in files if not (ROOT / name).exists()] == []
    # Most pages name a module by its room alone.
    known = [f"/{path.relative_to(ROOT)}" for path in _tracked((".py",))]
    named = set(re.findall(r"`((?!test)[\w.-]+(?:/[\w.-]+)*\.py)`", text))
    assert {name for name in named if not any(path.endswith(f"/{name}") for path in known)} == set()
    # Commands that made the weights are those of the commits that the model card names.
    commands = re.sub(r"^.*at commit .*$", "", text, flags=re.M)
    modules = re.findall(r"(?:python -m|from) (xsvggt_ros[\w.]*)", commands)
    paths = [ROOT / name.replace(".", "/") for name in modules]
    missing = [path for path in paths if not (path.with_suffix(".py").exists() or path.is_dir())]
    assert missing == []


def _tracked(endings: tuple[str, ...] = TEXT) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("needs a git checkout, to tell our files from others'")
    names = [name for name in listed.stdout.split("\0") if name.endswith(endings)]
    return [ROOT / name for name in names if not name.startswith(NOT_OURS)]


def test_words_that_have_a_name_in_the_field_do_not_come_back() -> None:
    text = "\n".join(
        f"{path.stem}\n{path.read_text(encoding='utf-8')}" for path in _tracked() if path.is_file()
    )
    # Parts of identifiers count as words: pictures_of, FolderSource, a_picture.
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)
    found = {
        word: len(re.findall(rf"(?<![A-Za-z]){word}(?![A-Za-z])", text, re.IGNORECASE))
        for word in PRIVATE_WORDS
    }
    allowed = {word: limit for word, (_, limit) in PRIVATE_WORDS.items()}
    grown = [
        f"{word}: {count}, at most {allowed[word]}; say {PRIVATE_WORDS[word][0]}"
        for word, count in found.items()
        if count > allowed[word]
    ]
    assert not grown, "\n".join(grown)


def test_every_document_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.name}" in text, page.name


def test_every_page_has_a_row_among_the_promises() -> None:
    """A page of which docs/distributions.md does not say where its promises were run."""
    text = (ROOT / "docs" / "distributions.md").read_text(encoding="utf-8")
    lines = text.partition("## Promises")[2].splitlines()
    rows = [re.split(r" *\| *", line.strip("|")) for line in lines if line.startswith("|")]
    assert {len(row) for row in rows} == {len(rows[0])}
    named = set(re.findall(r"\]\((?:\.\./)?(\w+\.md)", "\n".join(row[0] for row in rows)))
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"distributions.md"}
    assert named == pages | {"README.md"}


def test_every_source_file_carries_its_licence() -> None:
    sources = (".py", ".yml", ".yaml", ".toml", ".cff", "Dockerfile", "entrypoint", ".ci/run")
    scripts = ("scripts/setup", "scripts/test", "scripts/demo")
    bare = [
        path.relative_to(ROOT)
        for path in _tracked((*sources, *scripts))
        if path.is_file() and "SPDX-License-Identifier: Apache-2.0" not in path.read_text()[:200]
    ]
    assert not bare
