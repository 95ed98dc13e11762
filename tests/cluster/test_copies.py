"""`ack: replicated` on real nodes: what was acknowledged at it outlives the disk that accepted it (protocol.md §14)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import nodes as cluster
from tests.cluster.nodes import ClusterNode, begin, cluster_of, wait_view
from tests.journeys.running import wait_for

START_S = 40
REPLICATED, DISK = "the-replicated-key", "the-disk-key"
KEYS = f"""  - {{{{id: safe, secret: {REPLICATED}, ack: replicated}}}}
  - {{{{id: fast, secret: {DISK}, ack: disk}}}}
destinations:
  warehouse: {{{{type: duckdb, path: warehouse.duckdb}}}}
"""


@pytest.fixture(autouse=True)
def _configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        cluster, "CONFIG", cluster.CONFIG.replace("shutdown_timeout", KEYS + "shutdown_timeout")
    )


def send(node: ClusterNode, name: str, secret: str = REPLICATED, count: int = 10) -> tuple[int, Any]:
    """A batch of events with ids of their own."""
    batch = [
        {"type": "track", "event": "E", "messageId": f"{name}-{n}", "anonymousId": f"v{n}"}
        for n in range(count)
    ]
    answer = node.ask(
        "POST",
        "/v1/batch",
        {"batch": batch},
        {"Authorization": f"Bearer {secret}"},
        port=node.collect,
        timeout_s=30,
    )
    return answer.status, answer.json


def started(nodes: Sequence[ClusterNode]) -> None:
    """All there, and replicating."""
    begin(nodes)
    wait_view(nodes, START_S)
    for node in nodes:
        wait_for(lambda node=node: replicates(node), START_S, node.log)  # type: ignore[misc]


def replicates(node: ClusterNode) -> bool:
    return send(node, "warm")[0] == 200


def holders(node: ClusterNode) -> list[str]:
    """Ids of the nodes that hold its copies, as its lane says."""
    report = json.loads((node.data / "run" / "reports" / "lane-0.json").read_text())
    return list(report["detail"]["copies"]["holders"])


def id_of(node: ClusterNode) -> str:
    return next(one["id"] for one in node.status()["nodes"] if one["name"] == node.name)


def keeper_of(nodes: Sequence[ClusterNode]) -> ClusterNode:
    """The node with the warehouse: the first leader."""
    wait_for(lambda: any((node.data / "warehouse.duckdb").exists() for node in nodes), START_S, nodes[0].log)
    return next(node for node in nodes if (node.data / "warehouse.duckdb").exists())


def rows(node: ClusterNode) -> tuple[int, int]:
    """How many rows the warehouse has, and how many ids."""
    said = node.command("sql", "--json", "select count(*) c, count(distinct message_id) d from events")
    if said.returncode:
        return 0, 0
    (one,) = json.loads(said.stdout)
    return one["c"], one["d"]


def until_answered(
    ask: Callable[[], tuple[int, Any]], within_s: float
) -> tuple[float, list[tuple[int, Any]]]:
    """Ask until 200; how long that took, and the answers before."""
    began = time.monotonic()
    refused: list[tuple[int, Any]] = []
    while time.monotonic() - began < within_s:
        answer = ask()
        if answer[0] == 200:
            return time.monotonic() - began, refused
        refused.append(answer)
        time.sleep(0.1)
    raise AssertionError(f"not within {within_s} s: {refused[-1]}")


def test_what_was_acknowledged_replicated_arrives_once_when_its_node_is_gone_for_good(tmp_path: Path) -> None:
    with cluster_of(tmp_path, 3) as nodes:
        started(nodes)
        keeper = keeper_of(nodes)
        lost = next(node for node in nodes if node is not keeper)
        acknowledged = 10  # "warm" is one set of ids
        for number in range(40):
            status, told = send(lost, f"m{number}")
            assert (status, told["ack"]) == (200, "replicated"), told
            acknowledged += 10
        lost.kill_all()
        shutil.rmtree(lost.data)
        began = time.monotonic()
        wait_for(lambda: rows(keeper)[1] == acknowledged, 30, lambda: f"{rows(keeper)}\n{keeper.log()}")
        took_s = time.monotonic() - began
        assert rows(keeper) == (acknowledged, acknowledged)
        assert took_s <= 15, f"{took_s:.1f} s"


@pytest.mark.thorough
def test_another_holder_takes_over_when_one_is_killed(tmp_path: Path) -> None:
    with cluster_of(tmp_path, 3) as nodes:
        started(nodes)
        a = nodes[0]
        (first,) = holders(a)
        holder = next(node for node in nodes[1:] if id_of(node) == first)
        holder.kill_all()
        took_s, refused = until_answered(lambda: send(a, "after"), 15)
        assert {told["error"] for _, told in refused} <= {"not_replicated"}, "one node more is there"
        assert took_s < 8
        wait_for(lambda: holders(a) not in ([], [first]), 5, a.log)


@pytest.mark.thorough
def test_a_holder_that_stands_still_is_said_and_other_keys_go_on(tmp_path: Path) -> None:
    with cluster_of(tmp_path, 2, more="  copies_timeout_s: 1") as nodes:
        started(nodes)
        a, b = nodes
        stopped = b.freeze()
        try:
            began = time.monotonic()
            status, told = send(a, "late")
            took_s = time.monotonic() - began
            assert (status, told["error"], told["ack"]) == (503, "not_replicated", "disk"), told
            assert 1.0 <= took_s < 4.0
            wait_for(lambda: send(a, "later")[1]["error"] == "not_enough_copies", 8, a.log)
            began = time.monotonic()
            status, told = send(a, "never")
            assert (status, told["error"], "ack" in told) == (503, "not_enough_copies", False)
            assert time.monotonic() - began < 0.9, "at once"
            assert send(a, "fast", DISK)[0] == 200
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        until_answered(lambda: send(a, "late"), 30)
        keeper = keeper_of(nodes)
        wait_for(lambda: rows(keeper)[0] >= 30, 20, keeper.log)
        assert rows(keeper)[0] == rows(keeper)[1], "what was sent again is there once"


def test_a_node_that_lost_the_others_refuses_these_keys_only(tmp_path: Path) -> None:
    with cluster_of(tmp_path, 2) as nodes:
        started(nodes)
        a = nodes[0]
        nodes[1].kill_all()
        wait_for(lambda: send(a, "never")[1].get("error") == "not_enough_copies", 15, a.log)
        status, told = send(a, "never")
        assert (status, "this one and 0 others" in told["reason"]) == (503, True), told
        assert send(a, "fast", DISK)[0] == 200
