"""What a command says of one node holds for the cluster, asked at a node that is not concerned: three real nodes, one
warehouse at one of them."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cluster.nodes import CONFIG, ClusterNode, begin, cluster_of, wait_view
from tests.journeys.running import WEB_KEY, wait_for

WAREHOUSE = "destinations:\n  warehouse: {{type: duckdb, path: warehouse.duckdb}}\n"
BAD = "its-event-has-no-name"


@pytest.fixture(scope="module")
def heard() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A listener for advisories: its URL, and what it was told."""
    told: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/advisories", told
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, heard: Any) -> Iterator[SimpleNamespace]:
    """``holder`` has the warehouse's file; ``home`` accepts; ``asked`` has to do with neither."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.cluster.nodes.CONFIG", CONFIG + WAREHOUSE)
        more = f"  advisories: {{webhook: {heard[0]}}}"
        with cluster_of(tmp_path_factory.mktemp("ops"), 3, more=more) as every:
            begin(every)
            wait_view(every, 40)
            wait_for(lambda: all(node.status_of(node.ops, "/ready") == 200 for node in every), 40)
            wait_for(lambda: any((node.data / "warehouse.duckdb").exists() for node in every), 40)
            holder = next(node for node in every if (node.data / "warehouse.duckdb").exists())
            home, asked = (node for node in every if node is not holder)
            yield SimpleNamespace(holder=holder, home=home, asked=asked, every=every)


def send(node: ClusterNode, *events: dict[str, Any]) -> str:
    """Accepted by this node; the receipt."""
    secret = b64encode(f"{WEB_KEY}:".encode()).decode()
    answer = node.ask("POST", "/v1/batch", {"batch": list(events)}, {"Authorization": f"Basic {secret}"})
    assert answer.status == 200, answer
    return str(answer.json["receipt"])


def track(message_id: str, visitor: str, **more: Any) -> dict[str, Any]:
    return {"type": "track", "event": "Clicked", "messageId": message_id, "anonymousId": visitor, **more}


def told(node: ClusterNode, *words: str) -> Any:
    """The JSON of a command."""
    done = node.command(*words, "--json")
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def refused(node: ClusterNode, *words: str) -> str:
    """Why a command is refused."""
    done = node.command(*words)
    assert done.returncode == 2, (done.stdout, done.stderr)
    return done.stderr


@pytest.fixture(scope="module")
def receipt(nodes: SimpleNamespace) -> str:
    """Of 40 visitors' events, accepted by ``home``, so that each node owns some; all of them arrived."""
    bad = {"type": "track", "messageId": BAD, "anonymousId": "nobody"}
    receipt = send(nodes.home, *(track(f"m{n}", f"v{n}") for n in range(40)), bad)
    wait_for(lambda: nodes.asked.command("where", receipt).returncode == 0, 30, nodes.home.log)
    return receipt


def test_where_is_the_same_at_every_node(nodes: SimpleNamespace, receipt: str) -> None:
    assert nodes.asked.command("where", receipt).returncode == 0
    for node in nodes.every:
        page = node.read(f"/api/where?receipt={receipt}")
        assert page["acknowledged"] is page["processed"] is page["destinations"]["warehouse"] is True
    strange = re.sub(r"\d+$", "999999", receipt)
    assert nodes.asked.read(f"/api/where?receipt={strange}")["acknowledged"] is False


def test_the_demo_page_follows_a_click_into_the_warehouse_of_another_node(nodes: SimpleNamespace) -> None:
    receipt = send(nodes.home, track("click", "demo"))
    path = f"/demo/journey?receipt={receipt}&message_id=click"
    wait_for(
        lambda: (nodes.home.read(path) or {}).get("row") is not None, 20, lambda: str(nodes.home.read(path))
    )
    assert nodes.home.read(path)["row"]["message_id"] == "click"
    assert nodes.asked.read(path)["destinations"] == {"warehouse": True}


def test_explain_finds_what_another_node_accepted(nodes: SimpleNamespace, receipt: str) -> None:
    story = told(nodes.asked, "explain", "m7")
    (copy,) = story["copies"]
    assert (copy["in_raw"], copy["processing"]["state"]) == (True, "row")
    assert copy["destinations"]["warehouse"]["state"] == "there"
    assert story["not_asked"] == []
    copies = told(nodes.holder, "explain", receipt)["copies"]
    assert sum(copy["found_by"] == "receipt" for copy in copies) == 41
    assert told(nodes.asked, "explain", BAD)["copies"][0]["processing"]["state"] == "dead"
    over_http = nodes.asked.read("/api/explain?id=m7")
    assert over_http["copies"][0]["position"] == copy["position"]


def test_dead_letters_are_those_of_all_nodes_and_are_retried_where_they_lie(
    nodes: SimpleNamespace, receipt: str, tmp_path: Path
) -> None:
    # it is durable with the commit, and listed with the fold a second behind
    wait_for(lambda: bool(nodes.asked.read("/api/dead")), 10, nodes.home.log)
    lists = [*(node.read("/api/dead") for node in nodes.every), told(nodes.asked, "dead", "list")]
    assert all(one == lists[0] for one in lists)
    (letter,) = lists[0]
    for node in nodes.every:
        assert "nobody" in node.read(f"/api/dead/{letter['origin']}")["body"]
    other = next(node for node in nodes.every if node.name != letter["node"])
    exported = other.command("dead", "export", "-").stdout
    assert [json.loads(line)["origin"] for line in exported.splitlines()] == [letter["origin"]]
    mended = {**json.loads(exported), "body": json.dumps(track(BAD, "nobody", properties={"mended": True}))}
    (tmp_path / "mended.ndjson").write_text(json.dumps(mended))
    (result,) = told(other, "dead", "retry", "--edit", str(tmp_path / "mended.ndjson"))
    assert (result["state"], result["says"]) == ("there", "in warehouse")
    assert nodes.asked.sql(f"select count(*) as n from events where message_id = '{BAD}'")[0]["n"] in (1, "1")
    (again,) = told(
        next(node for node in nodes.every if node is not other), "dead", "retry", letter["origin"]
    )
    assert again["state"] == "retried_before", "it was marked where every node sees it"


def test_reconcile_deep_counts_the_rows_that_another_node_holds(nodes: SimpleNamespace, receipt: str) -> None:
    wait_for(lambda: nodes.asked.reconcile()[0]["pending"] == 0, 20)
    (ledger,) = told(nodes.asked, "reconcile", "--deep")
    deep = ledger["destinations"]["warehouse"]["deep"]
    assert (ledger["holds"], deep["counted"], deep["said"]) == (
        True,
        ledger["delivered"],
        ledger["delivered"],
    )


def test_a_pause_is_that_of_all_nodes(nodes: SimpleNamespace) -> None:
    paused = told(nodes.asked, "destination", "pause", "warehouse", "--reason", "a test")
    assert (len(paused["nodes"]), paused["silent"]) == (3, [])
    receipt = send(nodes.home, *(track(f"p{n}", f"w{n}") for n in range(40)))
    wait_for(lambda: nodes.asked.read(f"/api/where?receipt={receipt}")["processed"], 20)
    assert all(
        node.read("/api/status")["destinations"]["warehouse"]["state"] == "paused" for node in nodes.every
    )
    assert nodes.asked.sql("select count(*) as n from events where message_id like 'p%'")[0]["n"] in (0, "0")
    assert nodes.holder.command("destination", "resume", "warehouse").returncode == 0
    wait_for(lambda: nodes.asked.command("where", receipt).returncode == 0, 20)
    assert "nothing to resume" in refused(nodes.home, "destination", "resume", "warehouse")


def test_what_cannot_be_done_from_here_is_refused(nodes: SimpleNamespace, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    why = refused(nodes.asked, "sql", "from events", "--output", str(rows))
    assert f"held by node {nodes.holder.name}" in why
    assert not rows.exists()
    assert nodes.holder.command("sql", "from events", "--output", str(rows)).returncode == 0
    assert "not possible in a cluster" in refused(nodes.asked, "replay", "--from", "1h", "--to", "now")
    assert "does not wait" in refused(nodes.asked, "destination", "adopt", "warehouse", "--from", "now")


def test_metrics_of_all_nodes_add_up_to_the_ledger(nodes: SimpleNamespace, receipt: str) -> None:
    def total(wanted: str) -> int:
        pages = [node.ask("GET", "/metrics", port=node.ops).body.decode() for node in nodes.every]
        return sum(
            int(line.split()[-1]) for page in pages for line in page.splitlines() if line.startswith(wanted)
        )

    def delivered() -> int:
        return total('headwater_events{destination="warehouse",kind="delivered"')

    ledger = nodes.asked.reconcile()[0]
    wait_for(lambda: total("headwater_accepted_events_total") == ledger["accepted"], 10)
    wait_for(lambda: delivered() == nodes.asked.reconcile()[0]["delivered"], 10)


@pytest.mark.thorough
def test_a_slow_owner_is_told_of_once_moves_nothing_and_keeps_the_order(
    nodes: SimpleNamespace, heard: tuple[str, list[dict[str, Any]]]
) -> None:
    """Stopped for ten seconds, it is told of once by each home that has something for it; then once that it is back."""
    slow, home = nodes.asked, nodes.home
    before = home.status()["epoch"]
    heard[1].clear()
    lines = home.log_text().count('"owner_slow"')
    pids = slow.freeze("role process")
    try:
        for turn in range(10):
            send(home, *(track(f"s{turn}-{n}", f"s{n}", properties={"turn": turn}) for n in range(40)))
            time.sleep(1)
        wait_for(lambda: any(one["node"] == home.name for one in heard[1]), 10)
        rows = {(one["home_name"], one["owner_name"]): one for one in slow.status()["lag"]["homes"]}
        assert rows[home.name, slow.name]["slow"]
        assert rows[home.name, slow.name]["events"] >= 400
        assert rows[home.name, home.name]["events"] < 400
        assert "slow" in nodes.holder.command("cluster", "status").stdout
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    def of_home() -> list[tuple[str, str]]:
        found = [one for one in heard[1] if (one["node"], one["peer"]) == (home.name, slow.name)]
        return [(one["reason"], one["action"]) for one in found]

    wait_for(lambda: of_home()[-1:] == [("slow_consumer", "resumed")], 30, lambda: str(heard[1]))
    assert of_home() == [("slow_consumer", "waiting"), ("slow_consumer", "resumed")]
    assert home.log_text().count('"owner_slow"') > lines
    assert home.status()["epoch"] == before, "nothing moved"
    wait_for(lambda: nodes.asked.reconcile()[0]["pending"] == 0, 30)
    query = (
        "select 1 from (select _hw_seq as seq, lag(_hw_seq) over (partition by anonymous_id order by rowid) as before "
        "from events where message_id like 's%') where before > seq"
    )
    assert nodes.holder.sql(query) == [], "each visitor's events stand in the order in which they came"


def settled(node: ClusterNode) -> bool:
    """Whether its ledger holds, and nothing is on its way."""
    (ledger,) = node.reconcile()
    return bool(ledger["holds"]) and ledger["pending"] == 0


def test_a_node_that_is_gone_for_good_is_named_until_it_is_forgotten(
    nodes: SimpleNamespace, receipt: str
) -> None:
    asked, home = nodes.asked, nodes.home
    gone = home.status()["node"]
    assert "is alive" in refused(asked, "cluster", "forget", home.name)
    home.kill_all()
    try:
        names = {nodes.asked.name, nodes.holder.name}
        wait_for(lambda: {one["name"] for one in asked.status()["nodes"] if one["member"]} == names, 40)
        wait_for(lambda: asked.reconcile()[0]["problems"] != [], 20)
        assert gone in str(told(asked, "explain", "m7")["not_asked"])
        first = asked.command("cluster", "forget", gone)
        assert (first.returncode, "given up, uncounted" in first.stderr) == (1, True)
        assert gone in str(told(asked, "explain", "m7")["not_asked"]), "nothing was done yet"
        done = asked.command("cluster", "forget", gone, "--yes")
        assert done.returncode == 0, done.stderr
        for node in (asked, nodes.holder):
            wait_for(lambda node=node: told(node, "explain", "m7")["not_asked"] == [], 20, node.log)  # type: ignore[misc]
            assert gone not in node.command("dead", "list").stderr
            wait_for(lambda node=node: settled(node), 30, node.log)  # type: ignore[misc]
            (ledger,) = node.reconcile()
            assert "gone for good" in ledger["problems"][-1]
            assert ledger["accepted"] >= ledger["delivered"] > 0
    finally:  # it comes back after all
        home.begin()
        wait_view(nodes.every, 60)
    wait_for(lambda: asked.reconcile()[0]["holds"] and not asked.reconcile()[0]["problems"], 60, asked.log)
    assert told(asked, "explain", "m7")["not_asked"] == []


def test_who_does_not_answer_is_named_and_nothing_wrong_is_said(nodes: SimpleNamespace, receipt: str) -> None:
    names = (f"node {nodes.home.name}", f"node {nodes.home.status()['node']}")  # by its id once it is evicted
    nodes.home.kill_all()

    def named(text: str) -> bool:
        return any(name in text for name in names)

    try:
        page = told(nodes.asked, "where", receipt)
        assert page["acknowledged"] is not False
        if page["acknowledged"] is None or not page["processed"]:
            assert named(str(page["silent"]))
        assert named(nodes.asked.command("dead", "list").stderr)
        assert named(str(told(nodes.asked, "explain", "m7")["not_asked"]))
        paused = nodes.asked.command("destination", "pause", "warehouse")
        assert (paused.returncode, named(paused.stderr)) == (1, True)
    finally:  # tests run in any order
        nodes.home.begin()
        wait_view(nodes.every, 60)
        nodes.asked.command("destination", "resume", "warehouse")
        wait_for(
            lambda: nodes.asked.reconcile()[0]["holds"] and not nodes.asked.reconcile()[0]["pending"], 60
        )
