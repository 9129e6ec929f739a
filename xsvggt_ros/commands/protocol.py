# SPDX-License-Identifier: Apache-2.0
"""`xsvggt evaluate --protocol`: a table of the paper, sequence by sequence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xsvggt_ros.commands.ending import end_run
from xsvggt_ros.commands.speaking import console, say_lines, say_table
from xsvggt_ros.interruption import stop_request

if TYPE_CHECKING:
    from xsvggt_ros.cache.settings import CacheSettings
    from xsvggt_ros.evaluation.protocol_run import ProtocolTable
    from xsvggt_ros.evaluation.request import NetworkOptions


def refuse_beside_protocol(given: Mapping[str, Any]) -> None:
    """Refuse options that a protocol fixes by itself or cannot honour.

    Raises:
        ConfigurationError: one of ``given``, options by name, is set (not None, False or empty).

    """
    from xsvggt_ros.errors import ConfigurationError

    for name, value in given.items():
        if value is not None and value is not False and value not in ((), []):
            raise ConfigurationError(
                f"{name} means nothing beside --protocol, which fixes what is taken and how it is "
                "judged; leave it out"
            )


def run_protocol_command(
    name: str,
    dataset: str | None,
    root: Path | None,
    sampling: Mapping[str, Any],
    network: NetworkOptions,
    cache: CacheSettings,
    output: Path,
) -> None:
    """Run a protocol, write its table after each sequence, and say where it is.

    ``sampling`` holds the other options of a protocol, None where they were not given.
    """
    from datetime import datetime

    from xsvggt_ros.errors import ConfigurationError
    from xsvggt_ros.evaluation.directory import new_directory
    from xsvggt_ros.evaluation.protocol_catalogue import ProtocolOptions, specification_of
    from xsvggt_ros.evaluation.protocol_run import run_protocol
    from xsvggt_ros.evaluation.report.protocol_page import write_protocol
    from xsvggt_ros.geometry.files import require_writable
    from xsvggt_ros.progress import run_progress

    if dataset is None or root is None:
        missing = "--dataset" if dataset is None else "--root"
        raise ConfigurationError(f"--protocol {name} needs {missing}; add it")
    options = ProtocolOptions(dataset, root.expanduser(), **sampling)
    specification = specification_of(name, options)
    specification.names(options)  # a root without sequences fails here
    require_writable(output)
    directory = new_directory(output, f"{name}_{dataset}", datetime.now())
    with stop_request() as stop, run_progress(console) as progress:
        table = run_protocol(
            specification,
            options,
            network,
            cache,
            directory,
            stop=stop,
            progress=progress,
            written=lambda table: write_protocol(table, directory),
        )
    _say(table)
    end_run(directory, interrupted=table.interrupted, code=1 if table.failed else 0)


def _say(table: ProtocolTable) -> None:
    from xsvggt_ros.evaluation.report.protocol_page import protocol_table

    made = protocol_table(table)
    title = f"{table.protocol}, {table.dataset}"
    say_table(made.heads[:-1], (row[:-1] for row in made.rows), words=1, title=title)
    say_lines((f"{failed.sequence}: {failed.error}" for failed in table.failed), "red")
    say_lines(table.remarks, "yellow")
