"""Destinations that come late, are restored from an older copy, or were away for long: each gets what it lacks from the
raw log, once, while the others go on."""

from __future__ import annotations

import datetime
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.journeys.running import Running, unique, wait_for

MIB = 1024 * 1024
BATCH, SIZE = 100, 1500
"""Events of a request, and bytes of each: rows of the ready log cannot be packed."""
SMALL = f"""data_bytes_max: {256 * MIB}
log: {{segment_bytes: 8388608, ready_segment_bytes: 8388608, spare_segments_max: 1}}
"""
SECOND = "  second: {type: duckdb, path: second.duckdb}\n"


class Stream:
    """Sends events, remembers the ids that were acknowledged; each tenth is sent twice."""

    def __init__(self, node: Running) -> None:
        self.node = node
        self.sent = 0

    def send(self, count: int) -> None:
        until = self.sent + count
        while self.sent < until:
            numbers = range(self.sent, min(until, self.sent + BATCH))
            doubled = [n for n in numbers if n % 10 == 0]
            batch = [
                {"type": "track", "event": "E", "messageId": f"m{n}", "anonymousId": f"a{n % 97}",
                 "properties": {"p": f"{n:010d}" * (SIZE // 10)}}
                for n in [*numbers, *doubled]
            ]  # fmt: skip
            status, told = self.node.post("/v1/batch", {"batch": batch})
            if status == 503:
                time.sleep(0.2)
                continue
            assert status == 200, told
            self.sent += len(numbers)

    def ids(self) -> set[str]:
        return {f"m{n}" for n in range(self.sent)}


def ready_bytes(node: Running) -> int:
    return sum(file.stat().st_size for file in (node.data / "ready").rglob("*.seg"))


def holds(
    node: Running, destination: str, ids: set[str], timeout_s: float = 60, *, settled: bool = True
) -> None:
    """Until a destination has exactly these ids, each once, and the ledger holds (where all are there)."""

    def count() -> int:
        done = node.command("sql", "--json", "--destination", destination, "select count(*) as n from events")
        return int(json.loads(done.stdout)[0]["n"]) if done.returncode == 0 else -1

    wait_for(lambda: count() >= len(ids), timeout_s, node.log, interval_s=0.3)
    done = node.command(
        "sql", "--json", "--limit", "200000", "--destination", destination, "select message_id from events"
    )
    assert unique(row["message_id"] for row in json.loads(done.stdout)) == ids
    for stream in node.wait_settled() if settled else ():
        assert stream["holds"], stream


@pytest.mark.one_node("fills the ready log of one node; three share what it is filled with")
def test_a_destination_that_was_away_costs_raw_log_only_and_catches_up(
    make_node: Callable[..., Running],
) -> None:
    """INV-DST-3: the other one goes on, though the ready log has long given up what the second lacks."""
    node = make_node(more=SECOND + SMALL)
    node.start()
    stream = Stream(node)
    stream.send(500)
    holds(node, "second", stream.ids())
    away = node.data / "second.away"
    (node.data / "second.duckdb").rename(away)
    stream.send(30_000)
    holds(node, "warehouse", stream.ids(), 90, settled=False)
    wait_for(lambda: ready_bytes(node) <= 32 * MIB, 30, node.log)  # 45 MiB of rows: most of them are gone
    away.rename(node.data / "second.duckdb")
    stream.send(500)
    holds(node, "second", stream.ids(), 90)
    holds(node, "warehouse", stream.ids())
    assert "destination_behind" in node.log_text()


def test_a_new_destination_gets_everything_from_the_beginning_or_what_came_since_a_time(
    make_node: Callable[..., Running],
) -> None:
    node = make_node(more=SMALL)
    node.start()
    stream = Stream(node)
    stream.send(30_000)
    holds(node, "warehouse", stream.ids(), 90)
    time.sleep(0.1)
    start = datetime.datetime.now(datetime.UTC).isoformat()
    since = f"  since: {{type: duckdb, path: since.duckdb, start: '{start}'}}\n"
    first = stream.ids()
    stream.send(700)
    holds(node, "warehouse", stream.ids(), 90)
    node.stop()
    node.configure(more=SECOND + since + SMALL)
    node.start()
    holds(node, "second", stream.ids(), 90, settled=False)
    stream.send(300)
    holds(node, "second", stream.ids(), settled=False)
    holds(node, "since", stream.ids() - first)
    (web,) = node.reconcile()
    assert web["destinations"]["since"]["filtered"] == len(first), web


def test_a_warehouse_restored_from_yesterday_fills_itself_up_again(
    make_node: Callable[..., Running], tmp_path: Path
) -> None:
    node = make_node(more=SECOND + SMALL)
    node.start()
    stream = Stream(node)
    stream.send(777)
    holds(node, "second", stream.ids())
    node.stop()
    copy = tmp_path / "yesterday.duckdb"
    shutil.copy(node.data / "second.duckdb", copy)
    node.start()
    stream.send(30_000)
    holds(node, "second", stream.ids(), 90)
    node.stop()
    shutil.copy(copy, node.data / "second.duckdb")
    node.start()
    holds(node, "second", stream.ids(), 90)
    stream.send(300)
    holds(node, "second", stream.ids())


def test_a_destination_that_is_written_off_lets_the_node_go_on_and_takes_what_is_left(
    make_node: Callable[..., Running],
) -> None:
    """``on_raw_full: write_off``: the raw log (179 MiB here) gives up what only this destination lacks."""
    node = make_node(warehouse="on_raw_full: write_off", more=SMALL)
    node.start()
    stream = Stream(node)
    stream.send(500)
    holds(node, "warehouse", stream.ids())
    away = node.data / "warehouse.away"
    (node.data / "warehouse.duckdb").rename(away)
    stream.send(140_000)
    wait_for(lambda: "raw_written_off" in node.log_text(), 30, node.log)
    away.rename(node.data / "warehouse.duckdb")
    stream.send(500)
    (web,) = node.wait_settled(timeout_s=120)
    assert web["holds"], web
    assert web["filtered"] > 1000 and web["delivered"] == stream.sent - web["filtered"]
    told = node.command(
        "sql", "--json",
        "select count(*) as n, count(distinct message_id) as ids, "
        "count(*) filter (cast(substr(message_id, 2) as bigint) < 500) as first from events",
    )  # fmt: skip
    assert json.loads(told.stdout) == [{"n": web["delivered"], "ids": web["delivered"], "first": 500}]
