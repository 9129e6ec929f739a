# SPDX-License-Identifier: Apache-2.0
"""What the core logs, as the node's log has it."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run scripts/test, or source a ROS 2 distribution")

from xsvggt_ros.ros.log_bridge import forwarded_logging

CORE = logging.getLogger("xsvggt_ros.stream")


class _Logger:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda text: self.lines.append((level, text))


def test_every_level_arrives_as_itself_and_is_left_alone_afterwards() -> None:
    logger, noted = _Logger(), list[str]()
    with forwarded_logging(logger, noted.append):  # type: ignore[arg-type]
        CORE.debug("d")
        CORE.info("i")
        CORE.warning("w")
        CORE.error("e")
    CORE.error("outside")
    assert logger.lines == [("debug", "d"), ("info", "i"), ("warning", "w"), ("error", "e")]
    assert noted == ["w", "e"]


def test_two_nodes_of_a_process_leave_the_loggers_as_they_were_in_any_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = _Logger(), _Logger()
    bridges = [forwarded_logging(each, lambda _: None) for each in (first, second)]  # type: ignore[arg-type]
    for bridge in bridges:
        bridge.__enter__()
    CORE.warning("both")
    bridges[0].__exit__(None, None, None)
    CORE.warning("second")
    assert not caplog.text
    bridges[1].__exit__(None, None, None)
    CORE.warning("nobody")
    assert (first.lines, second.lines) == (
        [("warning", "both")],
        [("warning", "both"), ("warning", "second")],
    )
    assert [record.message for record in caplog.records] == ["nobody"]


def test_a_problem_of_every_frame_is_one_line_and_the_status_has_the_newest() -> None:
    logger, noted = _Logger(), list[str]()
    with forwarded_logging(logger, noted.append):  # type: ignore[arg-type]
        for i in range(100):
            CORE.warning("the image changes from %dx%d to 518x518 pixels", i, i + 1)
            CORE.info("session %d ends", i)
            CORE.debug("frame %d", i)
            try:
                raise ValueError(i)
            except ValueError:
                CORE.exception("unexpected failure on the frame of stamp %d", i)
    by_level = {level: [t for own, t in logger.lines if own == level] for level, _ in logger.lines}
    assert by_level["warning"] == ["the image changes from 0x1 to 518x518 pixels"]
    assert by_level["info"] == ["session 0 ends"]
    assert len(by_level["debug"]) == 100
    (failure,) = by_level["error"]
    assert "Traceback" in failure
    assert "ValueError: 0" in failure
    assert noted[-2:] == [
        "the image changes from 99x100 to 518x518 pixels",
        "unexpected failure on the frame of stamp 99",
    ]


HOST = """
import logging, sys

class Isolated(logging.Logger):
    # What ROS 2's launch installs as soon as it is imported.
    everyone = []
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.propagate = False
        self.everyone.append(self)

logging.setLoggerClass(Isolated)
logging.getLogger("xsvggt_ros.stream")  # made by the host, before the package is imported
"""

NODE = """
from xsvggt_ros.ros.log_bridge import forwarded_logging

class Logger:
    def __getattr__(self, level):
        return lambda text: print(level, text)

with forwarded_logging(Logger(), lambda text: print("status", text)):
    for logger in Isolated.everyone:  # as each new launch does
        logger.handlers.clear()
        logger.setLevel(logging.NOTSET)
    logging.getLogger("xsvggt_ros.stream.worker").warning("slow")
    logging.getLogger("xsvggt_ros.ros.scale_input").warning("no scale")
"""

LIBRARY = """
logging.basicConfig(format="root %(message)s", stream=sys.stdout)
import xsvggt_ros.geometry.cameras
logging.getLogger("xsvggt_ros.geometry.files").warning("seen")
import xsvggt_ros.stream.imaging
assert type(logging.getLogger("somebody_else")) is Isolated
assert not [logger.name for logger in Isolated.everyone if logger.name.startswith("xsvggt_ros.g")]
"""


@pytest.mark.parametrize(
    ("program", "lines"),
    [
        (NODE, ["warning slow", "status slow", "warning no scale", "status no scale"]),
        (LIBRARY, ["root seen"]),
    ],
    ids=["node", "library"],
)
def test_records_arrive_in_a_process_whose_loggers_keep_them(
    program: str, lines: list[str]
) -> None:
    run = subprocess.run(
        [sys.executable, "-c", HOST + program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.splitlines() == lines
