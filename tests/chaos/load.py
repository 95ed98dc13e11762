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
LATER_S = (0.3, 1.0, 3.0, 8.0, 15.0)
AGAIN_SHARE = 0.5
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

    def batch(self, rng: random.Random, number: int, count: int) -> list[dict[str, object]]:
        """New events of a client that has made ``count``."""
        made: list[dict[str, object]] = []
        for n in range(count + 1, count + 1 + rng.choice(SIZES)):
            name, value = f"r{self.round}-{number}-{n}", float(rng.randrange(10**6))
            self.sent[name] = value
            visitor = f"a{number}-{n % VISITORS}"
            made.append({"type": "track", "event": f"R{self.round}", "messageId": name,
                         "anonymousId": visitor, "properties": {"value": value}})  # fmt: skip
        return made

    def client(self, number: int) -> None:
        rng = random.Random(f"{self.round} {number}")
        count, connection = 0, None
        while not self.stopping.is_set():
            batch = self.batch(rng, number, count)
            count += len(batch)
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


class Roaming(Load):
    """Clients that send the same events at several nodes, at once and up to ``LATER_S`` later, acknowledged or not:
    what a cluster forgets when partitions move is seen by nothing else. There is no order in what they send."""

    def client(self, number: int) -> None:
        rng = random.Random(f"{self.round} {number}")
        connections: dict[int, HTTPConnection | None] = {}
        waiting: list[tuple[float, list[dict[str, object]], int]] = []
        count = 0

        def put(batch: list[dict[str, object]], at: int) -> None:
            connections[at], accepted = self.send(connections.get(at), batch, self.nodes[at])
            if accepted:
                self.acknowledged.update(str(event["messageId"]) for event in batch)

        while not self.stopping.is_set():
            batch = self.batch(rng, number, count)
            count += len(batch)
            places = rng.sample(range(len(self.nodes)), min(2, len(self.nodes)))
            for at in places[: rng.choice((1, 2))]:
                put(batch, at)
            if rng.random() < AGAIN_SHARE:
                waiting.append(
                    (time.monotonic() + rng.choice(LATER_S), batch, rng.randrange(len(self.nodes)))
                )
            for one in [one for one in waiting if one[0] < time.monotonic()]:
                waiting.remove(one)
                put(one[1], one[2])
            time.sleep(self.pause_s)
        for connection in connections.values():
            if connection is not None:
                connection.close()
