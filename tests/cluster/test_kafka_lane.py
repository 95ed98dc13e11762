"""Events that travel between real nodes through a real broker (protocol.md §8)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.nodes import ClusterNode, begin, cluster_of, wait_view
from tests.journeys.running import WEB_KEY, wait_for
from tests.rigs import kafka as rig
from tests.rigs.kafka import Kafka

pytestmark = [pytest.mark.thorough, pytest.mark.real("java", "kafka")]
START_S, ARRIVE_S = 60, 60
SECTIONS = "destinations:\n  warehouse: {type: duckdb, path: warehouse.duckdb}\n"


@contextmanager
def three(folder: Path) -> Iterator[tuple[list[ClusterNode], Kafka]]:
    """Three nodes that see each other, and the broker that they speak through."""
    with rig.running(folder / "kafka") as kafka:
        more = f"  kafka: {{servers: '{kafka.servers}'}}"
        with cluster_of(folder, 3, more=more, sections=SECTIONS) as nodes:
            begin(nodes)
            wait_view(nodes, START_S)
            wait_for(lambda: all(send(node, "warm") for node in nodes), START_S, nodes[0].log)
            yield nodes, kafka


def send(node: ClusterNode, name: str, count: int = 10) -> bool:
    """A batch of events with ids of their own; whether it was accepted."""
    batch = [
        {"type": "track", "event": "E", "messageId": f"{node.name}-{name}-{n}", "anonymousId": f"v{name}{n}"}
        for n in range(count)
    ]
    try:
        return node.post("/v1/batch", {"batch": batch})[0] == 200
    except OSError:
        return False


def lane(node: ClusterNode) -> Any:
    """What its lane says of Kafka."""
    return json.loads((node.data / "run" / "reports" / "lane-0.json").read_text())["detail"]["kafka"]


def rows(nodes: Sequence[ClusterNode]) -> tuple[int, int]:
    """How many rows the warehouse has, and how many ids, by the first node that answers."""
    for node in nodes:
        said = node.command("sql", "--json", "select count(*) c, count(distinct message_id) d from events")
        if said.returncode == 0:
            (one,) = json.loads(said.stdout)
            return one["c"], one["d"]
    return 0, 0


def arrived(nodes: Sequence[ClusterNode], count: int) -> None:
    """Every event is in the warehouse, once, and the ledger says so too."""

    def about() -> str:
        return f"{rows(nodes)} of {count}\n" + "\n".join(f"{n.name}: {lane(n)}\n{n.log()}" for n in nodes)

    wait_for(lambda: rows(nodes)[1] >= count, ARRIVE_S, about, interval_s=0.3)
    assert rows(nodes) == (count, count)
    for stream in nodes[0].wait_settled():
        told = {name: one for name, one in stream.items() if name in ("accepted", "delivered", "pending", "holds")}
        print(told)


def through_kafka(node: ClusterNode) -> None:
    """It follows all others by Kafka."""
    assert sorted(lane(node)["by"].values()) == ["kafka", "kafka"], lane(node)


def test_each_event_arrives_once_through_kafka_and_the_ledger_holds(tmp_path: Path) -> None:
    with three(tmp_path) as (nodes, _):
        for number in range(30):
            assert all(send(node, str(number)) for node in nodes)
        arrived(nodes, 3 * 310)
        for node in nodes:
            through_kafka(node)
