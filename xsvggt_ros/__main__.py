# SPDX-License-Identifier: Apache-2.0
"""The program `xsvggt`, also as `python -m xsvggt_ros`."""

from __future__ import annotations

import sys

from xsvggt_ros.installation import missing_extra


def main() -> None:
    """Run the command line; without the packages that it needs, say which to install."""
    try:
        from xsvggt_ros.cli import app
    except ModuleNotFoundError as error:
        command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        text = missing_extra(error, command)
        if text is None:
            raise
        sys.exit(f"xsvggt: {text}")
    app(prog_name="xsvggt")


if __name__ == "__main__":
    main()
