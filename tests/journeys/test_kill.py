"""kill -9 under load: every acknowledged event is in the warehouse exactly once (INV-DEST, seen from outside).

The oracle stands outside the product: it knows what it sent and what was acknowledged, and reads the warehouse through
`headwater sql`. What was not acknowledged may be there, at most once. Each event is sent with its own content, which is
compared too.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException

import pytest

from tests.journeys.running import WEB_KEY, Running, unique, wait_for

ROUNDS = int(os.environ.get("HEADWATER_KILLS", "6"))
ROLES = ("collect", "process", "deliver", "ops", "supervisor", "all")


class Load:
    """Clients that send numbered events until told to stop, retrying what was not acknowledged with its own id."""

    def __init__(self, node: Running, seed: int, clients: int = 4) -> None:
        self.node = node
        self.random = random.Random(seed)
        self.sent: dict[str, float] = {}
        self.acknowledged: set[str] = set()
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._client, args=(n,), daemon=True) for n in range(clients)]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(20)

    def _client(self, number: int) -> None:
        rng = random.Random(number)
        count = 0
        connection: HTTPConnection | None = None
        while not self.stopping.is_set():
            batch: list[dict[str, object]] = []
            for _ in range(rng.choice((1, 1, 1, 7, 40))):
                count += 1
                name, value = f"k{number}-{count}", float(rng.randrange(10**6))
                self.sent[name] = value
                batch.append({"type": "track", "event": "Kept", "messageId": name, "anonymousId": f"a{number}",
                              "properties": {"value": value}})  # fmt: skip
            for _ in range(rng.choice((1, 2))):  # now and then a client gives up after one try
                try:
                    connection = connection or HTTPConnection("127.0.0.1", self.node.collect, timeout=5)
                    connection.request("POST", "/v1/batch", json.dumps({"batch": batch}),
                                       {"X-Write-Key": WEB_KEY, "Content-Type": "application/json"})  # fmt: skip
                    reply = connection.getresponse()
                    body = reply.read()
                    if reply.status == 200 and json.loads(body)["accepted"] == len(batch):
                        self.acknowledged.update(str(e["messageId"]) for e in batch)
                        break
                except (OSError, HTTPException, ValueError):
                    if connection is not None:
                        connection.close()
                    connection = None
                time.sleep(0.05)
            time.sleep(0.002)
        if connection is not None:
            connection.close()


@pytest.mark.slow
@pytest.mark.timeout(300 + 5 * ROUNDS)
def test_inv_dest_kill_9_of_any_process_at_any_moment_neither_loses_nor_doubles(
    make_node: Callable[..., Running],
) -> None:
    seed = int(os.environ.get("HEADWATER_SEED", "20261121"))
    rng = random.Random(seed)
    node = make_node(workers=2)
    node.start()
    load = Load(node, seed)
    killed: list[str] = []
    try:
        for number in range(ROUNDS):
            time.sleep(rng.uniform(0.2, 1.5))
            role = ROLES[number % len(ROLES)]
            killed.append(role)
            if role in ("supervisor", "all"):
                if role == "all":
                    node.kill_all()
                else:
                    pids = node.pids()
                    node.kill(*node.pids("supervisor"))
                    assert node.process is not None
                    node.process.wait(10)
                    wait_for(lambda pids=pids: not any(map(_running, pids)), 15)  # type: ignore[misc]
                node.start()
            else:
                pids = node.pids(f" {role} ")
                assert pids, f"no process of role {role}: {node.log()}"
                node.kill(rng.choice(pids))
        time.sleep(0.5)
    finally:
        load.stop()
    wait_for(lambda: node.status_of(node.ops, "/ready") == 200, 40, node.log)
    streams = node.wait_settled(90)
    rows = node.sql("select message_id, value from events")
    there = {r["message_id"]: r["value"] for r in rows}
    unique(r["message_id"] for r in rows)
    lost = load.acknowledged - there.keys()
    assert not lost, (
        f"seed {seed}, killed {killed}: {len(lost)} of {len(load.acknowledged)} lost, such as {sorted(lost)[:5]}"
    )
    assert all(load.sent[name] == value for name, value in there.items())
    assert all(s["holds"] for s in streams), streams
    assert len(load.acknowledged) > 100


def _running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
