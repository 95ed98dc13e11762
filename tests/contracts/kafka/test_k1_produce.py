"""K1: events into a real broker."""

from __future__ import annotations

import asyncio

import pytest

from headwater.kit.errors import Misconfigured, Rejected
from headwater.lane.kafka.keys import partition_of
from tests.contracts.kafka.group import content, producer, until
from tests.rigs.kafka import Kafka
from tests.thorough import often

pytestmark = [pytest.mark.real("java", "kafka"), pytest.mark.slow]


async def test_k1_the_await_ends_when_the_broker_has_the_event(kafka: Kafka) -> None:
    topic = kafka.topic(partitions=2)
    async with producer(kafka.servers) as sending:
        at = await sending.send(topic, b"x", key=b"k", headers={"h": b"1"}, partition=1)
        found = content(kafka.servers, topic)[1]
    assert (at.partition, at.offset) == (1, 0)
    assert [(m.key(), m.value(), m.headers()) for m in found] == [(b"k", b"x", [("h", b"1")])]


async def test_k1_every_key_goes_to_the_partition_that_murmur2_says(kafka: Kafka) -> None:
    topic = kafka.topic(partitions=7)
    keys = [f"visitor-{n}é".encode() for n in range(500)] + [b"", b"a", b"ab", b"abc"]
    async with producer(kafka.servers) as sending:
        await sending.send_many(topic, [(key, key) for key in keys])
        for key in keys[:20]:
            assert (await sending.send(topic, b"one", key=key)).partition == partition_of(key, 7)
    for partition, messages in content(kafka.servers, topic).items():
        assert {partition_of(message.key(), 7) for message in messages} <= {partition}


async def test_k1_a_full_queue_makes_callers_wait_in_order_and_drops_nothing(kafka: Kafka) -> None:
    topic = kafka.topic()
    count = 2_000
    async with producer(
        kafka.servers, queue_events_max=10, queue_bytes_max=10_000, event_bytes_max=1_000
    ) as sending:
        most = 0

        async def one(number: int) -> None:
            nonlocal most
            await sending.send(topic, b"%d" % number, key=b"same")
            most = max(most, sum(chunk.events for chunk in sending.open))

        await asyncio.gather(*map(one, range(count)))
        assert most <= 10
    assert [int(message.value()) for message in content(kafka.servers, topic)[0]] == list(range(count))


async def test_k1_what_can_never_be_sent_is_refused_and_nothing_of_it_goes(kafka: Kafka) -> None:
    topic = kafka.topic()
    async with producer(kafka.servers, event_bytes_max=100) as sending:
        with pytest.raises(Rejected, match="an event of 101 bytes; at most 100"):
            await sending.send_many(topic, [(None, b"good"), (b"k", b"x" * 100)])
        with pytest.raises(Misconfigured, match="producing to nowhere"):
            await sending.send_many("nowhere", [(None, b"x")] * 3)
        with pytest.raises(Misconfigured, match="producing to nowhere"):
            await sending.send("nowhere", b"x")
        assert sending.room.events == sending.settings.queue_events_max
        await sending.send(topic, b"last")
    assert [message.value() for message in content(kafka.servers, topic)[0]] == [b"last"]


@pytest.mark.thorough
async def test_k1_a_broker_killed_and_restarted_under_load_loses_doubles_and_mixes_up_nothing(
    own_kafka: Kafka,
) -> None:
    """Killed twice in `make thorough`."""
    topic = own_kafka.topic(partitions=3)
    broker = own_kafka.brokers[0]
    keys, rounds = 20, often(200, 400)
    acknowledged: list[tuple[bytes, bytes]] = []

    async with producer(own_kafka.servers, linger_ms=1) as sending:

        async def visitor(key: bytes) -> None:
            for number in range(rounds):
                value = b"%s %d" % (key, number)
                await sending.send(topic, value, key=key)
                acknowledged.append((key, value))

        async def faults() -> None:
            loop = asyncio.get_running_loop()
            for share in often((0.4,), (0.2, 0.6)):
                await until(lambda share=share: len(acknowledged) >= share * keys * rounds)
                await loop.run_in_executor(None, broker.kill)
                broker.start()
                await loop.run_in_executor(None, broker.ready)

        await asyncio.gather(faults(), *(visitor(b"key-%d" % n) for n in range(keys)))
    found: dict[bytes, list[bytes]] = {}
    for messages in content(own_kafka.servers, topic).values():
        for message in messages:
            found.setdefault(message.key(), []).append(message.value())
    assert found == {b"key-%d" % n: [b"key-%d %d" % (n, r) for r in range(rounds)] for n in range(keys)}
