"""Three nodes behind one door: copies that arrive at different nodes, balancing by a hash of the URI (seed 003), and a
rolling restart that no client sees.
"""

from __future__ import annotations

import collections
import http.client
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.nodes import ClusterNode, begin, cluster_of, wait_view
from tests.journeys.running import WEB_KEY, Answer, unique, wait_for
from tests.journeys.shell import program
from tests.parts import free_port, require_part
from tests.rigs.redis import Single

pytestmark = [pytest.mark.thorough, pytest.mark.slow, pytest.mark.journey, pytest.mark.timeout(360)]

DELAY_S = 2.0
MORE = f"""  minimum_nodes: 2
shutdown_delay: {DELAY_S}
destinations:
  warehouse: {{type: duckdb, path: warehouse.duckdb, node: a, sql: {{rows_max: 1000000}}}}
"""
HAPROXY = """
global
    maxconn 200
defaults
    mode http
    timeout connect 1s
    timeout client 20s
    timeout server 20s
frontend door
    bind 127.0.0.1:{port}
    default_backend headwater
backend headwater
    {balance}
    option httpchk GET /ready
    http-check expect status 200
    retry-on conn-failure 503
    retries 3
    option redispatch 1
    default-server check inter 300ms fall 2 rise 2
{servers}
"""
NGINX = """
{user} daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log warn;
events {{ worker_connections 256; }}
http {{
access_log off;
client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
upstream headwater {{
    {balance}
{servers}
}}
server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://headwater; proxy_set_header Host $http_host; proxy_buffering off; }}
}}
}}
"""
BY_URI = {"haproxy": "balance uri whole\n    hash-type consistent", "nginx": "hash $request_uri consistent;"}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ClusterNode]]:
    require_part("redis")
    folder = tmp_path_factory.mktemp("three")
    with ExitStack() as stack:
        redis = Single(folder / "redis")
        stack.callback(redis.close)
        redis.up()
        store = f"  store: {{url: 'redis://127.0.0.1:{redis.port}'}}"
        nodes = stack.enter_context(cluster_of(folder, 3, store, MORE))
        begin(nodes)
        wait_view(nodes, 40)
        wait_for(lambda: all(ready(node) for node in nodes), 40, nodes[0].log)
        yield nodes


def ready(node: ClusterNode) -> bool:
    return node.alive() and node.status_of(node.ops, "/ready") == 200


@contextmanager
def proxy(
    kind: str, folder: Path, nodes: list[ClusterNode], balance: str, without: str = ""
) -> Iterator[int]:
    """A balancer in front of the nodes; its port. ``without``: the node that it takes to be down."""
    binary, port = str(require_part(kind)), free_port()
    folder.mkdir()
    config = folder / "proxy.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    form, down, line = {
        "haproxy": (HAPROXY, " disabled", "    server {name} 127.0.0.1:{port}{down}"),
        "nginx": (NGINX, " down", "    server 127.0.0.1:{port}{down};"),
    }[kind]
    servers = "\n".join(
        line.format(name=node.name, port=node.collect, down=down if node.name == without else "")
        for node in nodes
    )
    config.write_text(form.format(port=port, balance=balance, servers=servers, folder=folder, user=user))
    arguments = {
        "haproxy": ["-db", "-f", str(config)],
        "nginx": ["-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")],
    }[kind]
    with program([binary, *arguments], folder / "said.log"):
        wait_for(lambda: nodes[0].status_of(port, "/ping") == 200, 10, (folder / "said.log").read_text)
        yield port


def send(node: ClusterNode, event: dict[str, Any], port: int = 0, path: str = "/events") -> Answer:
    return node.ask("POST", path, event, {"X-Write-Key": WEB_KEY}, port=port)


def taker(answer: Answer) -> str:
    """The node that took a request: the home of the writer in the receipt."""
    assert answer.status == 200, answer
    return f"{int(answer.json['receipt'].partition('-')[0], 16) & ~0xFFFF:016x}"


def rows_of(node: ClusterNode, event: str) -> list[dict[str, Any]]:
    return node.sql(f"select message_id, anonymous_id, received_at, n from events where event = '{event}'")


def wait_settled(node: ClusterNode, within_s: float = 180) -> list[dict[str, Any]]:
    """Until the ledger of the cluster has nothing pending; and it holds."""
    streams = node.wait_settled(within_s)
    assert all(one["holds"] for one in streams), streams
    return streams


# -- part 8: duplicates


@pytest.mark.real("redis")
def test_same_message_id_at_different_nodes_is_one_row(three: list[ClusterNode]) -> None:
    ids = [f"copy-{n}" for n in range(40)]
    failures: list[object] = []

    def copies(node: ClusterNode) -> None:  # all at once: no node has seen it before the others
        for name in ids:
            event = {
                "event": "Copied",
                "messageId": name,
                "anonymousId": f"visitor-{name}",
                "properties": {"n": 1},
            }
            if (answer := send(node, event)).status != 200:
                failures.append(answer)

    before = sum(one["duplicate"] for one in three[0].reconcile())
    threads = [threading.Thread(target=copies, args=(node,)) for node in three]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures, failures
    streams = wait_settled(three[0])
    assert sum(one["duplicate"] for one in streams) - before == 2 * len(ids)
    for node in three:  # whichever is asked
        assert unique(row["message_id"] for row in rows_of(node, "Copied")) == {*ids}


@pytest.mark.real("redis", "haproxy", "nginx")
@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
def test_hash_of_the_uri_sends_copies_to_one_node_and_moves_few_when_a_node_goes(
    three: list[ClusterNode], tmp_path: Path, kind: str
) -> None:
    """Seed 003: "requests always go to the same instance … consistent hashing … most traffic continues to be routed to
    the same instance". Here that only saves work: a copy that lands elsewhere is dropped as well."""
    ids = [f"{kind}-{n}" for n in range(60)]

    def sent(port: int) -> dict[str, str]:
        return {
            name: taker(
                send(
                    three[0],
                    {
                        "event": f"Hashed {kind}",
                        "messageId": name,
                        "anonymousId": "v",
                        "properties": {"n": 1},
                    },
                    port,
                    f"/events?{name}",
                )
            )
            for name in ids
        }

    with proxy(kind, tmp_path / "all", three, BY_URI[kind]) as port:
        first, again = sent(port), sent(port)
    with proxy(kind, tmp_path / "two", three, BY_URI[kind], without="c") as port:
        without = sent(port)
    assert first == again
    gone = next(one["id"] for one in three[0].status()["nodes"] if one["name"] == "c")
    taken = collections.Counter(first.values())
    assert len(taken) == 3 and min(taken.values()) >= 5, taken
    assert gone not in without.values()
    assert {name for name in ids if without[name] != first[name]} == {
        name for name in ids if first[name] == gone
    }
    wait_settled(three[0])
    assert unique(row["message_id"] for row in rows_of(three[0], f"Hashed {kind}")) == {*ids}


# -- part 9: rolling restart


class Visitors:
    """Each sends numbered events through the door, one after the other, on a connection that it keeps."""

    def __init__(self, port: int, count: int, event: str) -> None:
        self.port, self.event = port, event
        self.taken: dict[str, int] = {}
        self.failures: list[object] = []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.go, args=(n,), daemon=True) for n in range(count)]
        for thread in self.threads:
            thread.start()

    def go(self, number: int) -> None:
        who = f"visitor-{number}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"X-Write-Key": WEB_KEY, "Content-Type": "application/json"}
        for n in itertools.count():
            if self.stopping.is_set():
                break
            name = f"{self.event}-{number}-{n}"
            body = {"event": self.event, "messageId": name, "anonymousId": who, "properties": {"n": n}}
            try:
                connection.request("POST", "/events", json.dumps(body), headers)
                reply = connection.getresponse()
                told = reply.read()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append((name, repr(error)))
                connection.close()
                continue
            if reply.status == 200:
                self.taken[name] = n
            else:
                self.failures.append((name, reply.status, told[:200]))
            time.sleep(0.01)
        connection.close()

    def stop(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)


@pytest.mark.real("redis", "haproxy")
def test_rolling_restart_of_three_nodes_loses_and_doubles_nothing_and_no_client_sees_it(
    three: list[ClusterNode], tmp_path: Path
) -> None:
    """Readiness first, delay, in flight, hand-over, leave: one node after the other, under load."""
    took: list[tuple[float, float]] = []
    with proxy("haproxy", tmp_path / "door", three, "balance roundrobin") as port:
        visitors = Visitors(port, 4, "Rolling")
        try:
            time.sleep(1)
            took += [restart(node, three) for node in three]
            time.sleep(1)
        finally:
            visitors.stop()
    print(f"{len(visitors.taken)} events; drain and start, seconds: {took}")
    assert not visitors.failures, (len(visitors.failures), visitors.failures[:3])
    assert len(visitors.taken) > 1000
    wait_settled(three[0])
    rows = rows_of(three[0], "Rolling")
    assert unique(row["message_id"] for row in rows) == {*visitors.taken}
    in_order(rows)


@pytest.mark.real("redis")
def test_what_a_node_accepted_last_is_delivered_though_it_is_stopped_and_stays_away(
    three: list[ClusterNode],
) -> None:
    """Others own what it owned, and have read its log to the end, before it goes."""
    a, b, c = three
    names = {f"last-{n}" for n in range(300)}
    for name in sorted(names):
        answer = send(c, {"event": "Last", "messageId": name, "anonymousId": name, "properties": {"n": 1}})
        assert answer.status == 200
    c.signal(signal.SIGTERM)
    assert c.process is not None and c.process.wait(40) == 0, c.log()
    try:
        wait_for(lambda: unique(row["message_id"] for row in rows_of(a, "Last")) == names, 10, b.log)
    finally:
        c.begin()
        wait_view(three, 40)
        wait_for(lambda: ready(c), 40, c.log)
    wait_settled(a)


def restart(node: ClusterNode, nodes: list[ClusterNode]) -> tuple[float, float]:
    """SIGTERM, all that a drain promises, start, and everybody sees everybody; how long its end and its start took."""
    assert node.process is not None
    others = [one for one in nodes if one is not node]
    asked = time.monotonic()
    node.signal(signal.SIGTERM)
    wait_for(lambda: node.status_of(node.collect, "/ping") == 503, 1.5, node.log)
    assert node.status_of(node.ops, "/ready") == 503
    assert send(node, {"event": "Served on", "anonymousId": "x"}).status == 200
    assert time.monotonic() - asked < DELAY_S
    assert node.process.wait(40) == 0, node.log()
    ended = time.monotonic()
    staying = [one.name for one in others]

    def left() -> bool:
        return all(node.name not in one.here() and one.sees(*staying) for one in others)

    wait_for(left, 5, others[0].log)
    for one in others:
        assert [e for e in one.events("left") if e["name"] == node.name], one.status()["activity"]
        assert one.events("evicted") == [], one.status()["activity"]
    node.begin()
    wait_view(nodes, 40)
    wait_for(lambda: ready(node), 40, node.log)
    return round(ended - asked, 1), round(time.monotonic() - ended, 1)


def in_order(rows: list[dict[str, Any]]) -> None:
    """The events of one visitor, by receive time, are in the order in which they were sent."""
    by_visitor: dict[str, list[tuple[str, int]]] = collections.defaultdict(list)
    for row in rows:
        by_visitor[row["anonymous_id"]].append((row["received_at"], row["n"]))
    for who, seen in by_visitor.items():
        numbers = [n for _, n in sorted(seen)]
        assert numbers == sorted(numbers), who
