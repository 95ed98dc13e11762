"""`ack: delivered` on real nodes: whoever owns the partition, with the 200 the row is in the one warehouse."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import nodes as cluster
from tests.cluster.nodes import ClusterNode, begin, cluster_of, wait_view
from tests.journeys.running import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

START_S = 40
DELIVERED, DISK = "the-delivered-key", "the-disk-key"
KEYS = f"""  - {{{{id: orders, secret: {DELIVERED}, ack: delivered, ack_destination: warehouse}}}}
  - {{{{id: fast, secret: {DISK}, ack: disk}}}}
destinations:
  warehouse: {{{{type: duckdb, path: warehouse.duckdb}}}}
"""


@pytest.fixture(autouse=True)
def _configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        cluster, "CONFIG", cluster.CONFIG.replace("shutdown_timeout", KEYS + "shutdown_timeout")
    )


def send(node: ClusterNode, name: str, count: int = 1, secret: str = DELIVERED) -> tuple[int, Any]:
    """Events of as many visitors, so of many partitions; one goes by itself and waits for its own partition only."""
    batch = [
        {"type": "track", "event": "E", "messageId": f"{name}-{n}", "anonymousId": f"{name}-{n}"}
        for n in range(count)
    ]
    answer = node.ask(
        "POST",
        "/v1/batch" if count > 1 else "/v1/track",
        {"batch": batch} if count > 1 else batch[0],
        {"Authorization": f"Bearer {secret}"},
        port=node.collect,
        timeout_s=30,
    )
    return answer.status, answer.json


def rows(node: ClusterNode, name: str) -> int:
    """In the warehouse, asked over HTTP so that no time passes in which a row could still come."""
    query = f"select count(*) as n from events where message_id like '{name}-%'"
    answer = node.ask(
        "POST", "/api/sql", {"query": query}, {"Content-Type": "application/json"}, port=node.ops
    )
    return int(answer.json["rows"][0]["n"]) if answer.status == 200 else -1


def keeper_of(nodes: list[ClusterNode]) -> ClusterNode:
    """The node with the warehouse: the first leader."""
    wait_for(lambda: any((node.data / "warehouse.duckdb").exists() for node in nodes), START_S, nodes[0].log)
    return next(node for node in nodes if (node.data / "warehouse.duckdb").exists())


def started(nodes: list[ClusterNode]) -> ClusterNode:
    """All there, and delivering; the node with the warehouse."""
    begin(nodes)
    wait_view(nodes, START_S)
    for node in nodes:
        wait_for(lambda node=node: send(node, "warm", 50)[0] == 200, START_S, node.log)  # type: ignore[misc]
    return keeper_of(nodes)


def test_with_the_200_the_row_is_in_the_warehouse_whoever_owns_its_partition(tmp_path: Path) -> None:
    with cluster_of(tmp_path, 3) as nodes:
        keeper = started(nodes)
        longest_s = 0.0
        for number in range(4):
            for node in nodes:
                for name, count in ((f"one-{node.name}{number}", 1), (f"many-{node.name}{number}", 300)):
                    began = time.monotonic()
                    status, told = send(node, name, count)
                    longest_s = max(longest_s, time.monotonic() - began)
                    assert rows(keeper, name) == count
                    assert (status, told["ack"]) == (200, "delivered"), told
        print(f"the longest answer took {longest_s:.1f} s")


def test_a_paused_destination_is_said_after_its_time_and_every_row_comes_once(tmp_path: Path) -> None:
    with cluster_of(tmp_path, 3) as nodes:
        keeper = started(nodes)
        other = next(node for node in nodes if node is not keeper)
        assert other.command("destination", "pause", "warehouse").returncode == 0
        began = time.monotonic()
        status, told = send(other, "held", 300)
        took_s = time.monotonic() - began
        assert (status, told["error"], told["ack"]) == (503, "not_delivered", "disk"), told
        assert "will be delivered" in told["reason"] and "warehouse, which is paused" in told["reason"]
        assert 8 <= took_s < 10
        assert send(other, "disk", secret=DISK)[1]["ack"] == "disk"
        assert other.command("destination", "resume", "warehouse").returncode == 0
        status, told = send(other, "held", 300)
        assert rows(keeper, "held") == 300, "each once"
        assert (status, told["ack"]) == (200, "delivered"), told


@pytest.mark.thorough
def test_when_an_owner_is_killed_nothing_is_said_too_early_and_nothing_is_lost(tmp_path: Path) -> None:
    with cluster_of(tmp_path, 3) as nodes:
        keeper = started(nodes)
        lost = next(node for node in nodes if node is not keeper)
        other = next(node for node in nodes if node not in (keeper, lost))
        lost.kill_all()
        statuses = []
        for number in range(12):
            status, told = send(other, f"after{number}", 50)
            statuses.append(status)
            there = rows(keeper, f"after{number}")
            assert status == 503 or there == 50
            assert status == 200 or told["error"] in ("not_delivered", "not_enough_nodes"), told
            if status == 200 and number > 3:
                break
        assert statuses[-1] == 200, statuses
        for number, _ in enumerate(statuses):
            wait_for(lambda number=number: send(other, f"after{number}", 50)[0] == 200, 30, other.log)  # type: ignore[misc]
            assert rows(keeper, f"after{number}") == 50
