# SPDX-License-Identifier: Apache-2.0
"""What the core logs, as the node's log has it."""

from __future__ import annotations

import logging
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
