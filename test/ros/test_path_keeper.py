# SPDX-License-Identifier: Apache-2.0
"""The path is made on one thread and forgotten on another."""

from __future__ import annotations

import pytest

REASON = "needs ROS 2: run scripts/test, or source a workspace"
pytest.importorskip("rclpy", reason=REASON)

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from rclpy.node import Node

from xsvggt_ros.ros.publishers import PathPublisher


def test_a_path_forgotten_while_it_is_published_is_not_published(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = PathPublisher(node, "~/path")
    published: list[Path] = []

    def forgotten_meanwhile() -> int:
        keeper.restart()
        return 1

    monkeypatch.setattr(keeper._publisher, "publish", published.append)
    monkeypatch.setattr(keeper._publisher, "get_subscription_count", lambda: 1)
    keeper.append(PoseStamped(), max_poses=10)
    keeper.publish()
    keeper.publish()  # it has not grown since
    assert [len(path.poses) for path in published] == [1]
    keeper.append(PoseStamped(), max_poses=10)
    monkeypatch.setattr(keeper._publisher, "get_subscription_count", forgotten_meanwhile)
    keeper.publish()
    assert len(published) == 1
