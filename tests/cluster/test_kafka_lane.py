"""Events that travel between real nodes through a real broker (protocol.md §8)."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from tests.cluster.nodes import ClusterNode, begin, cluster_of, wait_view
from tests.journeys.running import wait_for
from tests.rigs import kafka as rig
from tests.rigs.kafka import Kafka

pytestmark = [pytest.mark.thorough, pytest.mark.real("java", "kafka")]
START_S, ARRIVE_S = 60, 60
SECTIONS = "destinations:\n  warehouse: {type: duckdb, path: warehouse.duckdb}\n"


@contextmanager
def three(folder: Path, *, broker: bool = True) -> Iterator[tuple[list[ClusterNode], Kafka]]:
    """Three nodes that see each other, each with ten events, and the ``broker`` that they speak through."""
    with rig.running(folder / "brokers") as kafka:
        if not broker:
            kafka.brokers[0].kill()
        more = f"  kafka: {{servers: '{kafka.servers}'}}"
        with cluster_of(folder, 3, more=more, sections=SECTIONS) as nodes:
            begin(nodes)
            wait_view(nodes, START_S)
            for node in nodes:
                wait_for(lambda node=node: send(node, "warm"), START_S, node.log)  # type: ignore[misc]
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
    """What its lane says of Kafka; before it says anything, of nobody and nothing."""
    report = node.data / "run" / "reports" / "lane-0.json"
    if not report.exists():
        return {"by": {}, "waiting_s": -1.0}
    return json.loads(report.read_text())["detail"].get("kafka", {"by": {}, "waiting_s": -1.0})


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
        return f"{rows(nodes)} of {count}\n" + "\n".join(f"{node.name}: {node.log()}" for node in nodes)

    wait_for(lambda: rows(nodes)[1] >= count, ARRIVE_S, about, interval_s=0.3)
    assert rows(nodes) == (count, count)
    streams = nodes[0].wait_settled()
    assert [(one["accepted"], one["delivered"], one["holds"]) for one in streams] == [(count, count, True)]


def through_kafka(nodes: Sequence[ClusterNode]) -> None:
    """All follow all others by Kafka; after a fault, soon again."""
    for node in nodes:
        wait_for(lambda node=node: sorted(lane(node)["by"].values()) == ["kafka", "kafka"], 20, node.log)  # type: ignore[misc]


def test_each_event_arrives_once_through_kafka_and_the_ledger_holds(tmp_path: Path) -> None:
    with three(tmp_path) as (nodes, _):
        for number in range(30):
            assert all(send(node, str(number)) for node in nodes)
        arrived(nodes, 3 * 310)
        through_kafka(nodes)


class Load:
    """A thread per node that sends batch after batch, each once; what was accepted counts."""

    def __init__(self, nodes: Sequence[ClusterNode]) -> None:
        self.accepted = dict.fromkeys((node.name for node in nodes), 0)
        self.refused = 0
        self.slowest_s = 0.0
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(node,), daemon=True) for node in nodes]
        for thread in self.threads:
            thread.start()

    def run(self, node: ClusterNode) -> None:
        number = 0
        while not self.stopping.wait(0.02):
            began = time.monotonic()
            if send(node, f"load{number}"):
                self.accepted[node.name] += 10
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            else:
                self.refused += 1
            number += 1

    def stop(self) -> int:
        """How many were accepted."""
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        return sum(self.accepted.values())


def test_a_broker_that_is_away_is_a_backlog_that_is_told_and_nothing_is_lost_or_doubled(
    tmp_path: Path,
) -> None:
    with three(tmp_path) as (nodes, kafka):
        load = Load(nodes)
        time.sleep(3)
        (broker,) = kafka.brokers
        broker.kill()
        wait_for(lambda: all(lane(node)["waiting_s"] > 6 for node in nodes), 30, nodes[0].log)
        before = dict(load.accepted)
        time.sleep(4)
        assert all(load.accepted[name] > before[name] + 100 for name in before), "accepting goes on"
        for node in nodes:
            assert "Kafka" in node.waits_for(), node.waits_for()
            assert "kafka_lane_waits" in node.log_text()
        broker.start()
        broker.ready()
        time.sleep(3)
        sent = load.stop()
        assert load.refused == 0
        assert load.slowest_s < 2, load.slowest_s
        arrived(nodes, 30 + sent)
        for node in nodes:
            assert lane(node)["waiting_s"] < 2
            assert "Kafka" not in node.waits_for()
            assert "kafka_lane_goes_on" in node.log_text()
        through_kafka(nodes)


def test_a_node_that_is_killed_under_load_comes_back_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    with three(tmp_path) as (nodes, _):
        load = Load(nodes)
        time.sleep(3)
        keeper = next(node for node in nodes if (node.data / "warehouse.duckdb").exists())
        lost = next(node for node in nodes if node is not keeper)
        others = [node for node in nodes if node is not lost]
        lost.kill_all()
        wait_view(others, 30)
        time.sleep(3)
        lost.begin()
        wait_view(nodes, START_S)
        time.sleep(3)
        # What was on its way when the node died may be there though nobody was told: so many batches at most.
        sent = load.stop()
        ids = 30 + sent
        wait_for(lambda: rows(others)[1] >= ids, ARRIVE_S, lambda: f"{rows(others)} of {ids}", interval_s=0.3)
        count, distinct = rows(others)
        assert count == distinct
        assert ids <= count <= ids + 10 * load.refused
        assert all(stream["holds"] for stream in keeper.wait_settled())
        through_kafka(nodes)


def test_what_the_topic_has_lost_is_fetched_from_the_node_that_accepted_it(tmp_path: Path) -> None:
    with three(tmp_path) as (nodes, kafka):
        a = nodes[0]
        through_kafka(nodes)
        stopped = [pid for node in nodes[1:] for pid in node.freeze("role lane")]
        try:
            assert len(stopped) == 2
            for number in range(100):
                assert send(a, str(number))
            wait_for(lambda: lane(a)["waiting_s"] == 0, 10, a.log)
            time.sleep(1)
            purge(kafka, "headwater-headwater")
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        arrived(nodes, 30 + 1000)
        assert any("kafka_offsets_skipped" in node.log_text() for node in nodes[1:])
        assert all(send(node, "after") for node in nodes)
        arrived(nodes, 30 + 1000 + 30)
        through_kafka(nodes)


def purge(kafka: Kafka, topic: str) -> None:
    """Let the topic forget all that is in it, as retention would."""
    count = len(kafka.admin.list_topics(topic).topics[topic].partitions)
    ends = [TopicPartition(topic, partition, -1) for partition in range(count)]
    for done in kafka.admin.delete_records(ends).values():
        done.result()


def test_nodes_that_start_without_a_broker_accept_and_go_on_when_it_comes(tmp_path: Path) -> None:
    with three(tmp_path, broker=False) as (nodes, kafka):
        for number in range(10):
            assert all(send(node, str(number)) for node in nodes)
        for node in nodes:
            wait_for(lambda node=node: "Kafka" in node.waits_for(), 30, node.log)  # type: ignore[misc]
            assert node.status_of(node.ops, "/ready") == 200
        assert rows(nodes)[0] < 330
        kafka.brokers[0].start()
        kafka.brokers[0].ready()
        arrived(nodes, 330)
        through_kafka(nodes)
