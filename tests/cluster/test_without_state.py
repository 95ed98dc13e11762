"""A node dies, and the state that others kept for it is gone too: what the raw logs of all homes tell is enough."""

from __future__ import annotations

import json
import shutil
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.nodes import CONFIG, ClusterNode, begin, cluster_of, wait_view
from tests.journeys.running import WEB_KEY, unique, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

WAREHOUSE = "destinations:\n  warehouse: {{type: duckdb, path: warehouse.duckdb, node: a}}\n"


@pytest.fixture
def three(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[ClusterNode]]:
    monkeypatch.setattr("tests.cluster.nodes.CONFIG", CONFIG + WAREHOUSE)
    with cluster_of(tmp_path_factory.mktemp("three"), 3) as nodes:
        begin(nodes)
        wait_view(nodes, 40)
        wait_for(lambda: all(node.status_of(node.ops, "/ready") == 200 for node in nodes), 40, nodes[0].log)
        yield nodes


def send(node: ClusterNode, first: int, end: int) -> None:
    events: list[dict[str, Any]] = [
        {"type": "track", "event": "Seen", "messageId": f"m{n}", "anonymousId": f"v{n}"}
        for n in range(first, end)
    ]
    secret = b64encode(f"{WEB_KEY}:".encode()).decode()
    answer = node.ask("POST", "/v1/batch", {"batch": events}, {"Authorization": f"Basic {secret}"})
    assert answer.status == 200, answer


def rows(node: ClusterNode) -> set[str]:
    """The ids of the rows, each of which is there once; none while the deliverer does not answer yet."""
    done = node.command("sql", "--json", "select message_id from events")
    return unique(row["message_id"] for row in json.loads(done.stdout)) if done.returncode == 0 else set()


def owned_by(node: ClusterNode, name: str) -> int:
    """How many partitions a node has, as this one knows."""
    return int(next(one["partitions"] for one in node.status()["nodes"] if one["name"] == name))


def test_a_client_that_sends_again_after_a_takeover_without_state_has_no_event_twice(
    three: list[ClusterNode],
) -> None:
    """H7, protocol.md §7: the ids that the lost owner had seen came from homes that are there, and are read anew."""
    a, b, c = three
    send(a, 0, 100)
    send(c, 100, 200)
    wait_for(lambda: len(rows(a)) == 200, 30, a.log)
    wait_for(lambda: owned_by(a, "b") > 10, 30, a.log)
    owned = owned_by(a, "b")
    b.kill_all()
    for node in (a, c):
        shutil.rmtree(node.data / "standby", ignore_errors=True)
    wait_for(lambda: a.sees("a", "c") and c.sees("a", "c"), 15, a.log)
    send(c, 0, 100)
    send(a, 100, 250)
    wait_for(lambda: len(rows(a)) == 250, 30, a.log)
    wait_for(lambda: restarted(a) + restarted(c) == owned, 5, a.log)


def restarted(node: ClusterNode) -> int:
    """Partitions that this node took over without state."""
    report = json.loads((node.data / "run/reports/process-0.json").read_text())
    assert report["detail"]["seeding"] == {"partitions": [], "unread_homes": []}
    return int(report["detail"]["counters"].get("\0restarted", {"in": 0})["in"])
