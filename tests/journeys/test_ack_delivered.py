"""`ack: delivered`: with the 200 the row is in the warehouse; without it, the answer says what is true instead."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.journeys.running import Running, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

DELIVERED = "wk_delivered_0123456789"
KEYS = f'  - {{id: orders, secret: "{DELIVERED}", ack: delivered}}'
LATE = "wk_late_0123456789"
TIMEOUT_S = 2.0


@pytest.fixture(scope="module")
def node(make_shared_node: Callable[..., Running]) -> Running:
    node = make_shared_node(keys=KEYS, workers=2)
    node.start()
    return node


def send(node: Running, *names: str) -> tuple[int, Any]:
    batch = [{"type": "track", "event": "E", "messageId": name, "anonymousId": name} for name in names]
    return node.post("/v1/batch" if len(batch) > 1 else "/v1/track", whole(batch), key=DELIVERED)


def whole(batch: list[dict[str, str]]) -> Any:
    return {"batch": batch} if len(batch) > 1 else batch[0]


def rows(node: Running, where: str) -> int:
    """Over HTTP, so that no time passes in which a row could still come."""
    asked = {"query": f"select count(*) as n from events where {where}"}
    answer = node.ask("POST", "/api/sql", asked, {"Content-Type": "application/json"}, port=node.ops)
    assert answer.status == 200, answer
    return int(answer.json["rows"][0]["n"])


def test_with_the_200_the_row_is_in_the_warehouse(node: Running) -> None:
    for number in range(8):
        status, told = send(node, f"one-{number}")
        assert rows(node, f"message_id = 'one-{number}'") == 1
        assert (status, told["ack"]) == (200, "delivered"), told
    status, told = send(node, *(f"many-{number}" for number in range(200)))
    assert rows(node, "message_id like 'many-%'") == 200
    assert (status, told["ack"], told["accepted"]) == (200, "delivered", 200), told


def test_many_clients_that_wait_are_all_answered_with_their_rows_there(node: Running) -> None:
    wrong: list[Any] = []

    def client(name: str) -> None:
        for number in range(3):
            status, told = send(node, f"{name}-{number}")
            if status != 200 or rows(node, f"message_id = '{name}-{number}'") != 1:
                wrong.append((name, number, status, told))

    threads = [threading.Thread(target=client, args=(f"client{number}",)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_paused_destination_is_said_after_its_time_and_the_row_comes_once(
    make_node: Callable[..., Running],
) -> None:
    node = make_node(keys=KEYS, door=f"delivered_timeout_s: {TIMEOUT_S}")
    node.start()
    assert send(node, "before")[0] == 200
    assert node.command("destination", "pause", "warehouse").returncode == 0
    began = time.monotonic()
    status, told = send(node, "held")
    took_s = time.monotonic() - began
    assert (status, told["ok"], told["error"], told["ack"]) == (503, False, "not_delivered", "disk"), told
    assert "on this node's disk and will be delivered" in told["reason"]
    assert "warehouse, which is paused" in told["reason"]
    assert TIMEOUT_S <= took_s < TIMEOUT_S + 2
    began = time.monotonic()
    assert node.post("/events", {"event": "Other", "messageId": "other"})[1]["ack"] == "disk"
    assert time.monotonic() - began < 1, "other keys do not wait"
    assert rows(node, "message_id = 'held'") == 0
    assert node.command("destination", "resume", "warehouse").returncode == 0
    wait_for(lambda: rows(node, "message_id = 'held'") == 1, 15, node.log)
    status, told = send(node, "held")
    assert (status, told["ack"]) == (200, "delivered"), "a copy is passed, too"
    assert rows(node, "message_id = 'held'") == 1
    assert {ledger["stream"]: ledger["duplicate"] for ledger in node.wait_settled()}["orders"] == 1


def test_who_waits_while_the_node_stops_is_told_and_the_row_comes_after_the_next_start(
    make_node: Callable[..., Running],
) -> None:
    node = make_node(keys=KEYS, door="delivered_timeout_s: 60", more="shutdown_timeout: 1")
    node.start()
    assert node.command("destination", "pause", "warehouse").returncode == 0
    answers: list[tuple[int, Any]] = []
    waiting = threading.Thread(target=lambda: answers.append(send(node, "last")))
    waiting.start()
    wait_for(lambda: any(stream["accepted"] for stream in node.reconcile()), 15, node.log)
    assert node.stop() == 0
    waiting.join()
    ((status, told),) = answers
    assert (status, told["error"], told["ack"]) == (503, "not_delivered", "disk"), told
    node.start()
    assert node.command("destination", "resume", "warehouse").returncode == 0
    wait_for(lambda: rows(node, "message_id = 'last'") == 1, 15, node.log)


def test_the_level_of_a_key_reloads(node: Running) -> None:
    node.configure(keys=f'{KEYS}\n  - {{id: late, secret: "{LATE}", ack: disk}}')
    node.signal(signal.SIGHUP)
    wait_for(lambda: node.post("/events", {"event": "E"}, key=LATE)[0] == 200, 10, node.log)
    node.configure(keys=f'{KEYS}\n  - {{id: late, secret: "{LATE}", ack: delivered}}')
    node.signal(signal.SIGHUP)
    wait_for(lambda: node.post("/events", {"event": "E"}, key=LATE)[1]["ack"] == "delivered", 10, node.log)
    node.configure(keys=KEYS)


def test_the_level_is_shown_with_its_destination(node: Running) -> None:
    done = node.command("keys", "list", "--json")
    told = {key["id"]: (key["ack"], key["ack_destination"]) for key in json.loads(done.stdout)}
    assert (told["orders"], told["web"]) == (("delivered", "warehouse"), ("disk", None))
