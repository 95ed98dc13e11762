"""Who is linked to whom, asked and taken back at any node: three real nodes, one warehouse at one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cluster.nodes import ClusterNode, begin, cluster_of, wait_view
from tests.journeys.running import WEB_KEY, wait_for

WAREHOUSE = "destinations:\n  warehouse: {type: duckdb, path: warehouse.duckdb}\n"
VISITORS = 12
BROWSER = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
)


def send(node: ClusterNode, *events: dict[str, Any]) -> None:
    """Accepted by this node, from a browser."""
    headers = {"X-Write-Key": WEB_KEY, "User-Agent": BROWSER, "Content-Type": "application/json"}
    answer = node.ask("POST", "/v1/batch", {"batch": list(events)}, headers)
    assert answer.status == 200, answer


def told(node: ClusterNode, *words: str) -> tuple[int, Any]:
    """The exit code of a command of identity, and its JSON."""
    done = node.command("identity", *words, "--json")
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else done.stderr


def users(node: ClusterNode) -> dict[str, int]:
    """User → rows that carry them by recognition."""
    query = "select coalesce(user_id, '') as u, count(*) as n from events where not _hw_user_own group by all"
    done = node.command("sql", "--json", query)
    return {row["u"]: row["n"] for row in json.loads(done.stdout)} if done.returncode == 0 else {}


def test_a_link_is_shown_and_taken_back_at_nodes_that_are_not_concerned(tmp_path: Path) -> None:
    """Visitors enough that each node owns some, accepted by one node, logged in at another, taken back at each."""
    with cluster_of(tmp_path, 3, sections=WAREHOUSE) as nodes:
        begin(nodes)
        wait_view(nodes, 60)
        wait_for(lambda: all(node.status_of(node.ops, "/ready") == 200 for node in nodes), 60)
        views = [
            {"type": "track", "event": "View", "anonymousId": f"v{n}", "messageId": f"t{n}"}
            for n in range(VISITORS)
        ]
        send(nodes[0], *views)
        logins = [
            {"type": "identify", "anonymousId": f"v{n}", "userId": f"u{n}", "messageId": f"i{n}"}
            for n in range(VISITORS)
        ]
        send(nodes[1], *logins)
        wait_for(
            lambda: users(nodes[2]) == {f"u{n}": 1 for n in range(VISITORS)}, 60, lambda: str(users(nodes[2]))
        )
        for n, node in enumerate(nodes):
            code, answer = told(node, "unlink", f"v{n}", f"u{n}", "--yes", "--wait", "30")
            assert (code, answer["state"]) == (0, "unlinked"), answer
        assert users(nodes[0]) == {"": 3, **{f"u{n}": 1 for n in range(3, VISITORS)}}
        for node in nodes:
            _, answer = told(node, "show", "u1")
            assert [one["state"] for one in answer["visitors"]] == ["unlinked"]
            assert len(told(node, "log", "--limit", "100")[1]) == VISITORS + 3
        ledgers = {one["stream"]: one for one in nodes[0].wait_settled()}
        assert all(one["holds"] for one in ledgers.values()), ledgers
        assert (ledgers["(operator)"]["filtered"], ledgers["(operator)"]["delivered"]) == (3, 0)
