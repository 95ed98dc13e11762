"""A replay on a real node, under load and kill -9: rows of the range are made again, no event is lost or doubled."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.journeys.running import Running, unique, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.one_node("a replay over several nodes is not built (docs/plan.md)"),
]

PARTNER = "process: {enrich: {referrer: {internal_hosts: [partner.example]}}}"
"""With it, the referrer of every event here is internal; without it, a link."""
BATCH = 50


class Sender:
    """Sends named events and remembers those that were acknowledged; a batch holds copies of its own and older ones."""

    def __init__(self, node: Running) -> None:
        self.node = node
        self.acknowledged: list[str] = []
        self.stopping = threading.Event()

    def send(self, name: str, count: int) -> None:
        for first in range(0, count, BATCH):
            names = [f"{name}{n}" for n in range(first, min(count, first + BATCH))]
            copies = names[::5] + self.acknowledged[-200::23]
            batch = [
                {"type": "page", "messageId": one, "anonymousId": f"a{hash_of(one) % 31}",
                 "context": {"page": {"url": "https://shop.example/", "referrer": "https://partner.example/x"}}}
                for one in names + copies
            ]  # fmt: skip
            status, told = self.node.post("/v1/batch", {"batch": batch})
            assert status == 200, told
            self.acknowledged += names

    def go_on(self, name: str) -> threading.Thread:
        """Send until ``stopping``; what is not acknowledged is sent again, as clients do."""

        def work() -> None:
            number = 0
            while not self.stopping.is_set():
                try:
                    self.send(f"{name}{number}-", BATCH)
                    number += 1
                except (OSError, AssertionError, ValueError):
                    time.sleep(0.1)
                time.sleep(0.02)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread


def hash_of(text: str) -> int:
    return sum(map(ord, text))


def pause() -> float:
    """A moment between two blocks, as the clock shows it."""
    time.sleep(0.3)
    now = time.time()
    time.sleep(0.3)
    return now


def replays(node: Running) -> list[dict[str, Any]]:
    done = node.command("replay", "list", "--json")
    return list(json.loads(done.stdout)) if done.returncode == 0 else []


def done_more_than(node: Running, count: int) -> bool:
    known = replays(node)
    return bool(known) and known[0]["done"] > count


def times(begin: float, end: float) -> list[str]:
    return ["--from", iso(begin), "--to", iso(end)]


def iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f"{at % 1:.6f}"[1:] + "+00:00"


def take_partner_over(node: Running, sender: Sender) -> None:
    """The new configuration, and an event that shows it; what was sent before has gone through with the old one."""
    node.wait_rows(len(sender.acknowledged), 60)
    node.configure(more=PARTNER)
    node.signal(signal.SIGHUP)

    def shown() -> bool:
        sender.send(f"probe{len(sender.acknowledged)}-", 1)
        node.wait_rows(len(sender.acknowledged))
        name = sender.acknowledged[-1]
        (row,) = node.sql(f"select referrer_kind from events where message_id = '{name}'")
        return bool(row["referrer_kind"] == "internal")

    wait_for(shown, 20, node.log, interval_s=0.3)


def kinds(node: Running) -> dict[str, str]:
    """First letter of the id → kind of referrer; AssertionError where one letter has two."""
    rows = node.sql("select distinct message_id[1] as name, referrer_kind as kind from events order by 1, 2")
    found = {row["name"]: row["kind"] for row in rows if row["name"] != "p"}
    assert len(found) == len([row for row in rows if row["name"] != "p"]), rows
    return found


def check_exact(node: Running, sender: Sender) -> None:
    """Each acknowledged event once, the ledger holds, and the counters are what is there."""
    node.wait_rows(len(set(sender.acknowledged)), 60)
    for stream in node.wait_settled():
        assert stream["holds"], stream
    assert unique(row["message_id"] for row in node.sql("select message_id from events")) == set(
        sender.acknowledged
    )
    wrong = node.sql(
        "select * from (select _hw_partition p, count(*) n from events group by 1) full join "
        "(select partition, \"rows\" from headwater_positions where pipeline like '%/main') on p = partition "
        'where coalesce(n, 0) <> coalesce("rows", 0)'
    )
    assert wrong == []


def test_a_replay_makes_the_rows_of_its_range_again_through_kill_9(make_node: Callable[..., Running]) -> None:
    node = make_node()
    node.start()
    sender = Sender(node)
    sender.send("a", 500)
    begin = pause()
    sender.send("b", 6000)
    end = pause()
    sender.send("c", 500)
    take_partner_over(node, sender)
    thread = sender.go_on("n")
    done = node.command("replay", *times(begin, end), "--rate", "600")
    assert done.returncode == 0, done.stderr
    for many in (300, 600, 900, 1200):
        wait_for(partial(done_more_than, node, many), 60, node.log)
        node.kill(*node.pids("role deliver"))
    node.kill_all()
    node.start()
    wait_for(
        lambda: bool(replays(node)) and replays(node)[0]["state"] == "done", 90, node.log, interval_s=0.3
    )
    sender.stopping.set()
    thread.join(20)
    check_exact(node, sender)
    assert kinds(node) == {"a": "link", "b": "internal", "c": "link", "n": "internal"}
    (one,) = replays(node)
    assert one["rows"] <= one["done"] == one["events"] and not one["gained"] and not one["lost"]


def test_a_replay_into_a_shadow_table_leaves_the_main_one_alone(make_node: Callable[..., Running]) -> None:
    node = make_node()
    node.start()
    sender = Sender(node)
    sender.send("a", 300)
    begin = pause()
    sender.send("b", 700)
    end = pause()
    take_partner_over(node, sender)
    told = json.loads(
        node.command("replay", *times(begin, end), "--into", "try1", "--dry-run", "--json").stdout
    )
    assert told["id"] is None and told["table"] == "events_try1" and told["events"] > 700
    assert replays(node) == []
    assert node.command("replay", *times(begin, end), "--into", "try1").returncode == 0
    wait_for(
        lambda: bool(replays(node)) and replays(node)[0]["state"] == "done", 60, node.log, interval_s=0.3
    )
    rows = node.sql(
        "select message_id[1] as name, referrer_kind as kind, count(*) as n from events_try1 group by all"
    )
    assert rows == [{"name": "b", "kind": "internal", "n": 700}]
    check_exact(node, sender)
    assert kinds(node) == {"a": "link", "b": "link"}
    assert "events_try1" in node.command("replay", *times(begin, end), "--into", "try1").stderr
    assert node.command("replay", "drop", "try1").returncode == 0
    assert node.command("sql", "from events_try1").returncode == 2
    assert replays(node) == []


def test_a_replay_that_is_cancelled_stays_where_it_is(make_node: Callable[..., Running]) -> None:
    node = make_node()
    node.start()
    sender = Sender(node)
    begin = pause()
    sender.send("b", 1500)
    end = pause()
    take_partner_over(node, sender)
    assert node.command("replay", *times(begin, end), "--rate", "50").returncode == 0
    wait_for(lambda: replays(node)[0]["done"] > 0, 30, node.log)
    done = node.command("replay", "cancel", "1")
    assert done.returncode == 0 and " of " in done.stdout, done.stdout
    assert node.command("replay", "cancel", "1").returncode == 2
    check_exact(node, sender)
    (made,) = node.sql(
        "select count(*) as n from events where referrer_kind = 'internal' and message_id like 'b%'"
    )
    assert 0 < made["n"] < 1500
    assert "between these times" in node.command("replay", "--from", "2d", "--to", "1d").stderr
