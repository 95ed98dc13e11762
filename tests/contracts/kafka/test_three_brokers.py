"""Three brokers, one of which dies or freezes: what was acknowledged is there once and in order."""

from __future__ import annotations

import asyncio

import pytest

from headwater.kit import tasks
from headwater.lane.kafka.produce import KafkaProducer
from headwater.lane.kafka.settings import KafkaSettings, ProduceSettings
from tests.contracts.kafka.group import Notes, content, member, until
from tests.rigs.kafka import Kafka

pytestmark = [
    pytest.mark.real("java", "kafka"),
    pytest.mark.slow,
    pytest.mark.thorough,
    pytest.mark.timeout(240),
]


async def test_k1_a_leader_that_freezes_and_one_that_dies_cost_time_and_nothing_else(
    three_brokers: Kafka,
) -> None:
    topic = three_brokers.topic(partitions=3)
    kafka = KafkaSettings(servers=three_brokers.servers, socket_timeout_s=2.0)
    stop, sent, sink = asyncio.Event(), [0, 0, 0], Notes()

    async with (
        KafkaProducer(kafka, ProduceSettings(linger_ms=1)) as sending,
        tasks.Group("load", print) as group,
    ):

        async def load(partition: int) -> None:
            while not stop.is_set():
                values = [(None, b"%d" % n) for n in range(sent[partition], sent[partition] + 10)]
                await sending.send_many(topic, values, partition=partition)
                sent[partition] += 10

        loading = [group.start(f"load {n}", load(n)) for n in range(3)]
        async with member(three_brokers.servers, sink, topic):
            await until(lambda: all(sent))
            frozen = three_brokers.brokers[three_brokers.leader(topic, 0) - 1]
            frozen.freeze()
            before = sent[0]
            await until(lambda: sent[0] > before + 100, "the other brokers lead")
            frozen.thaw()
            killed = three_brokers.brokers[three_brokers.leader(topic, 1) - 1]
            killed.kill()
            before = sent[1]
            await until(lambda: sent[1] > before + 100, "the other brokers lead")
            stop.set()
            await asyncio.wait(loading)
            await until(lambda: len(sink.events) >= sum(sent))
    found = content(three_brokers.servers, topic)
    for partition in range(3):
        assert [int(message.value()) for message in found[partition]] == list(range(sent[partition]))
    assert sorted(map(int, sink.values)) == sorted(n for count in sent for n in range(count))
