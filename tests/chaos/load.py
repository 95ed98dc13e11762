"""Clients that send numbered events, and remember what was acknowledged: the obligations of the node.

Each event has an id and a value of its own. What was not acknowledged is tried again once, or given up: it may be
there, at most once. Between rounds the clients rest, so that what is owed can be counted.

A client speaks with one node, and waits for each answer before it sends the next: so events of one visitor are owed in
their order (protocol.md INV-ORD-1).
"""

from __future__ import annotations

import json
import random
import threading
import time
from http.client import HTTPConnection, HTTPException

from tests.journeys.running import WEB_KEY, Running

CLIENTS = 4
SIZES = (1, 1, 1, 7, 40)
VISITORS = 24
"""Of each client, so that its events are in many partitions."""


class Load:
    """``sent`` and ``acknowledged`` are of the round that ``begin`` began."""

    def __init__(self, *nodes: Running, clients: int = CLIENTS, pause_s: float = 0.002) -> None:
        self.nodes = nodes
        self.clients = clients
        self.pause_s = pause_s
        self.round = 0
        self.sent: dict[str, float] = {}
        self.acknowledged: set[str] = set()
        self.stopping = threading.Event()
        self.threads: list[threading.Thread] = []

    def begin(self, number: int) -> None:
        """Clients for one round; their events are named after it."""
        self.round, self.sent, self.acknowledged = number, {}, set()
        self.stopping = threading.Event()
        self.threads = [
            threading.Thread(target=self.client, args=(n,), daemon=True) for n in range(self.clients)
        ]
        for thread in self.threads:
            thread.start()

    def rest(self) -> None:
        """Until every client has got its last answer, or given up."""
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive(), "a client waits for an answer that does not come"

    def client(self, number: int) -> None:
        rng = random.Random(f"{self.round} {number}")
        count, connection = 0, None
        while not self.stopping.is_set():
            batch: list[dict[str, object]] = []
            for _ in range(rng.choice(SIZES)):
                count += 1
                name, value = f"r{self.round}-{number}-{count}", float(rng.randrange(10**6))
                self.sent[name] = value
                visitor = f"a{number}-{count % VISITORS}"
                batch.append({"type": "track", "event": f"R{self.round}", "messageId": name,
                              "anonymousId": visitor, "properties": {"value": value}})  # fmt: skip
            for _ in range(rng.choice((1, 2))):  # now and then a client gives up after one try
                connection, accepted = self.send(connection, batch, self.nodes[number % len(self.nodes)])
                if accepted:
                    self.acknowledged.update(str(event["messageId"]) for event in batch)
                    break
                time.sleep(0.05)
            time.sleep(self.pause_s)
        if connection is not None:
            connection.close()

    def send(
        self, connection: HTTPConnection | None, batch: list[dict[str, object]], node: Running
    ) -> tuple[HTTPConnection | None, bool]:
        """One request; the connection where it can go on, and whether it was acknowledged."""
        connection = connection or HTTPConnection("127.0.0.1", node.collect, timeout=8)
        headers = {"X-Write-Key": WEB_KEY, "Content-Type": "application/json"}
        try:
            connection.request("POST", "/v1/batch", json.dumps({"batch": batch}), headers)
            reply = connection.getresponse()
            body = reply.read()
            return connection, reply.status == 200 and json.loads(body)["accepted"] == len(batch)
        except (OSError, HTTPException, ValueError):
            connection.close()
            return None, False
