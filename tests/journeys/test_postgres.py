"""PostgreSQL beside DuckDB: the same events in both, also when the process that delivers is killed under load."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos.load import Load
from tests.journeys.running import Running, command_line, unique, wait_for
from tests.rigs.postgres import Server

MORE = '  pg: {{type: postgres, url: "{url}", schema: {schema}, password: "${{env.PG_PASSWORD}}"}}'
PASSWORD = "never-shown-anywhere"
KILLS = 5


def deliverer(node: Running) -> list[int]:
    """The process that delivers to PostgreSQL."""
    return [pid for pid in node.pids("deliver") if "pg" in command_line(pid)]


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_inv_dest_events_land_in_both_and_kill_9_of_the_deliverer_under_load_is_exact(
    make_node: Callable[..., Running], postgres: Server
) -> None:
    """INV-DEST, INV-LED-1, INV-DST-3: one destination's end is not felt in the other."""
    schema = postgres.schema()
    node = make_node(more=MORE.format(url=postgres.url(), schema=schema))
    node.environment["PG_PASSWORD"] = PASSWORD
    node.start()
    load = Load(node, clients=2)
    load.begin(1)
    kills = 0
    for _ in range(KILLS):
        time.sleep(0.5)
        wait_for(lambda: bool(deliverer(node)), 20, node.log)
        pids = deliverer(node)
        assert len(pids) == 1
        node.kill(*pids)
        kills += 1
    time.sleep(0.5)
    load.rest()
    ledgers = node.wait_settled()  # also of a deliverer that is only just starting again
    assert kills == KILLS and len(load.acknowledged) > 100
    assert all(ledger["holds"] for ledger in ledgers), ledgers
    columns = "message_id, value, received_at::text, _hw_seq"
    there = postgres.ask(f"select message_id, value, received_at, _hw_seq::bigint from {schema}.events")
    told = unique(message_id for message_id, *_ in there)
    assert load.acknowledged <= told <= set(load.sent)
    assert all(load.sent[name] == value for name, value, *_ in there)
    other = node.sql(f"select {columns} from events")
    assert {(row["message_id"], int(row["_hw_seq"])) for row in other} == {(m, seq) for m, _, _, seq in there}
    assert_said(node, schema)


@pytest.mark.slow
@pytest.mark.one_node("a replay over several nodes is not built (docs/plan.md)")
def test_a_replay_gives_postgres_the_same_events_once(
    make_node: Callable[..., Running], postgres: Server
) -> None:
    """Into the table that is there, and into a new one."""
    schema = postgres.schema()
    node = make_node(more=MORE.format(url=postgres.url(), schema=schema))
    node.environment["PG_PASSWORD"] = PASSWORD
    node.start()
    load = Load(node, clients=2)
    load.begin(1)
    time.sleep(1)
    load.rest()
    node.wait_settled()
    told = unique(one for (one,) in postgres.ask(f"select message_id from {schema}.events"))
    assert load.acknowledged <= told
    words = ("--from", "1h", "--to", "now", "--partial", "--destination", "pg", "--rate", "50000")
    for more, table in (((), "events"), (("--into", "again"), "events_again")):
        done = node.command("replay", *words, *more)
        assert done.returncode == 0, done.stderr
        wait_for(lambda: replayed(node), 60, node.log, interval_s=0.3)
        rows = postgres.ask(f"select message_id from {schema}.{table}")
        assert unique(message_id for (message_id,) in rows) == told
    assert all(ledger["holds"] for ledger in node.wait_settled())
    assert node.command("replay", "drop", "again", "--destination", "pg").returncode == 0
    assert postgres.ask("select to_regclass(%s)", f"{schema}.events_again") == [(None,)]


def replayed(node: Running) -> bool:
    """Whether every replay is done."""
    done = node.command("replay", "list", "--destination", "pg", "--json")
    return done.returncode == 0 and {one["state"] for one in json.loads(done.stdout)} == {"done"}


def assert_said(node: Running, schema: str) -> None:
    """What people see: the destination by its name, never its password."""
    seen: list[Any] = [node.log_text()]
    for words in (("status",), ("status", "--json"), ("config", "explain", "destinations.pg")):
        more = ("--config", str(node.config)) if words[0] == "config" else ()
        done = node.command(*words, *more)
        assert done.returncode in (0, 1), done.stderr  # so many ends of one process are told as not ready
        seen += [done.stderr, done.stdout]
    assert schema in seen[-1] and "pg" in seen[2]
    assert not any(PASSWORD in text for text in seen)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_server_that_is_away_holds_up_nobody_else_and_gets_everything_later(
    make_node: Callable[..., Running], postgres: Server
) -> None:
    """INV-DST-3: the address leads nowhere first; delivery begins by itself when somebody answers there."""
    schema = postgres.schema()
    role = f"role_{schema}"
    node = make_node(more=MORE.format(url=postgres.url(role), schema=schema))
    node.environment["PG_PASSWORD"] = PASSWORD
    node.start()
    status, _ = node.post("/v1/track", {"event": "Early", "userId": "u1", "messageId": "m1"})
    assert status == 200
    node.wait_rows(1)
    told = node.command("status").stdout
    assert "does not exist" in told and "pg" in told
    postgres.ask(f"create role {role} login")
    postgres.ask(f"create schema {schema} authorization {role}")
    wait_for(lambda: rows_of(postgres, schema) == 1, 30, node.log)
    assert all(ledger["holds"] for ledger in node.wait_settled())


def rows_of(server: Server, schema: str) -> int:
    """How many events a schema holds."""
    if server.ask("select to_regclass(%s)", f"{schema}.events") == [(None,)]:
        return 0
    return int(server.ask(f"select count(*) from {schema}.events")[0][0])
