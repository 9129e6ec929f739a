# SPDX-License-Identifier: Apache-2.0
"""ROS domains that nobody uses."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from xsvggt_ros.errors import EnvironmentMissingError
from xsvggt_ros.ros import processes


@pytest.fixture
def taken() -> Iterator[int]:
    """A domain whose discovery port another socket holds while the test runs."""
    domain = processes.free_domain()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("", 7400 + 250 * domain + 10))
        yield domain


def test_a_domain_comes_from_the_candidates_and_is_not_in_use(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = next(domain for domain in processes.CANDIDATES if domain != taken)
    monkeypatch.setattr(processes, "_taken", lambda domain: domain == taken)
    monkeypatch.setattr(processes, "CANDIDATES", (taken, other))
    assert {processes.free_domain() for _ in range(20)} == {other}


def test_without_a_free_domain_the_remedy_is_named(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "CANDIDATES", (taken,))
    with pytest.raises(EnvironmentMissingError, match=f"from {taken} to {taken} .*ROS_DOMAIN_ID"):
        processes.free_domain()


def test_workers_of_the_tests_share_no_domain() -> None:
    shares = [set(processes.CANDIDATES[index::3]) for index in range(3)]
    assert set.union(*shares) == set(processes.CANDIDATES)
    assert sum(map(len, shares)) == len(processes.CANDIDATES)
