# SPDX-License-Identifier: Apache-2.0
"""ROS domains that nobody uses."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from xsvggt_ros.errors import EnvironmentMissingError
from xsvggt_ros.ros import dds


@pytest.fixture
def taken() -> Iterator[int]:
    """A domain whose discovery port another socket holds while the test runs."""
    domain = dds.free_domain()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("", 7400 + 250 * domain + 10))
        yield domain


def test_a_domain_comes_from_the_candidates_and_is_not_in_use(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = next(domain for domain in dds.CANDIDATES if domain != taken)
    monkeypatch.setattr(dds, "_taken", lambda domain: domain == taken)
    monkeypatch.setattr(dds, "CANDIDATES", (taken, other))
    assert {dds.free_domain() for _ in range(20)} == {other}


def test_without_a_free_domain_the_remedy_is_named(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dds, "CANDIDATES", (taken,))
    with pytest.raises(EnvironmentMissingError, match=f"from {taken} to {taken} .*ROS_DOMAIN_ID"):
        dds.free_domain()


def test_workers_of_the_tests_share_no_domain() -> None:
    shares = [set(dds.CANDIDATES[index::3]) for index in range(3)]
    assert set.union(*shares) == set(dds.CANDIDATES)
    assert sum(map(len, shares)) == len(dds.CANDIDATES)
