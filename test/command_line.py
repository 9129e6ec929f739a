# SPDX-License-Identifier: Apache-2.0
"""The command line, within the process of the test."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from xsvggt_ros import cli


def run(*words: object) -> Result:
    """Run `xsvggt` with words as typed."""
    return CliRunner().invoke(cli.app, [str(word) for word in words])
