# SPDX-License-Identifier: Apache-2.0
"""The parameters as ``config/default.yaml`` and as the table of ``docs/node.md``.

``python -m xsvggt_ros.ros.parameter_texts`` in the root of a checkout writes both again.
"""

from __future__ import annotations

import json
import textwrap
from itertools import groupby
from pathlib import Path

from xsvggt_ros.declaration import Spec
from xsvggt_ros.ros.parameters import specifications

TABLE_BEGIN = "<!-- parameters: made by python -m xsvggt_ros.ros.parameter_texts -->"
TABLE_END = "<!-- end of parameters -->"
_YAML_HEAD = """\
# SPDX-License-Identifier: Apache-2.0
# Every parameter of the node with its default; made by python -m xsvggt_ros.ros.parameter_texts.
# [live] may change while the node runs: ros2 param set /xsvggt points.stride 2
# The others may change while it is unconfigured.
/**:
  ros__parameters:
"""


def default_yaml() -> str:
    """Return ``config/default.yaml``."""
    groups = groupby(specifications(), key=lambda spec: spec.name.partition(".")[0])
    return _YAML_HEAD + "".join(
        f"    {name}:\n" + "".join(map(_yaml_entry, group)) for name, group in groups
    )


def markdown_table() -> str:
    """Return the table of ``docs/node.md``."""
    rows = [
        "| parameter | default | legal values | unit | live | meaning |",
        "|---|---|---|---|---|---|",
        *map(_markdown_row, specifications()),
    ]
    return "\n".join(rows)


def with_table(document: str) -> str:
    """Return ``document`` with what lies between the two marks replaced by the table."""
    head, _, rest = document.partition(TABLE_BEGIN)
    _, _, tail = rest.partition(TABLE_END)
    return f"{head}{TABLE_BEGIN}\n{markdown_table()}\n{TABLE_END}{tail}"


def write(root: Path) -> None:
    """Bring the two files under ``root`` up to date."""
    (root / "config/default.yaml").write_text(default_yaml(), encoding="utf-8")
    page = root / "docs/node.md"
    page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")


def _yaml_entry(spec: Spec) -> str:
    facts = [f"{spec.limits} {spec.unit}".strip(), "live" if spec.live else ""]
    marks = "".join(f" [{fact}]" for fact in facts if fact)
    comment = textwrap.wrap(spec.text + marks, 88, break_on_hyphens=False)
    lines = [*(f"# {line}" for line in comment), f"{_own_name(spec)}: {json.dumps(spec.default)}"]
    return "".join(f"      {line}\n" for line in lines)


def _markdown_row(spec: Spec) -> str:
    live = "yes" if spec.live else ""
    cells = [f"`{spec.name}`", f"`{json.dumps(spec.default)}`", spec.limits, spec.unit, live]
    return "| " + " | ".join([*cells, spec.text]) + " |"


def _own_name(spec: Spec) -> str:
    return spec.name.partition(".")[2]


if __name__ == "__main__":
    write(Path.cwd())
