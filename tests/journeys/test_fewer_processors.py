"""`process.workers` is lowered: nothing is lost or doubled, and what was left goes when everybody has it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from tests.chaos.load import Load
from tests.journeys.running import SERVER_KEY, Running, unique, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

EVENTS = 200


def send(node: Running) -> None:
    """The same events each time; the second time they are a client's retries."""
    for start in range(0, EVENTS, 50):
        batch = [
            {"messageId": f"m{n}", "anonymousId": f"a{n % 60}", "type": "track", "event": "Clicked"}
            for n in range(start, start + 50)
        ]
        assert node.post("/v1/batch", {"batch": batch}, key=SERVER_KEY)[0] == 200


def folders(node: Running) -> list[str]:
    """What lies there of the processors, as ``ready/1``."""
    return sorted(f"{p}/{n}" for p in ("ready", "state") for n in os.listdir(node.data / p) if n[0].isdigit())


def test_what_a_former_processor_left_goes_when_everybody_has_it(make_node: Callable[..., Running]) -> None:
    node = make_node(more="process: {workers: 3}")
    node.start()
    send(node)
    refused = [
        {"messageId": "bad", "type": "track", "event": 7},
        {"messageId": "good", "type": "track", "event": "e"},
    ]
    assert node.post("/v1/batch", {"batch": refused}, key=SERVER_KEY)[0] == 200
    node.wait_rows(EVENTS + 1)
    wait_for(lambda: '"bad"' in node.command("dead", "list", "--json").stdout, 10, node.log)
    dead = node.command("dead", "list", "--json").stdout
    for pid in node.pids(" deliver "):
        os.kill(pid, signal.SIGSTOP)  # the destination is behind from here on
    more = [
        {"messageId": f"late{n}", "anonymousId": f"b{n}", "type": "track", "event": "Late"} for n in range(50)
    ]
    assert node.post("/v1/batch", {"batch": more}, key=SERVER_KEY)[0] == 200
    wait_for(lambda: all(f"ready/{n}" in folders(node) for n in range(3)), 10, node.log)
    node.kill_all()

    node.configure(more="process: {workers: 1}")
    node.start()
    wait_for(lambda: folders(node) == ["ready/0", "state/0"], 30, lambda: f"{folders(node)} {node.log()}")
    assert "processor_retired" in node.log_text()
    send(node)  # retries: the ids that a former processor has seen are known
    streams = node.wait_settled()
    assert all(s["holds"] and s["delivered"] == EVENTS + 51 and s["duplicate"] == EVENTS for s in streams), (
        streams
    )

    node.kill_all()
    node.start()
    send(node)
    streams = node.wait_settled()
    assert all(s["holds"] and s["duplicate"] == 2 * EVENTS for s in streams), streams
    rows = unique(r["message_id"] for r in node.sql("select message_id from events"))
    assert len(rows) == EVENTS + 51
    assert node.command("dead", "list", "--json").stdout == dead

    node.stop()
    node.configure(more="process: {workers: 2}")
    node.start()
    send(node)
    streams = node.wait_settled()
    assert all(s["holds"] and s["delivered"] == EVENTS + 51 for s in streams), streams


def test_a_former_processor_stays_while_a_destination_is_behind(make_node: Callable[..., Running]) -> None:
    node = make_node(more="process: {workers: 2}")
    node.start()
    send(node)
    node.wait_rows(EVENTS)
    for pid in node.pids(" deliver "):
        os.kill(pid, signal.SIGSTOP)
    more = [
        {"messageId": f"late{n}", "anonymousId": f"b{n}", "type": "track", "event": "Late"} for n in range(50)
    ]
    assert node.post("/v1/batch", {"batch": more}, key=SERVER_KEY)[0] == 200
    wait_for(lambda: "ready/1" in folders(node), 10, node.log)
    node.kill_all()
    os.rename(node.data / "warehouse.duckdb", node.data / "elsewhere.duckdb")
    if (node.data / "warehouse.duckdb.wal").exists():
        os.rename(node.data / "warehouse.duckdb.wal", node.data / "elsewhere.duckdb.wal")

    node.configure(more="process: {workers: 1}")
    node.begin()
    wait_for(lambda: "destination_paused" in node.log_text(), 30, node.log)
    wait_for(lambda: node.status_of(node.ops, "/ready") == 200, 30, node.log)
    with pytest.raises(AssertionError):
        wait_for(lambda: "ready/1" not in folders(node) or "state/1" not in folders(node), 5)
    os.rename(node.data / "elsewhere.duckdb", node.data / "warehouse.duckdb")
    if (node.data / "elsewhere.duckdb.wal").exists():
        os.rename(node.data / "elsewhere.duckdb.wal", node.data / "warehouse.duckdb.wal")
    wait_for(lambda: folders(node) == ["ready/0", "state/0"], 60, lambda: f"{folders(node)} {node.log()}")
    streams = node.wait_settled()
    assert all(s["holds"] and s["delivered"] == EVENTS + 50 for s in streams), streams


ROUNDS = 6


@pytest.mark.timeout(180)
def test_any_number_of_processors_at_each_start_after_kill_9_neither_loses_nor_doubles(
    make_node: Callable[..., Running],
) -> None:
    seed = int(os.environ.get("HEADWATER_SEED", "20261121"))
    rng = random.Random(seed)
    node = make_node(workers=2, more="process: {workers: 3}")
    node.start()
    load = Load(node)
    load.begin(0)
    numbers = [3]
    try:
        for _ in range(ROUNDS):
            time.sleep(rng.uniform(0.2, 5))  # sometimes enough for the removal of former folders to begin
            node.kill_all()
            numbers.append(rng.choice([n for n in (1, 2, 3, 4) if n != numbers[-1]]))
            node.configure(more=f"process: {{workers: {numbers[-1]}}}")
            node.start()
    finally:
        load.rest()
    about = f"seed {seed}, processors {numbers}"
    streams = node.wait_settled(90)
    assert all(s["holds"] for s in streams), f"{about}: {streams}"
    there = unique(r["message_id"] for r in node.sql("select message_id from events"))
    lost = load.acknowledged - there
    assert not lost, f"{about}: {len(lost)} of {len(load.acknowledged)} lost, such as {sorted(lost)[:5]}"
    last = [f"{part}/{n}" for part in ("ready", "state") for n in range(numbers[-1])]
    wait_for(lambda: folders(node) == last, 30, lambda: f"{about}: {folders(node)} {node.log()}")
