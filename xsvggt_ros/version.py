# SPDX-License-Identifier: Apache-2.0
"""The version, which is written down in package.xml and nowhere else."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from importlib import metadata
from pathlib import Path

from xsvggt_ros.errors import EnvironmentMissingError

_NAME = "xsvggt_ros"


def version() -> str:
    """Return the version of this very copy: a checkout, a colcon workspace or a pip package."""
    manifest = _manifest(Path(__file__).absolute())
    if manifest is not None:
        return _version_in(manifest)
    try:
        return metadata.version(_NAME)
    except metadata.PackageNotFoundError as error:
        problem = f"no package.xml and no metadata of {_NAME} near {__file__}"
        raise EnvironmentMissingError(f"{problem}: install it again with pip or colcon") from error


def _manifest(module: Path) -> Path | None:
    """Return package.xml of the checkout, or of the prefix that this module is installed into."""
    checkout = module.parents[1] / "package.xml"
    installed = (directory / "share" / _NAME / "package.xml" for directory in module.parents)
    found = (path for path in (checkout, *installed) if path.is_file())
    return next(found, None)


def _version_in(manifest: Path) -> str:
    return (ElementTree.parse(manifest).getroot().findtext("version") or "").strip()
